"""Whole runs of tiny models."""

import math

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from sklearn.metrics import accuracy_score, matthews_corrcoef

from callbacks.rank_discretisation import RankDiscretisation
from common.errors import InputError
from datamodules import QuickstartDataModule
from lora import AdaptiveLoRAXS, LoRAXS
from tests import tiny

RATES = {"learning_rate": 1e-2, "allocation_learning_rate": 2e-2}


def adaptive():
    return AdaptiveLoRAXS(1, 4, 2.5, allocation="bounded")


def fit(module, data, *callbacks, **settings):
    torch.manual_seed(0)
    return tiny.fit(module, data, *callbacks, **settings)


@pytest.mark.parametrize("adapter", [adaptive, lambda: LoRAXS(4), lambda: None], ids=["adaptive", "fixed", "full"])
def test_dropout_is_on_in_every_training_step_and_off_in_evaluation(tiny_bert, cola_folder, adapter):
    def dropouts(module):
        return [part.training for part in module.model.modules() if isinstance(part, torch.nn.Dropout)]

    stepping = tiny.notes(dropouts, "on_before_optimizer_step")
    evaluating = tiny.notes(lambda module: any(part.training for part in module.model.modules()),
                            "on_validation_batch_start")  # fmt: skip
    module = tiny.make_module(tiny_bert, adapter(), **RATES)
    fit(module, tiny.make_data(tiny_bert, cola_folder), stepping, evaluating, max_epochs=2)
    assert len(stepping.seen) == 10
    assert all(len(step) >= 7 and all(step) for step in stepping.seen)
    assert evaluating.seen == [False, False]


@pytest.mark.parametrize("adapter", [adaptive, lambda: LoRAXS(4)], ids=["adaptive", "fixed"])
def test_what_is_frozen_stays_and_what_trains_moves(tiny_bert, cola_folder, adapter):
    module, data = tiny.make_module(tiny_bert, adapter(), **RATES), tiny.make_data(tiny_bert, cola_folder)

    def state(module):
        layers = [part for part in module.modules() if type(part).__name__ == "LoRAXSLinear"]
        factors = {f"{place}.{name}": getattr(layer, name) for place, layer in enumerate(layers) for name in "AB"}
        return {name: tensor.detach().clone() for name, tensor in (*module.named_parameters(), *factors.items())}

    start = tiny.notes(state, "on_train_start")
    fit(module, data, start, max_epochs=2)
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    before, after = start.seen[0], state(module)
    assert {name for name in after if not torch.equal(after[name], before[name])} == trained
    assert {f"{place}.{name}" for place in range(8) for name in "AB"} < set(after)


def test_mixed_bfloat16_keeps_parameters_gradients_and_moments_in_float32(tiny_bert, cola_folder):
    def dtypes(module):
        return {t.dtype for p in module.parameters() if p.requires_grad for t in (p, p.grad)}

    seen = tiny.notes(dtypes, "on_before_optimizer_step")
    activations = []
    module = tiny.make_module(tiny_bert, adaptive(), **RATES)
    data = tiny.make_data(tiny_bert, cola_folder)

    def watch(module):
        query = module.model.bert.encoder.layer[0].attention.self.query
        query.register_forward_hook(lambda layer, x, y: activations.append(y.dtype))

    trainer = fit(module, data, seen, tiny.notes(watch, "on_train_start"), precision="bf16-mixed")
    assert seen.seen == [{torch.float32}] * 5
    assert set(activations) == {torch.bfloat16}
    moments = {
        value.dtype for state in trainer.optimizers[0].state.values() for value in state.values() if value.ndim > 0
    }
    assert moments == {torch.float32}
    assert module.adapter.R.abs().max() > 1e-4


@pytest.mark.parametrize("algorithm", ["norm", "value"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_gradients_are_clipped_in_every_precision(tiny_bert, cola_folder, precision, algorithm):
    most = 1e-4

    def largest(module):
        gradients = [p.grad.flatten() for p in module.parameters() if p.requires_grad]
        return float(torch.cat(gradients).norm(p=2 if algorithm == "norm" else float("inf")))

    seen = tiny.notes(largest, "on_train_batch_end")
    # Lightning has a scaler on accelerators only; torch has one for the CPU
    scaled = {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))]}
    chosen = scaled if precision == "16-mixed" else {"precision": precision}
    module, data = tiny.make_module(tiny_bert, adaptive(), **RATES), tiny.make_data(tiny_bert, cola_folder)
    clipping = {"gradient_clip_val": most, "gradient_clip_algorithm": algorithm}
    fit(module, data, seen, RankDiscretisation(0), **clipping, **chosen)
    assert seen.seen == pytest.approx([most] * 5, rel=1e-2)  # without clipping they are a thousand times as large
    assert module.adapter.R.abs().max() > 1e-4


