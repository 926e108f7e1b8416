"""The verb export as a user calls it, and its exports as users load them."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import cli
from lightning_modules.backbone_sketch import CHECKSUMS_NAME
from lightning_modules.native_adapter import FILE_NAME, NativeAdapter
from tests.command_line import run, write_config

KINDS = ("native", "peft", "merged")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, finished_run) -> Path:
    """A runs folder with one finished run, `tiny`, and its exports in all formats."""
    runs_dir = tmp_path_factory.mktemp("runs")
    shutil.copytree(finished_run[1] / "tiny", runs_dir / "tiny")
    for kind in KINDS:
        assert cli.main(["export", str(runs_dir / "tiny"), "--format", kind]) == 0
    return runs_dir


def exports(runs: Path) -> Path:
    return runs / "tiny" / "exports"


def copy_of_run(runs: Path, folder: Path) -> Path:
    shutil.copytree(runs / "tiny", folder / "tiny", ignore=shutil.ignore_patterns("exports"))
    return folder / "tiny"


def nothing_was_written(run_folder: Path) -> bool:
    return not (run_folder / "exports").exists() or not list((run_folder / "exports").iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_repeats_the_metric_of_results_json(runs, kind, capsys):
    results = json.loads((runs / "tiny" / "results.json").read_text())
    assert cli.main(["validate", f"--export={exports(runs) / kind}"]) == 0
    assert f"{results['metric']['best']:.4f}" in capsys.readouterr().out


def test_the_card_states_data_metric_ranks_budget_and_origin(runs):
    results = json.loads((runs / "tiny" / "results.json").read_text())
    for kind in KINDS:
        card = (exports(runs) / kind / "README.md").read_text()
        front = yaml.safe_load(card.split("---")[1])
        assert front["base_model"]
        for part in ("glue/cola", "40 training rows", f"{results['metric']['best']:.4f}", "of 200 budget used"):
            assert part in card, (kind, part)
        assert f"export RUN --format {kind}` with the run tiny" in card and "best.ckpt" in card
        assert len(re.findall(r"^\| bert\.encoder.* \| \d \|$", card, re.MULTILINE)) == 8


def test_a_merged_model_can_be_sharded_and_rounded(runs, tmp_path, capsys):
    folder = runs / "tiny"
    options = ["--format", "merged", "--max_shard_size", "4KB", "--dtype", "bfloat16"]
    assert cli.main(["export", str(folder), *options, "--output", str(tmp_path / "out")]) == 0
    assert "Rounding to bfloat16 moved them by at most" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert set(index["weight_map"].values()) == {path.name for path in (tmp_path / "out").glob("model-*.safetensors")}


def test_a_native_file_without_head_can_start_a_run_but_not_answer(runs, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--format", "native", "--without_head", "--with_factors", "--output", str(out)]
    assert cli.main(["export", "tiny", "--runs_dir", str(runs), *arguments]) == 0
    assert not NativeAdapter.read(out).head
    assert cli.main(["predict", "--export", str(out)]) == 2
    assert "without its head" in capsys.readouterr().err


def still(*options: str) -> list[str]:
    """Options of a fit whose weights don't move."""
    rates = ("learning_rate", "head_learning_rate", "allocation_learning_rate")
    return [*(f"--model.optimizer.{rate}=0" for rate in rates), "--trainer.max_epochs=1", *options]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "adapter"),
    [*(("native", adapter) for adapter in ("adaptive", "none", "of_peft")), ("peft", "adaptive"), ("peft", "none")],
)
def test_a_run_starts_from_an_exported_adapter(runs, tmp_path, tiny_bert, cola_folder, kind, adapter, capsys):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    options = still("--model.init_from", str(exports(runs) / kind))
    if adapter == "none":
        options.append("--model.adapter=null")
    if adapter == "of_peft":
        options += ["--model.adapter=lightning_modules.PEFTAdapter", "--model.adapter.method=lora"]
    code = run("fit", config, tmp_path, *options)
    if (kind, adapter) == ("peft", "adaptive") or adapter == "of_peft":
        assert code == 2 and "can't start from plain LoRA factors" in capsys.readouterr().err
        return
    assert code == 0
    before, after = (json.loads((folder / "tiny" / "results.json").read_text()) for folder in (runs, tmp_path))
    best = before["validations"][before["metric"]["best_epoch"]]
    assert after["validations"][0]["val/loss"] == pytest.approx(best["val/loss"], abs=1e-5)
    if adapter == "adaptive":
        exported = NativeAdapter.read(exports(runs) / "native").blocks
        ranks = json.loads((tmp_path / "tiny" / "ranks.json").read_text())["layers"]
        assert all(ranks[name] >= len(block) for name, block in exported.items())


