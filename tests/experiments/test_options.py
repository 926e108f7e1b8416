"""What help lists, and what a mistyped or a shortened option gets."""

import csv
import io
import re
import sys

import pytest

import cli
from common.errors import InputError
from common.terminal import VerbParser, as_called, print_columns
from experiments.config_files import CONFIGS, flatten
from experiments.parser_messages import missing_package
from experiments.settings import parse
from tests.command_line import run, write_config

_RATE = "--model.optimizer.learning_rate"


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_bert, cola_folder):
    return write_config(tmp_path_factory.mktemp("options"), tiny_bert, cola_folder)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--lr", "1e-3"], _RATE),
        (["--learning_rate=1e-3"], _RATE),
        (["--model.optimizer.lr", "1"], _RATE),
        (["--epochs", "2"], "--trainer.max_epochs"),
        (["--traner.max_epochs", "2"], "--trainer.max_epochs"),
        (["--batch_size", "4"], "--data.batch_size"),
        (["--rank", "4"], "--model.adapter.rank_average"),
        (["--model.rank", "4"], "--model.adapter.rank_average"),
        (["--seed", "4"], "--seed_everything"),
        (["cola_adaptive"], "--config cola_adaptive"),
    ],
)
def test_what_is_no_option_is_answered_with_the_one_it_stands_for(config, tmp_path, capsys, typed, meant):
    assert run("fit", config, tmp_path, *typed) == 2
    assert re.search(rf"Did you mean `?{meant}\b", said := capsys.readouterr().err), said
    assert cli.main(["fit", *typed]) == 2  # without a config, too
    assert f"Did you mean {meant}" in capsys.readouterr().err.replace("`", "")


def test_wrong_case_is_answered_with_the_right_one(config, tmp_path, capsys):
    assert run("fit", config, tmp_path, "--model.adapter", "lora.Lora") == 2
    assert "lora has no class Lora. Did you mean LoRA or " in capsys.readouterr().err
    assert run("fit", config, tmp_path, "--model.adapter.rank", "4") == 2  # the base's, which rank_max is given to
    assert "Did you mean rank_min or rank_max or rank_average?" in capsys.readouterr().err
    assert cli.main(["fit", "--config", "QUICKSTART"]) == 2
    assert "there is quickstart.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["sweep", "--config", "sweeps/quickstart_sweep.yaml", "--dry_runn"], "--dry_run"),
        (["sweep", "--confg=sweeps/quickstart_sweep.yaml"], "--config"),
        (["report", "runs", "--baselin", "fixed"], "--baseline"),
        (["export", "runs", "--fromat", "peft"], "--format"),
        (["export", "runs", "--format", "peft", "--max_shard_sizes=5GB"], "--max_shard_size"),
    ],
)
def test_other_verbs_name_the_option_that_was_meant_too(capsys, typed, meant):
    assert cli.main(typed) == 2
    assert f"did you mean {meant}? See `python cli.py {typed[0]} --help`" in capsys.readouterr().err


def test_a_runs_own_option_is_no_mistyped_one_of_a_sweep(capsys):
    """--seed_everything and the like hold for every trial: the parser hands them on."""
    parser = VerbParser(handed_on=["run_names"])
    parser.add_argument("--run_name")
    options, rest = parser.parse_known_args(["--run_names", "a", "--model.x=1"])
    assert rest == ["--run_names", "a", "--model.x=1"] and options.run_name is None
    parser = VerbParser()
    parser.add_argument("--run_name")
    with pytest.raises(InputError, match=r"--run_names is no option; did you mean --run_name\?"):
        parser.parse_args(["--run_names", "a"])


def test_a_config_that_has_the_unknown_option_is_named_as_it_is(config, tmp_path, capsys):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(config.read_text() + "epochs: 3\n")
    assert run("fit", wrong, tmp_path) == 2
    assert "epochs" in capsys.readouterr().err