def test_validation_figures_are_those_of_the_models_own_predictions(tiny_bert, cola_folder):
    module, data = tiny.make_module(tiny_bert, adaptive(), **RATES), tiny.make_data(tiny_bert, cola_folder)
    data.evaluation_batch_size = 5  # 12 rows: uneven batches
    trainer = fit(module, data, max_epochs=2)
    (figures,) = trainer.validate(module, datamodule=data, verbose=False)
    outputs = trainer.predict(module, [data.val_dataloader()[0]])
    scores = {int(row): score for part in outputs for row, score in zip(part["row"], part["scores"])}
    truth = dict(enumerate(label for _, label in tiny.sentences(12, 1)))
    labels = [truth[row] for row in scores]
    answers = [int(score.argmax()) for score in scores.values()]
    loss = -sum(math.log(score[label]) for score, label in zip(scores.values(), labels)) / len(labels)
    assert math.isclose(figures["val/loss"], loss, rel_tol=1e-5)
    assert math.isclose(figures["val/accuracy"], accuracy_score(labels, answers), abs_tol=1e-6)
    assert math.isclose(figures["val/matthews_correlation"], matthews_corrcoef(labels, answers), abs_tol=1e-6)


def test_a_regression_task_on_pairs_is_scored_by_its_correlations(tiny_bert, tmp_path):
    folder = tiny.save_pairs(tmp_path / "stsb", ("sentence1", "sentence2"), lambda row: row % 6 * 0.9)
    module, data = tiny.make_module(tiny_bert, adaptive(), **RATES), tiny.make_data(tiny_bert, str(folder), "stsb")
    trainer = fit(module, data, max_epochs=2)
    assert module.model.classifier.out_features == 1
    (figures,) = trainer.validate(module, datamodule=data, verbose=False)
    outputs = trainer.predict(module, [data.val_dataloader()[0]])
    scores = {int(row): float(score) for part in outputs for row, score in zip(part["row"], part["scores"])}
    expected = torch.tensor([[scores[row] for row in range(10)], [row % 6 * 0.9 for row in range(10)]])
    assert math.isclose(figures["val/pearson"], float(torch.corrcoef(expected)[0, 1]), abs_tol=1e-4)
    squared = float((expected[0] - expected[1]).square().mean())
    assert math.isclose(figures["val/loss"], squared, rel_tol=1e-4)


def test_a_run_without_end_is_refused(tiny_bert, cola_folder):
    with pytest.raises(InputError, match="max_epochs is -1"):
        fit(tiny.make_module(tiny_bert, adaptive()), tiny.make_data(tiny_bert, cola_folder), max_epochs=-1)


def test_accuracy_by_tag_is_that_of_one_test_however_many_there_were(tiny_bert):
    module = tiny.make_module(tiny_bert, adaptive())
    data = QuickstartDataModule(backbone=tiny_bert, max_length=32, evaluation_batch_size=8)
    trainer = tiny.make_trainer(limit_test_batches=2)
    for _ in range(2):  # as nested training does, rank by rank
        trainer.test(module, datamodule=data, verbose=False)
        assert float(module.accuracy_by_tag.rows.sum()) == 16


def test_a_validation_loss_that_is_no_number_is_not_the_best_possible(tiny_bert, cola_folder):
    module, data = tiny.make_module(tiny_bert, LoRAXS(4)), tiny.make_data(tiny_bert, cola_folder)
    tiny.fit(module, data, limit_train_batches=1, limit_val_batches=0)
    with torch.no_grad():
        module.model.classifier.bias.fill_(torch.nan)
    (figures,) = tiny.make_trainer().validate(module, datamodule=data, verbose=False)
    assert math.isnan(figures["val/loss"])
    assert figures["val/matthews_correlation"] == 0