@pytest.mark.slow
def test_a_resumed_run_does_not_start_again_from_the_adapter(runs, tmp_path, tiny_bert, cola_folder):
    source = tmp_path / "adapter"
    shutil.copytree(exports(runs) / "native", source)
    config = write_config(tmp_path, tiny_bert, cola_folder)
    options = ("--model.init_from", str(source))
    assert run("fit", config, tmp_path, *options, "--trainer.max_epochs", "1") == 0
    shutil.rmtree(source)  # so that reading it again would fail
    assert run("fit", config, tmp_path, *options, "--trainer.max_epochs", "2", "--ckpt_path", "last") == 0


@pytest.mark.slow
def test_full_fine_tuning_is_exported_merged_or_not_at_all(tmp_path, tiny_bert, cola_folder, capsys):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", config, tmp_path, "--trainer.max_epochs", "1", "--model.adapter=null") == 0
    assert cli.main(["export", str(tmp_path / "tiny"), "--format", "merged"]) == 0
    for kind in ("peft", "native"):
        assert cli.main(["export", str(tmp_path / "tiny"), "--format", kind]) == 2
        assert f"--format is {kind}, but the run has no adapter" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "tiny" / "exports").iterdir()] == ["merged"]


@pytest.mark.slow
def test_soft_ranks_are_exported_only_when_told_to(tmp_path, tiny_bert, cola_folder, capsys):
    config = write_config(tmp_path, tiny_bert, cola_folder)
    assert run("fit", config, tmp_path, "--rank_discretisation.epochs_rank_discrete=0", "--trainer.max_epochs=1") == 0
    folder = tmp_path / "tiny"
    ranks = list(json.loads((folder / "ranks.json").read_text())["layers"].values())
    (folder / "results.json").unlink()  # as a run that was stopped
    arguments = ["export", str(folder), "--format", "native", "--ckpt_path", "last"]
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert "still soft" in message and ", ".join(map(str, ranks)) in message and "--force" in message
    assert nothing_was_written(folder)
    assert cli.main([*arguments, "--force"]) == 0
    blocks = NativeAdapter.read(folder / "exports" / "native").blocks
    assert sorted(len(block) for block in blocks.values()) == sorted(ranks)