def test_help_lists_every_setting_of_the_config_in_one_line_each(config, tmp_path, capsys):
    assert run("fit", config, tmp_path, "--trainer.max_epochs", "7", "--help") == 0
    shown = capsys.readouterr().out
    values = flatten(parse(["fit", "--config", str(config)]).plain)
    names = {name.replace("init_args.", "") for name in values if not name.endswith("class_path")}
    listed = re.findall(r"^  --([\w.]+) (\S*)", shown, re.MULTILINE)
    assert names <= {name for name, _ in listed} and len(listed) > 100
    assert ("trainer.max_epochs", "7") in listed and ("model.adapter.rank_max", "8") in listed
    assert "model.adapter.rank" not in dict(listed)  # the adapter gives it to its base itself
    assert "\nmodel.adapter: lora.AdaptiveLoRAXS\n" in shown and "the largest one, and the size of R." in shown
    assert cli.main(["predict", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "quickstart.yaml" in shown and "--text null" in shown


def test_columns_stay_within_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "30")
    print_columns([("a", "short"), ("[bold]", "word " * 20)])
    assert capsys.readouterr().out == "a       short\n[bold]  word word word word w…\n"


def test_short_class_names_configs_and_the_version_are_known(capsys):
    with pytest.raises(SystemExit):
        cli.main(["fit", "--data.help", "TableDataModule"])
    assert "--data.label_column" in capsys.readouterr().out
    assert cli.main(["configs"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in shown} == {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    assert any(re.match(r"cola_lora_xs\.yaml +LoRA-XS with the fixed rank 20 on CoLA", line) for line in shown)
    assert cli.main(["--version"]) == 0
    assert re.match(r"rankwise \d+\.\d+\.\d+ \(", capsys.readouterr().out)


def test_commands_are_named_as_the_program_was_called(monkeypatch):
    assert as_called("python cli.py test RUN") == "python cli.py test RUN"
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/rankwise", "fit"])
    assert as_called("python cli.py test RUN") == "rankwise test RUN"


def test_a_library_that_is_missing_is_named(config, tmp_path, capsys):
    assert missing_package("x\n No module named 'mlflow.tracking'") == "mlflow"
    assert run("fit", config, tmp_path, "--trainer.logger", "WandbLogger") == 2
    assert f"`{sys.executable} -m pip install wandb`" in capsys.readouterr().err


@pytest.mark.parametrize("typed", [True, False])
def test_loggers_and_early_stopping_need_their_name_alone(config, tmp_path, typed):
    options = ["--trainer.logger", "CSVLogger", "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.patience=1"]
    if not typed:
        file = tmp_path / "more.yaml"
        stopping = "{class_path: EarlyStopping, init_args: {patience: 1}}"
        file.write_text(f"trainer:\n  logger: CSVLogger\n  callbacks: [{stopping}]\n")
        options = ["--config", str(file)]
    settings = parse(["fit", "--config", str(config), "--runs_dir", str(tmp_path), "--run_name", "one", *options])
    assert str(tmp_path) not in str(settings.plain["trainer"])  # another run of this config has its own folder
    made = settings.build().trainer
    assert made["logger"].save_dir == str(tmp_path / "one")
    assert [callback.patience for callback in made["callbacks"]] == [1]


@pytest.mark.slow
def test_early_stopping_watches_what_the_best_epoch_is_chosen_by(config, tmp_path, capsys):
    """Rates of 0 leave every epoch alike, so that patience ends after the second."""
    rates = [f"{_RATE}=0", "--model.optimizer.head_learning_rate=0", "--trainer.max_epochs=5"]
    stopping = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.patience", "1", "--trainer.logger=false"]
    assert run("fit", config, tmp_path, *rates, *stopping) == 0
    assert "Stopped after epoch 2: Monitored metric val/matthews_correlation" in capsys.readouterr().out


def test_sentences_are_answered_on_standard_output(finished_run, tmp_path, monkeypatch, capfd):
    texts = ["the cat sleeps", "the dog see"]
    file, typed = tmp_path / "texts.txt", f"the\u2028{texts[0][4:]}"  # no line ends there
    file.write_text("\n".join((typed, texts[1])) + "\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    ways = (["--text", texts[0], f"--text={texts[1]}"], ["-"], [str(file), "--output", "-"])
    answers = []
    for way in ways:
        assert cli.main(["predict", str(finished_run[1] / "tiny"), *way]) == 0
        answers.append(capfd.readouterr().out)
    assert [row["sentence"] for row in csv.DictReader(io.StringIO(answers[0]), delimiter="\t")] == texts
    assert answers[1] == answers[0] == answers[2]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n")))
    refused = ((["-"], "the given text, line 1: byte b'\\xff'"), ([str(file), "--text", "a"], "--text is given"))
    for way, said in refused:
        assert cli.main(["predict", str(finished_run[1] / "tiny"), *way]) == 2
        assert said in capfd.readouterr().err
