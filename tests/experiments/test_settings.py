"""Settings before anything is made of them: read, checked, compared; and what the parser says about wrong ones."""

import json

import pytest
from jsonargparse import ArgumentError

import cli
from callbacks.checkpoints import BestCheckpoint
from common.errors import InputError
from experiments.arguments import parser_of
from experiments.config_files import dump_yaml, read_yaml
from experiments.parser_messages import readable
from experiments.run_folder import RunFolder
from experiments.setting_values import check_trainer
from experiments.settings import parse
from experiments.trainer_parts import file_callbacks
from tests.command_line import run, write_config


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_bert, cola_folder):
    return write_config(tmp_path_factory.mktemp("config"), tiny_bert, cola_folder)


def test_what_is_typed_lies_above_a_base_and_changes_above_both(config):
    settings = parse(["fit", "--config", str(config), "--data.batch_size=4"])
    assert (settings.plain["run_name"], settings.values.data.init_args.batch_size) == ("tiny", 4)
    assert parse(["fit"], settings.plain).plain == settings.plain
    again = parse(["validate", "--data.batch_size", "6"], settings.plain)
    assert again.values.data.init_args.batch_size == 6
    changed = again.changed({"data.batch_size": 2, "model.adapter.rank_max": 7, "trainer.max_epochs": 1})
    expected = settings.plain
    expected["data"]["init_args"]["batch_size"] = 2
    expected["model"]["init_args"]["adapter"]["init_args"]["rank_max"] = 7
    expected["trainer"]["max_epochs"] = 1
    assert changed.plain == expected
    with pytest.raises(InputError, match="data has no option 'batchsize'"):
        again.changed({"data.batchsize": 2})
    with pytest.raises(InputError, match="seed_everything is -1"):
        again.changed({"seed_everything": -1})


def test_a_name_that_looks_like_an_option_is_a_value(config, tmp_path, capsys):
    assert run("fit", config, tmp_path, "--run_name", "-n", "--trainer.max_epochs", "-5") == 2
    assert "trainer.max_epochs is -5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "source", "value"), [("seed", "seed_everything", 7), ("backbone", "model.backbone", "7")]
)
def test_what_follows_another_setting_cant_be_set_to_something_else(config, tmp_path, name, source, value):
    said = rf"data.{name} is '?7'?, but would have no effect: it is taken from {source}"
    again = parse(["fit", "--config", str(config)])
    changed = tmp_path / "changed.yaml"
    changed.write_text(dump_yaml({"data": {"init_args": {name: value}}}))
    for typed in ([f"--data.{name}", "7"], [f"--data.init_args.{name}=7"], ["--config", str(changed)]):
        with pytest.raises(InputError, match=said):
            parse(["fit", "--config", str(config), *typed])
    with pytest.raises(InputError, match=said):
        again.changed({f"data.{name}": value})
    assert parse(["fit", "--config", str(config), "--data.seed", "1"]).plain == again.plain  # as it is anyway


def test_a_setting_of_an_earlier_call_is_no_default_of_the_next(config):
    parse(["fit", "--config", str(config), "--trainer.max_epochs=9", "--run_name=other"])
    settings = parse(["fit", "--config", str(config)])
    assert (settings.values.trainer.max_epochs, settings.values.run_name) == (3, "tiny")


def test_what_is_typed_wins_wherever_it_stands(config):
    typed = ["--trainer.max_epochs=9", "--config", str(config), "--run_name", "1e5", f"-c={config}"]
    settings = parse(["fit", *typed])
    assert (settings.values.trainer.max_epochs, settings.values.run_name) == (9, "1e5")
    assert settings.configs == [config, config]


def test_arguments_of_a_class_may_stand_before_it_and_those_of_another_are_refused(config):
    lora = ["--model.adapter.rank=3", "--model.adapter=lora.LoRA", "--model.adapter.lora_alpha", "4"]
    after = parse(["fit", "--config", str(config), *lora[1:], lora[0]])
    assert parse(["fit", *lora[:2], "--config", str(config), *lora[2:]]).plain == after.plain
    with pytest.raises(InputError, match=r"no option 'task'"):
        parse(["fit", "--config", str(config), "--data.task=sst2", "--data=datamodules.TableDataModule"])