def test_an_existing_folder_is_not_overwritten(runs, capsys):
    before = (exports(runs) / "native" / FILE_NAME).read_bytes()
    assert cli.main(["export", str(runs / "tiny"), "--format", "native"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (exports(runs) / "native" / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--format", "onnx"], ["onnx", "peft", "merged", "native"]),
        (["--format", "native", "--ckpt_path", "no.ckpt"], ["no.ckpt"]),
        (["--format", "peft", "--dtype", "bfloat16"], ["--format merged"]),
        (["--format", "native", "--bogus", "1"], ["--bogus"]),
        (["--format", "merged", "--with_factors"], ["--format native"]),
        (["--format", "merged", "--max_shard_size", "0GB"], ["'0GB'", "5GB"]),
        (["--format", "native", "--tolerance", "nan"], ["--tolerance is nan"]),
    ],
)
def test_bad_input_gets_one_message_and_exit_code_2(runs, tmp_path, capsys, options, expected):
    folder = copy_of_run(runs, tmp_path)
    assert cli.main(["export", str(folder), *options]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and all(part in message for part in expected), message
    assert nothing_was_written(folder)


def test_files_that_say_something_else_are_not_kept(runs, tmp_path, monkeypatch, capsys):
    write = NativeAdapter.write

    def damaged(self: NativeAdapter, folder: Path) -> None:
        name = next(name for name in self.tensors if name.endswith("value.R"))
        write(NativeAdapter(self.description, self.tensors | {name: self.tensors[name] + 10}), folder)

    monkeypatch.setattr(NativeAdapter, "write", damaged)
    folder = copy_of_run(runs, tmp_path)
    assert cli.main(["export", str(folder), "--format", "native"]) == 1
    message = capsys.readouterr().err
    assert re.search(r"^error: .* differ by at most \d.*; allowed: \d\.\de-05. Nothing was kept.*--tolerance", message)
    assert "Traceback" not in message and nothing_was_written(folder)


def test_a_merged_model_without_a_fitting_head_does_not_answer(runs, tmp_path, capsys):
    """transformers starts what is missing, or has another shape, at random."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "merged"
    shutil.copytree(exports(runs) / "merged", folder)
    (folder / CHECKSUMS_NAME).unlink()
    weights = load_file(folder / "model.safetensors")
    others = {name: weight for name, weight in weights.items() if name != "classifier.weight"}
    for name, content in (("lacking", others), ("other", others | {"classifier.weight": torch.zeros(3, 16)})):
        save_file(content, folder / "model.safetensors", {"format": "pt"})
        assert cli.main(["validate", "--export", str(folder)]) == 2, name
        assert "no weights that fit for classifier.weight" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changed_since_the_export_is_refused_wherever_it_is_used(
    runs, tmp_path, tiny_bert, cola_folder, capsys, kind
):
    folder = tmp_path / "copy"
    shutil.copytree(exports(runs) / kind, folder)
    listed = json.loads((folder / CHECKSUMS_NAME).read_text())
    free = {CHECKSUMS_NAME, "README.md", "config.yaml", "predictions.tsv"}
    assert set(listed) == {path.name for path in folder.iterdir()} - free
    for name in ("README.md", "config.yaml"):  # also where an earlier version noted its checksum
        (folder / name).write_text((folder / name).read_text() + "# mine\n")
    (folder / CHECKSUMS_NAME).write_text(json.dumps({**listed, "config.yaml": "0"}))
    assert cli.main(["validate", "--export", str(folder)]) == 0
    config = write_config(tmp_path, tiny_bert, cola_folder)
    start = "--model.backbone" if kind == "merged" else "--model.init_from"
    for name in listed:
        content = (folder / name).read_bytes()
        damaged = bytearray(content)
        damaged[len(damaged) // 2] ^= 1
        (folder / name).write_bytes(damaged)
        assert cli.main(["validate", "--export", str(folder)]) == 2
        assert f"{name} was changed" in capsys.readouterr().err
        (folder / name).write_bytes(content)
    (folder / name).unlink()
    assert cli.main(["validate", "--export", str(folder)]) == 2
    (folder / name).write_bytes(content)
    (folder / next(iter(listed))).write_bytes(b"{}")
    assert run("fit", config, tmp_path, start, str(folder)) == 2
    assert next(iter(listed)) in capsys.readouterr().err


def test_discrete_ranks_of_an_unfinished_run_need_no_force(runs, tmp_path):
    folder = copy_of_run(runs, tmp_path)
    (folder / "results.json").unlink()
    assert cli.main(["export", str(folder), "--format", "native", "--ckpt_path", "last"]) == 0
    assert "not known" in (folder / "exports" / "native" / "README.md").read_text()


def test_an_unknown_option_is_answered_with_the_verbs_own_help(finished_run, capsys):
    assert cli.main(["export", str(finished_run[1] / "tiny"), "--format", "peft", "--wrong_option"]) == 2
    told = capsys.readouterr().err
    assert "no option --wrong_option" in told and "`python cli.py export --help` lists export's options" in told
