import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.checkpoints import BestCheckpoint, LastCheckpoint, WholeFileCheckpoints, keep_as, read_checkpoint
from common.errors import InputError
from lora import LoRAXS
from tests import tiny


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.ckpt"
    content = {"state_dict": {"R": torch.arange(4096.0)}, "epoch": 3, "nested": {"list": [1, 2.5, None, "x"]}}
    WholeFileCheckpoints().save_checkpoint(content, path)
    return path


def test_any_flipped_byte_is_refused_or_harmless(tmp_path):
    path = tmp_path / "small.ckpt"
    WholeFileCheckpoints().save_checkpoint({"state_dict": {"R": torch.arange(16.0)}, "epoch": 3}, path)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        try:
            found = read_checkpoint(path)
        except InputError:
            refused += 1
            continue
        assert torch.equal(found["state_dict"]["R"], torch.arange(16.0))
        assert found["epoch"] == 3
    assert refused > 100


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("state_dict", lambda content: content["state_dict"].update(R=torch.zeros(64, 64))),
        ("state_dict", lambda content: content["state_dict"].update(R=[0.0] * 4096)),
        ("state_dict", lambda content: content["state_dict"].clear()),
        ("epoch", lambda content: content.update(epoch=None)),
        ("epoch", lambda content: content.pop("epoch")),
        ("nested", lambda content: content["nested"]["list"].pop()),
        ("nested", lambda content: content.update(nested={})),
        ("other", lambda content: content.update(other=1)),
    ],
)
def test_a_part_that_is_not_as_it_was_written_is_refused(good, part, change):
    content = torch.load(good, weights_only=True)
    change(content)
    torch.save(content, good)
    with pytest.raises(InputError, match=f"isn't as it was written: {part}"):
        read_checkpoint(good)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, torch.zeros(2)])
def test_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="is no checkpoint of this project"):
        read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"there is no checkpoint .*none.ckpt"):
        read_checkpoint(tmp_path / "none.ckpt")


def fit(backbone, cola, folder, *callbacks, every=0.0, steps=None, **settings):
    """A run that writes last.ckpt as often as it may, unless told otherwise; returns at which steps it was written."""
    written = []

    class Recorded(LastCheckpoint):
        def _save(self, trainer, pl_module):
            super()._save(trainer, pl_module)
            written.append((trainer.global_step, read_checkpoint(self.path)["global_step"]))

    torch.manual_seed(0)
    module = tiny.make_module(backbone, LoRAXS(4))
    tiny.fit(module, tiny.make_data(backbone, cola), *callbacks, Recorded(folder, every, steps), **settings)
    return written


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_epochs": 2}, range(1, 11)),  # between all steps and after each epoch
        ({"max_epochs": 2, "every": 60.0}, [5, 10]),  # a long interval: per epoch only
        ({"max_epochs": 2, "every": 60.0, "steps": 3}, [3, 5, 6, 9, 10]),
        # never just before a validation, which a resumed run would skip
        ({"limit_train_batches": 4, "val_check_interval": 2}, [1, 3, 4]),
    ],
)
def test_when_last_is_written(tiny_bert, cola_folder, tmp_path, settings, steps):
    assert fit(tiny_bert, cola_folder, tmp_path, **settings) == [(step, step) for step in steps]
    if len(steps) > 1:
        assert read_checkpoint(tmp_path / "previous.ckpt")["global_step"] == steps[-2]


