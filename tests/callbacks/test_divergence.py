from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from callbacks.checkpoints import BestCheckpoint, LastCheckpoint, read_checkpoint
from callbacks.divergence import Divergence
from callbacks.merged_evaluation import MergedEvaluation
from callbacks.progress import TrainingLog
from callbacks.rank_discretisation import RankDiscretisation
from callbacks.training_record import TrainingRecord
from lora import AdaptiveLoRA, AdaptiveLoRAXS, LoRA, LoRAXS
from tests import tiny


class Spoil(Callback):
    """Puts a value into the loss, or into the gradient of a named parameter, at some steps."""

    def __init__(self, steps, value=float("nan"), parameter=None, row=0):
        self.steps, self.value, self.parameter, self.row = steps, value, parameter, row

    def on_after_backward(self, trainer, pl_module):
        if self.parameter is not None and trainer.global_step in self.steps:
            dict(pl_module.named_parameters())[self.parameter].grad[self.row] = self.value

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.parameter is None and trainer.global_step in self.steps:
            batch["weights"] = batch["weights"] * self.value


def noted_weights():
    """Notes the trained weights after each step."""

    def trained(module):
        return {name: value.detach().clone() for name, value in module.named_parameters() if value.requires_grad}

    return tiny.notes(trained, "on_train_batch_end")


def fit(tiny_bert, cola_folder, *callbacks, skip=0, adapter=None, epochs=2, **settings):
    torch.manual_seed(0)
    adapter = AdaptiveLoRAXS(1, 4, 2.5) if adapter is None else adapter
    weights, module = noted_weights(), tiny.make_module(tiny_bert, adapter, learning_rate=0.01)
    trainer = tiny.make_trainer(Divergence(skip), weights, *callbacks, max_epochs=epochs, **settings)
    trainer.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    return module.record, weights.seen, trainer


def same(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_callback_changes_nothing_while_all_is_finite(tiny_bert, cola_folder):
    _, watched, _ = fit(tiny_bert, cola_folder, adapter=LoRAXS(4))
    torch.manual_seed(0)
    module, weights = tiny.make_module(tiny_bert, LoRAXS(4), learning_rate=0.01), noted_weights()
    module.configure_callbacks = lambda: [MergedEvaluation()]
    tiny.make_trainer(weights, max_epochs=2).fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder))
    assert len(watched) == 10
    assert all(same(*pair) for pair in zip(watched, weights.seen, strict=True))


class InfinitePenalty(LoRAXS):
    """Its loss isn't finite, although its gradients are."""

    def regularisation(self):
        return torch.tensor(float("inf"))


VALUE = "bert.encoder.layer.0.attention.self.value"
QUERY = "adapter.A.bert/encoder/layer/0/attention/self/query"


@pytest.mark.parametrize(
    ("spoil", "adapter", "step", "said"),
    [
        *[
            (Spoil([3], value, "adapter.R", row=1), None, 3, f"the gradient of adapter.R of {VALUE} holds NaN")
            for value in (float("nan"), float("inf"), -float("inf"))
        ],
        # a matrix with as many rows as there are layers is told by its own name
        (Spoil([3], parameter=QUERY, row=5), LoRA(8, 8.0, targets="default"), 3, f"the gradient of {QUERY} holds NaN"),
        (Spoil([4]), None, 4, "the loss is nan, and with it the gradient of"),
        (Spoil([]), InfinitePenalty(4), 0, "the loss is nan, and with it the gradient of"),
    ],
)
def test_what_is_not_finite_is_named_by_its_step_and_the_run_stops(
    tiny_bert, cola_folder, capsys, spoil, adapter, step, said
):
    record, after, trainer = fit(tiny_bert, cola_folder, spoil, TrainingLog(1), adapter=adapter)
    assert (record.diverged_at, trainer.global_step, len(after)) == (step, step + 1, step + 1)
    assert step == 0 or same(after[step], after[step - 1])
    error = capsys.readouterr().err
    assert f"Step {step}: {said}" in error
    assert "diverged" in error and "last.ckpt" in error


