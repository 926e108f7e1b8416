from tests.command_line import run, write_config


def test_a_model_with_data_of_another_kind_is_refused_both_ways(tmp_path, tiny_bert, cola_folder, capsys):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    text = tmp_path / "text.txt"
    text.write_text("w1 w2\nw3 w4\n")
    running = ("--data", "datamodules.PlainTextDataModule", "--data.train_file", str(text))
    assert run("fit", config, tmp_path, *running) == 2
    assert "allowed with this model: a TextClassificationDataModule" in capsys.readouterr().err
    assert run("fit", config, tmp_path, "--model", "lightning_modules.LanguageModellingModule") == 2
    assert "allowed with this model: a LanguageModellingDataModule" in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()