def test_last_is_never_written_while_gradients_accumulate(tiny_bert, cola_folder, tmp_path):
    # 40 rows in batches of 8, each in 4 parts: 20 micro-batches, 5 steps
    parts = []

    class DueInTheMiddle(Callback):
        """The interval passes after 6 micro-batches."""

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            for callback in trainer.callbacks:
                if isinstance(callback, LastCheckpoint):
                    callback.every_n_minutes = 0.0 if batch_idx == 5 else 60.0 if parts else callback.every_n_minutes

        def on_save_checkpoint(self, trainer, pl_module, checkpoint):
            parts.append(trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    written = fit(tiny_bert, cola_folder, tmp_path, DueInTheMiddle(), every=60.0, accumulate_grad_batches=4)
    assert parts == [8, 20]
    assert written == [(2, 2), (5, 5)]


@pytest.mark.parametrize(
    ("batches", "accumulate", "error", "step"),
    [
        (3, 1, SIGTERMException, 3),
        (8, 4, SIGTERMException, 2),
        (7, 4, SIGTERMException, None),  # in the middle of accumulation
        (3, 1, RuntimeError, None),
    ],
)
def test_a_run_told_to_stop_writes_last_if_its_state_is_whole(
    tiny_bert, cola_folder, tmp_path, batches, accumulate, error, step
):
    def stop(trainer, module):
        if trainer.fit_loop.batch_idx + 1 == batches:
            raise error

    stopping = tiny.at("on_train_batch_end", stop)
    with pytest.raises((error, SystemExit)):
        fit(tiny_bert, cola_folder, tmp_path, stopping, every=60.0, accumulate_grad_batches=accumulate)
    path = tmp_path / "last.ckpt"
    assert (read_checkpoint(path)["global_step"] if path.exists() else None) == step


def test_best_is_the_epoch_with_the_best_figure_and_the_first_of_equals(tiny_bert, cola_folder, tmp_path):
    figures = [0.1, 0.5, 0.5, 0.2]

    def give(trainer, module):
        figure = torch.tensor(figures[trainer.current_epoch])
        module.metrics["val"]["matthews_correlation"].compute = lambda: figure

    module = tiny.make_module(tiny_bert, LoRAXS(4))
    best = BestCheckpoint(tmp_path)
    settings = {"max_epochs": 4, "enable_checkpointing": True, "num_sanity_val_steps": 1}
    giving = tiny.at("on_validation_epoch_end", give)
    tiny.fit(module, tiny.make_data(tiny_bert, cola_folder), giving, best, **settings)
    assert best.monitor == "val/matthews_correlation"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt"]
    assert read_checkpoint(tmp_path / "best.ckpt")["epoch"] == 1
    assert float(best.best_model_score) == 0.5


def test_a_second_name_always_stands_for_a_whole_file(tmp_path):
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    keep_as(last, previous)
    assert not previous.exists()
    for content in ("one", "two"):
        last.unlink(missing_ok=True)
        last.write_text(content)
        for _ in range(2):  # a kill may have left both names on one file
            keep_as(last, previous)
            assert previous.read_text() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_without_links_the_file_is_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("callbacks.checkpoints.os.link", refuse)
    (tmp_path / "last.ckpt").write_text("one")
    keep_as(tmp_path / "last.ckpt", tmp_path / "previous.ckpt")
    assert (tmp_path / "previous.ckpt").read_text() == "one"
    assert not (tmp_path / "last.ckpt").samefile(tmp_path / "previous.ckpt")


def test_a_moved_run_folder_keeps_its_best_score(tmp_path, capsys):
    (tmp_path / "old").mkdir()
    best = BestCheckpoint(tmp_path / "old")
    path = str(tmp_path / "old" / "best.ckpt")
    best.best_model_path = best.kth_best_model_path = path
    best.best_model_score = best.kth_value = torch.tensor(0.5)
    best.best_k_models = {path: torch.tensor(0.5)}
    (tmp_path / "old" / "best.ckpt").touch()
    (tmp_path / "old").rename(tmp_path / "new")
    again = BestCheckpoint(tmp_path / "new")
    again.load_state_dict(best.state_dict())
    assert float(again.best_model_score) == float(again.kth_value) == 0.5
    assert again.best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert list(again.best_k_models) == [again.best_model_path]
    (tmp_path / "new" / "best.ckpt").unlink()
    forgotten = BestCheckpoint(tmp_path / "new")
    forgotten.load_state_dict(best.state_dict())
    assert forgotten.best_model_score is None
    assert "best.ckpt is gone" in capsys.readouterr().err