class Late(Divergence):
    """Looks at the end of the epoch and before checkpoints only, as if the logging interval were long."""

    def __init__(self, skip=0):
        super().__init__(skip)
        self.looks = []

    def on_train_batch_end(self, *arguments):
        pass

    def look(self, trainer, record):
        self.looks.append(trainer.global_step)
        super().look(trainer, record)


def test_updates_are_left_out_by_setting_and_training_goes_on(tiny_bert, cola_folder, capsys):
    record, after, trainer = fit(tiny_bert, cola_folder, Spoil([2, 3, 6]), TrainingLog(1), skip=2, adapter=LoRAXS(4))
    assert trainer.global_step == len(after) == 10
    assert (record.diverged_at, record.skipped_updates) == (None, 3)
    assert same(after[3], after[1]) and same(after[6], after[5])
    assert not same(after[4], after[3]) and not same(after[7], after[6])
    assert len(record.train_losses) == 2 and all(loss == loss for loss in record.train_losses)
    assert "Step 6: the loss is nan" in (said := capsys.readouterr().err) and "(3 so far)" in said
    moments = trainer.optimizers[0].state.values()
    assert {float(state["step"]) for state in moments} == {7.0}


def test_too_many_left_out_in_a_row_stop_the_run(tiny_bert, cola_folder):
    record, after, trainer = fit(tiny_bert, cola_folder, Spoil([2, 3, 4, 5, 6]), skip=2)
    assert (record.diverged_at, trainer.global_step) == (4, 5)
    assert same(after[-1], after[1])


def test_one_micro_batch_spoils_its_step_only(tiny_bert, cola_folder):
    record, after, _ = fit(tiny_bert, cola_folder, Spoil([1]), skip=1, accumulate_grad_batches=2, epochs=1)
    assert record.skipped_updates == 1
    assert same(after[3], after[1])  # steps 0 and 1 are two micro-batches each
    assert not same(after[5], after[3])


def test_on_an_accelerator_weights_rest_until_the_host_looks(tiny_bert, cola_folder):
    torch.manual_seed(0)
    module, weights, late = tiny.make_module(tiny_bert, LoRAXS(4), learning_rate=0.01), noted_weights(), Late()
    tiny.fit(module, tiny.make_data(tiny_bert, cola_folder), late, weights, Spoil([2]), max_epochs=3)
    assert late.looks == [5]
    assert module.record.diverged_at == 2
    assert all(same(state, weights.seen[1]) for state in weights.seen[2:])


def test_checkpoints_are_those_from_before(tiny_bert, cola_folder, tmp_path):
    last, best = LastCheckpoint(tmp_path, 60.0), BestCheckpoint(tmp_path)
    best.setup = lambda trainer, pl_module, stage: setattr(best, "monitor", "val/loss")
    fit(tiny_bert, cola_folder, best, last, Spoil([7]), epochs=4)
    for name in ("last.ckpt", "best.ckpt"):
        assert read_checkpoint(tmp_path / name)["global_step"] == 5
    assert not (tmp_path / "previous.ckpt").exists()


def test_weights_that_overflow_are_never_written(tiny_bert, cola_folder, tmp_path, capsys):
    spoil = tiny.at("on_train_epoch_end", lambda _, module: module.adapter.R[0].fill_(float("inf")), current_epoch=1)
    torch.manual_seed(0)
    module = tiny.make_module(tiny_bert, LoRAXS(4))
    tiny.fit(module, tiny.make_data(tiny_bert, cola_folder), spoil, LastCheckpoint(tmp_path, 60.0), max_epochs=2)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 5
    assert "adapter.R" in capsys.readouterr().err