@pytest.mark.parametrize(
    ("name", "typed", "expected"),
    [
        ("optimizer.head_learning_rate", "null", None),
        ("adapter.budget", "~", None),
        ("adapter.targets", '["1e5", "it\'s"]', ["1e5", "it's"]),
        ("adapter.settings", '{"r": null, "a": [null, true]}', {"r": None, "a": [None, True]}),
    ],
)
def test_null_stays_null_in_a_class_within_a_class(config, name, typed, expected):
    own = ["--model.adapter=lightning_modules.PEFTAdapter"] if name == "adapter.settings" else []
    for place in ("model", "model.init_args"):
        earlier = [] if own else [f"--{place}.{name}=7"]  # what is typed last wins
        given = (*earlier, f"--{place}.{name}", typed)
        values = parse(["fit", "--config", str(config), *own, *given]).plain["model"]["init_args"]
        part = values[name.partition(".")[0]]
        assert part.get("init_args", part)[name.partition(".")[2]] == expected


def test_typed_settings_with_a_name_twice_are_refused(config):
    for typed in ('{"class_path": "lora.LoRA", "init_args": {"rank": 3, "rank": 5}}', "{rank: 3, rank: 5}"):
        with pytest.raises(InputError, match="'rank' is given twice"):
            parse(["fit", "--config", str(config), "--model.adapter", typed])


LOOK_ELSE = ("1e5", "-1E-5", "12e3", "2024-01-01", "12:30", "1_0", "0x1f", "on", " a", "é: [", "$HOME", "-n")
TYPED = ("a: b", "a #b", "[x]", "{a}", "- x", "*x", "&x y", "!x", "%x", "@x", "yes", "1_000")


@pytest.mark.parametrize("texts", [*(LOOK_ELSE[at : at + 3] for at in (0, 3, 6, 9)), ("&a", "#2 a", "1.")])
def test_text_that_looks_like_something_else_stays_text(config, tmp_path, texts):
    changes = dict(zip(("run_name", "data.data_dir", "runs_dir"), texts, strict=True))
    settings = parse(["fit", "--config", str(config)]).changed(changes)
    (tmp_path / "saved.yaml").write_text(settings.text, encoding="utf-8")
    again = parse(["fit", "--config", str(tmp_path / "saved.yaml")])
    assert again.plain == settings.plain == read_yaml(tmp_path / "saved.yaml")
    assert (again.values.run_name, again.values.data.init_args.data_dir, again.values.runs_dir) == texts


@pytest.mark.parametrize("texts", [TYPED[at : at + 4] for at in (0, 4, 8)])
def test_text_that_is_typed_stays_as_it_is(config, tmp_path, texts):
    names = ("run_name", "data.data_dir", "data.init_args.predict_file", "model.revision")
    joined = [f"--{name}={text}" for name, text in zip(names, texts, strict=True)]
    rest = zip(names[1:], texts[-2::-1], strict=True)
    apart = [f"--{names[0]}={texts[-1]}", *(word for name, text in rest for word in (f"--{name}", text))]
    for options, expected in ((joined, texts), (apart, texts[::-1])):
        settings = parse(["fit", "--config", str(config), *options])
        values = settings.values
        model, data = values.model.init_args, values.data.init_args
        assert (values.run_name, data.data_dir, data.predict_file, model.revision) == expected
        (tmp_path / "saved.yaml").write_text(settings.text, encoding="utf-8")
        assert parse(["fit", "--config", str(tmp_path / "saved.yaml")]).plain == settings.plain


def test_a_wrong_setting_beside_such_a_text_is_named_as_without_it(config):
    with pytest.raises(InputError, match=r"no option --trainer.max_epoch\b.*--trainer.max_epochs"):
        parse(["fit", "--config", str(config), "--data.data_dir=a: b", "--trainer.max_epoch=3"])
    with pytest.raises(InputError, match=r"data\.batch_size"):
        parse(["fit", "--config", str(config), "--data.batch_size=[x]"])


