"""Ranks drawn per step, and the curve over ranks after training."""

from collections import Counter

import pytest
import torch
from lightning.pytorch import Callback

from callbacks.nested_evaluation import EveryRankEvaluation
from callbacks.nested_ranks import rank_at, rank_curve
from callbacks.update_norms import UpdateNorms
from lora import LoRA, LoRAXS, NestedLoRA, NestedLoRAXS
from tests import tiny


def test_ranks_are_a_pure_function_of_seed_and_step():
    drawn = [rank_at(step, 7, 2, 9) for step in range(4000)]
    assert drawn == [rank_at(step, 7, 2, 9) for step in range(4000)]
    assert drawn != [rank_at(step, 8, 2, 9) for step in range(4000)]
    counts = Counter(drawn)
    assert set(counts) == set(range(2, 10))
    assert all(400 < count < 600 for count in counts.values())  # 500 expected, standard deviation 21


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_step_trains_at_its_rank_and_all_else_sees_the_whole_adapter(tiny_bert, cola_folder, accumulate):
    training = tiny.notes(lambda module: module.adapter.active_rank, "on_before_backward")
    others = tiny.notes(lambda module: module.adapter.active_rank, "on_train_batch_end", "on_validation_batch_start")
    module = tiny.make_module(tiny_bert, NestedLoRA(1, 6, lora_alpha=8.0), learning_rate=1e-2)
    trainer = tiny.make_trainer(training, others, max_epochs=2, accumulate_grad_batches=accumulate)
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder, seed=3))
    assert training.seen == [rank_at(step, 3, 1, 6) for step in range(10) for _ in range(accumulate)]
    assert len(others.seen) == 10 * accumulate + 2 and set(others.seen) == {6}
    assert module.adapter.active_rank == 6


@pytest.mark.parametrize(
    ("make", "cut"),
    [
        (lambda: NestedLoRA(1, 4, [1, 3, 4], lora_alpha=8.0), lambda rank: LoRA(rank, 8.0)),
        (lambda: NestedLoRAXS(1, 4, [1, 3, 4], initial_std=0.5), LoRAXS),
    ],
    ids=["lora", "lora_xs"],
)
def test_each_point_of_the_curve_is_the_figure_of_a_run_cut_to_that_rank(tiny_bert, cola_folder, make, cut):
    torch.manual_seed(0)
    seen = UpdateNorms()
    module, data = tiny.make_module(tiny_bert, make(), learning_rate=0.05), tiny.make_data(tiny_bert, cola_folder)
    trainer = tiny.fit(module, data, seen, max_epochs=2)
    curve = rank_curve(trainer, module)
    assert [entry["rank"] for entry in curve] == [1, 3, 4]
    assert trainer.callbacks[0] is seen
    for entry in curve:
        fixed = tiny.make_module(tiny_bert, cut(entry["rank"]))
        figures = cut_figures(module, fixed, entry["rank"], data)
        assert set(entry) == {"rank", *figures}
        assert {"val/loss", "test/loss", "val/matthews_correlation"} <= set(entry)
        for name, value in figures.items():
            assert entry[name] == pytest.approx(value, abs=1e-4)
    assert len({round(entry["val/loss"], 5) for entry in curve}) == 3


def cut_figures(nested, fixed, rank, data):
    """Validation and test figures of a fixed-rank module with the leading part of the nested one's weights."""

    class Copy(Callback):
        def setup(self, trainer, pl_module, stage):
            pl_module.configure_model()
            state = pl_module.state_dict()
            for key, value in nested.state_dict().items():
                if key in state and isinstance(value, torch.Tensor):
                    state[key].copy_(value[tuple(slice(size) for size in state[key].shape)])

    figures = {}
    for evaluate in ("validate", "test"):
        trainer = tiny.make_trainer(Copy())
        trainer.datamodule = data
        figures |= getattr(trainer, evaluate)(fixed, datamodule=data, verbose=False)[0]
    return figures


def test_every_validation_may_evaluate_every_rank(tiny_bert, cola_folder):
    torch.manual_seed(0)
    figures = tiny.notes(lambda module: module.validation_figures(), "on_train_epoch_end")
    adapter = NestedLoRAXS(1, 4, [1, 3, 4], initial_std=0.5)
    module, data = tiny.make_module(tiny_bert, adapter, learning_rate=0.05), tiny.make_data(tiny_bert, cola_folder)
    trainer = tiny.fit(module, data, EveryRankEvaluation(), figures, max_epochs=2)
    first, last = figures.seen
    assert first["val/loss/rank_1"] != last["val/loss/rank_1"]
    curve = rank_curve(trainer, module)  # of the weights that the last epoch was validated with
    for entry in curve:
        for name in ("val/loss", "val/matthews_correlation"):
            assert last[f"{name}/rank_{entry['rank']}"] == pytest.approx(entry[name], abs=1e-6)
    for name in ("val/loss", "val/matthews_correlation"):  # the run's own figures are those of rank_max
        assert last[name] == pytest.approx(last[f"{name}/rank_4"], abs=1e-6)
    assert len({last[f"val/loss/rank_{rank}"] for rank in (1, 3, 4)}) == 3