def test_counts_go_on_after_a_checkpoint(tiny_bert, cola_folder, tmp_path):
    _, _, trainer = fit(tiny_bert, cola_folder, Spoil([3, 4]), skip=3, epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    module = tiny.make_module(tiny_bert, AdaptiveLoRAXS(1, 4, 2.5))
    again = tiny.make_trainer(Divergence(3), Spoil([5, 6, 7, 8]), max_epochs=2)
    again.fit(module, datamodule=tiny.make_data(tiny_bert, cola_folder), ckpt_path=tmp_path / "one.ckpt")
    assert (module.record.skipped_updates, module.record.diverged_at) == (3, 6)  # the fourth in a row


def test_updates_left_out_since_the_last_look_are_in_the_checkpoint(tiny_bert, cola_folder, tmp_path):
    path = tmp_path / "three.ckpt"
    save = tiny.at("on_train_batch_end", lambda trainer, _: trainer.save_checkpoint(path), global_step=3)
    module = tiny.make_module(tiny_bert, LoRAXS(4))
    tiny.fit(module, tiny.make_data(tiny_bert, cola_folder), Late(2), Spoil([1]), save, limit_val_batches=0)
    assert TrainingRecord.of(read_checkpoint(path)).skipped_updates == 1


@pytest.mark.parametrize(("adapter", "rule"), [(AdaptiveLoRAXS, "softmax"), (AdaptiveLoRA, "bounded")])
@pytest.mark.parametrize("size", [1e6, 3e38])
def test_allocation_weights_that_blow_up_keep_ranks_and_budget(tiny_bert, cola_folder, adapter, rule, size):
    def blow_up(trainer, module):
        weights = module.rank_allocation.weights
        weights.copy_(torch.linspace(-1, 1, len(weights)) * size)

    made = adapter(1, 4, 2.5, allocation=rule, **({"lora_alpha": 8} if adapter is AdaptiveLoRA else {}))
    blown_up = tiny.at("on_train_batch_start", blow_up, global_step=2)
    record, _, trainer = fit(tiny_bert, cola_folder, blown_up, RankDiscretisation(1), adapter=made)
    allocation = made.rank_allocation
    ranks = allocation.discrete_ranks()
    assert (record.diverged_at, trainer.global_step) == (None, 10)
    assert int(ranks.min()) >= 1 and int(ranks.max()) <= 4
    assert float(allocation.area(ranks).sum()) <= allocation.budget + 1e-6


def test_double_precision_trains_in_64_bits(tiny_bert, cola_folder):
    _, after, _ = fit(tiny_bert, cola_folder, precision="64-true")
    assert {weight.dtype for weight in after[-1].values()} == {torch.float64}
    assert not torch.equal(after[0]["adapter.R"], after[-1]["adapter.R"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.filterwarnings("ignore")
def test_no_step_waits_for_the_accelerator():
    model = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(20)]).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    module = SimpleNamespace(
        adapter=None,
        device=torch.device("cuda"),
        named_parameters=model.named_parameters,
        record=TrainingRecord(),
        ends_step=lambda batch_idx: True,
    )
    trainer = SimpleNamespace(global_step=0, precision_plugin=None, log_every_n_steps=100, should_stop=False)
    callback = Divergence()
    callback.on_train_start(trainer, module)
    rows = torch.randn(8, 64, device="cuda")
    for step in range(10):
        loss = model(rows).square().mean() * (float("nan") if step == 7 else 1)
        torch.cuda.set_sync_debug_mode("error")
        try:
            callback.on_before_backward(trainer, module, loss)
            optimizer.zero_grad()
            loss.backward()
            callback.on_before_optimizer_step(trainer, module, optimizer)
            optimizer.step()
            trainer.global_step += 1
            callback.on_train_batch_end(trainer, module, None, None, step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        if step == 6:
            before = [weight.detach().clone() for weight in model.parameters()]
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    callback.look(trainer, module.record)
    assert (module.record.diverged_at, trainer.should_stop) == (7, True)