BOMB = "\n".join(["a0: &a0 [1, 2]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])


@pytest.mark.parametrize("verb", ["fit", "sweep"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainer: {max_epochs: 1}\ntrainer: {}\n", "'trainer' is given twice, again in line 2"),
        ("data:\n  init_args: {task: cola, task: sst2}\n", "'task' is given twice"),
        ("trainer:\n  <<: {max_epochs: 1}\n  <<: {max_epochs: 2}\n", "'<<' is given twice"),
        ("trainer: {max_epochs: 1}\ntrainer.max_epochs: 2\n", "gives 'trainer.max_epochs' twice"),
        ("data: &data {more: *data}\n", "something that holds itself"),
        (BOMB, "more than 100,000 values"),
        ("[" * 100_000, "more than 200 times"),
        ("seed_everything: " + "1" * 5000, "Exceeds the limit"),
        ("data: !!int x", "can't be read as YAML"),
        ("data: \xe9", "can't be read"),
        ("- 1\n", "allowed: settings by name"),
        ("", "is empty"),
    ],
)
def test_a_file_that_says_something_twice_or_without_end_is_refused(tmp_path, capsys, verb, text, said):
    (tmp_path / "x.yaml").write_text(text, encoding="latin-1")
    assert cli.main([verb, "--config", str(tmp_path / "x.yaml"), "--runs_dir", str(tmp_path)]) == 2
    assert said in (message := capsys.readouterr().err) and "x.yaml" in message
    assert len(message.splitlines()) <= 10


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--trainer.max_epochs=x", "trainer.max_epochs is 'x': expected a whole number"),
        ("--model.adapter.allocation=softmx", "model.adapter.allocation: softmx given, allowed: 'softmax'"),
        ("--model.quantization=nf3", "model.quantization is 'nf3': allowed: 'int8', 'nf4' or null. Correct it"),
        ("--model.adapter.rank_mx=3", "no option 'rank_mx'; lora.AdaptiveLoRAXS allows: "),
        ("--data.batch_size=[1]", "data.batch_size: expected a whole number. Got value: [1]"),
    ],
)
def test_the_parsers_reports_are_turned_into_one_sentence(config, typed, expected):
    with pytest.raises(ArgumentError) as raised:
        parser_of("fit").parse_args(["--config", str(config), typed])
    said = readable(str(raised.value))
    assert expected in said and "\n" not in said, (
        f"jsonargparse words its reports in another way now, and experiments/parser_messages.py, which turns them into "
        f"one sentence, no longer fits. It made {said!r} of:\n{raised.value}"
    )


def test_a_model_with_data_of_another_kind_is_refused_both_ways(config, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("w1 w2\nw3 w4\n")
    running = ("--data", "datamodules.PlainTextDataModule", "--data.train_file", str(text))
    for options, allowed in (
        (running, "a TextClassificationDataModule"),
        (("--model", "lightning_modules.LanguageModellingModule"), "a LanguageModellingDataModule"),
    ):
        assert run("fit", config, tmp_path, *options) == 2
        assert f"allowed with this model: {allowed}" in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("name", ["limit_train_batches", "limit_val_batches", "overfit_batches"])
def test_more_batches_than_a_double_can_count_are_refused(name):
    check_trainer({name: 2**53})
    with pytest.raises(InputError, match=f"trainer.{name} is {2**60}; allowed: up to 9,007,199,254,740,992"):
        check_trainer({name: 2**60})


@pytest.mark.parametrize(("batches", "kept"), [(None, True), (0.5, True), (0, False)])
def test_without_validation_no_epoch_is_the_best(config, tmp_path, batches, kept):
    settings = parse(["fit", "--config", str(config)])
    made = file_callbacks({"limit_val_batches": batches}, RunFolder(tmp_path), settings)
    assert any(isinstance(callback, BestCheckpoint) for callback in made) is kept


def test_a_callback_whose_default_is_a_member_of_an_enumeration_goes_into_config_yaml(config):
    timer = {"class_path": "lightning.pytorch.callbacks.Timer", "init_args": {"duration": "00:00:01:00"}}
    settings = parse(["fit", "--config", str(config), f"--trainer.callbacks={json.dumps(timer)}"])
    written = settings.plain["trainer"]["callbacks"]
    assert written["init_args"] == {"duration": "00:00:01:00", "interval": "step", "verbose": True}


def test_a_choice_without_anything_to_choose_in_is_refused():
    with pytest.raises(InputError, match="gradient_clip_algorithm is 'value', but would have no effect"):
        check_trainer({"gradient_clip_algorithm": "value"})
    check_trainer({"gradient_clip_algorithm": "value", "gradient_clip_val": 1.0})


@pytest.mark.parametrize(
    ("name", "given"), [("enable_checkpointing", False), ("barebones", True), ("use_distributed_sampler", True)]
)
def test_what_every_run_needs_can_not_be_left_out(name, given):
    said = f"trainer.{name} is {str(given).lower()}; allowed: {str(not given).lower()}, because .* Leave it out"
    with pytest.raises(InputError, match=said):
        check_trainer({name: given})
    check_trainer({name: not given})
    check_trainer({"enable_checkpointing": False, "fast_dev_run": True})
