"""A damaged last.ckpt is recognised before training begins, and costs no more than it must."""

import errno
import io
import json
import os
import shutil

import pytest
import torch

from callbacks import checkpoints
from callbacks.checkpoints import read_checkpoint
from common.errors import InputError
from experiments.config_files import read_yaml
from experiments.error_causes import input_error_behind
from experiments.resumption import check_best
from experiments.typed_json import read_json
from tests.command_line import CrashError, crash_at, differences, outcome, run


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory, finished_run):
    """A run that crashed at step 8 of 15 with a checkpoint after each step, and what it would have come to."""
    runs_dir = tmp_path_factory.mktemp("broken_off")
    with pytest.raises(CrashError):
        run("fit", finished_run[0], runs_dir, *crash_at(8))
    return finished_run[0], runs_dir, outcome(finished_run[1] / "tiny")


@pytest.fixture
def copy(broken_off, tmp_path):
    config, runs_dir, expected = broken_off
    shutil.copytree(runs_dir / "tiny", tmp_path / "tiny")
    return config, tmp_path, expected


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def edit(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def of_another_version(path):
    edit(path, lambda content: content["rankwise"].update(format=99))


def without_loops(path):
    edit(path, lambda content: content.pop("loops"))


def with_other_moments(path):
    edit(path, lambda content: content["optimizer_states"][0]["state"][0].update(exp_avg=torch.zeros(3)))


DAMAGES = [cut_short, flip_a_byte, empty, of_another_version, without_loops, with_other_moments]


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES[1::2])  # the others are recognised in the same way: see below
def test_the_run_goes_on_from_the_one_before_and_ends_as_if_nothing_had_happened(copy, capsys, damage):
    config, runs_dir, expected = copy
    damage(runs_dir / "tiny" / "checkpoints" / "last.ckpt")
    assert run("fit", config, runs_dir, "--ckpt_path", "last") == 0
    said = capsys.readouterr()
    assert "Going on from the newest whole checkpoint instead, previous.ckpt" in said.err
    assert "step 7" in said.out
    assert differences(expected, outcome(runs_dir / "tiny")) == []


@pytest.mark.slow
def test_best_does_when_both_are_damaged(copy, capsys):
    config, runs_dir, expected = copy
    empty(runs_dir / "tiny" / "checkpoints" / "last.ckpt")
    cut_short(runs_dir / "tiny" / "checkpoints" / "previous.ckpt")
    assert run("fit", config, runs_dir, "--ckpt_path", "last") == 0
    assert "instead, best.ckpt" in capsys.readouterr().err
    assert differences(expected, outcome(runs_dir / "tiny")) == []


@pytest.mark.parametrize("damage", DAMAGES[::2])
def test_nothing_whole_is_one_message_before_training_begins(copy, capsys, damage):
    config, runs_dir, _ = copy
    metrics = (runs_dir / "tiny" / "metrics.csv").read_bytes()
    for path in (runs_dir / "tiny" / "checkpoints").iterdir():
        damage(path)
    assert run("fit", config, runs_dir, "--ckpt_path", "last") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "last.ckpt" in said and "start again with --overwrite" in said
    assert (runs_dir / "tiny" / "metrics.csv").read_bytes() == metrics


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data.validation_rows", "10"], "the validation split has other rows"),
        (["--data.metric", "accuracy"], "metric was 'matthews_correlation'"),
        (["--trainer.limit_val_batches", "0.5"], "limit_val_batches was 1.0"),
        (["--data.batching", "random"], "batching was 'length_grouped'"),
        (["--seed_everything", "7"], "seed was 1 "),
        (["--data.subset_seed", "7"], "in the middle of an epoch"),
    ],
)
def test_another_config_is_refused_before_training_begins(copy, capsys, options, expected):
    config, runs_dir, _ = copy
    assert run("fit", config, runs_dir, "--ckpt_path", "last", *options) == 2
    assert expected in capsys.readouterr().err
    last = torch.load(runs_dir / "tiny" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 8


@pytest.mark.slow
def test_a_damaged_best_is_noticed_before_training_not_after_it(copy, capsys):
    config, runs_dir, _ = copy
    best = runs_dir / "tiny" / "checkpoints" / "best.ckpt"
    flip_a_byte(best)
    assert run("fit", config, runs_dir, "--ckpt_path", "last") == 2
    assert "Delete it to go on from last.ckpt" in capsys.readouterr().err
    best.unlink()
    assert run("fit", config, runs_dir, "--ckpt_path", "last") == 0
    assert "best.ckpt is gone" in capsys.readouterr().err
    assert json.loads((runs_dir / "tiny" / "results.json").read_text())["test"]["loss"] > 0


@pytest.mark.parametrize("read", [read_checkpoint, lambda path: check_best(path, "last.ckpt"), read_json, read_yaml])
def test_what_may_not_be_read_is_never_called_damaged(tmp_path, monkeypatch, read):
    (tmp_path / "file").touch()

    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(io, "open", refuse)
    with pytest.raises(InputError, match=rf"^no access to {tmp_path}/file: Permission denied. What it holds may be"):
        read(tmp_path / "file")


def test_a_last_checkpoint_that_may_not_be_read_is_no_reason_for_an_older_one(copy, capsys, monkeypatch):
    config, runs_dir, _ = copy
    last, check = runs_dir / "tiny" / "checkpoints" / "last.ckpt", checkpoints.check_archive

    def refuse(path):
        if path == last:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        check(path)

    monkeypatch.setattr(checkpoints, "check_archive", refuse)
    assert run("fit", config, runs_dir, "--ckpt_path", "last") == 2
    assert f"no access to {last}: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_evaluation_never_takes_another_checkpoint_than_the_one_asked_for(copy, capsys, verb):
    config, runs_dir, _ = copy
    flip_a_byte(runs_dir / "tiny" / "checkpoints" / "last.ckpt")
    assert run(verb, config, runs_dir, "--ckpt_path", "last") == 2
    assert "last.ckpt can't be read: it is damaged" in capsys.readouterr().err


def fail_to_sync(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_half(content, file):
    file.write(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "fail"), [("common.files.os.fsync", fail_to_sync), ("callbacks.checkpoints.torch.save", write_half)]
)
def test_a_full_disk_stops_the_run_and_costs_nothing(copy, capsys, monkeypatch, place, fail):
    config, runs_dir, expected = copy
    checkpoints = runs_dir / "tiny" / "checkpoints"
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(place, fail)
        assert run("fit", config, runs_dir, "--ckpt_path", "last") == 2
    assert "no space left to write" in capsys.readouterr().err
    assert {name: (checkpoints / name).read_bytes() for name in ("best.ckpt", "last.ckpt")}.items() <= before.items()
    assert not list(runs_dir.rglob("*.partial"))
    assert run("fit", config, runs_dir, "--ckpt_path", "last") == 0
    assert differences(expected, outcome(runs_dir / "tiny")) == []


def test_an_error_that_is_its_own_context_is_no_endless_chain():
    full, other = OSError(errno.ENOSPC, "No space left on device", "events"), RuntimeError("while writing")
    full.__context__, other.__context__ = other, full
    assert "no space left to write events" in str(input_error_behind(other))
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__context__, second.__context__ = second, first
    assert input_error_behind(first) is None
    assert input_error_behind(OSError(errno.ENOENT, "No such file", "x")) is None
