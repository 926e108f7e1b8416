"""Predicting the next token."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from callbacks.trained_module import Batch
from common.errors import InputError
from lightning_modules.adapted_module import AdaptedModule
from lightning_modules.backbone_loading import first_answer, load_backbone
from lightning_modules.metrics import TokenLoss
from lightning_modules.prediction_tables import losses_table


class LanguageModellingModule(AdaptedModule):
    """Language modelling with any pretrained causal model, such as GPT-2's and Llama's families.

    Nothing is a head here: with an adapter the output layer stays frozen, tied to the input embeddings or not, and
    without one everything trains. Tied weights are one parameter: they count, and train, once.

    Args:
        backbone: hub name, folder, .gguf file, or package:NAME for a model carried by an installed package.
        *others: those of AdaptedModule after its backbone, in its order.
        **settings: the same, by name.
    """

    architecture = "AutoModelForCausalLM"
    needs_all_weights = True
    metric_name = "perplexity"
    figure_names = ("loss", "perplexity")
    higher_is_better = False

    def __init__(self, backbone: str = "distilgpt2", *others: Any, **settings: Any) -> None:
        super().__init__(backbone, *others, **settings)
        self.losses: Any = nn.ModuleDict()

    def load_model(self) -> tuple[nn.Module, tuple[str, ...]]:
        """Loads the causal model; `InputError`: the backbone has no trained output layer, or looks ahead."""
        from transformers import AutoModelForCausalLM

        model, _ = load_backbone(AutoModelForCausalLM, self.backbone_name, self.revision, whole=True)
        self.storage.round(model, ())
        check_causal(model, self.backbone_name)
        return model, ()

    def make_metrics(self) -> None:
        for split in (*self.data.validation_names, *self.data.test_names):
            self.losses[split] = TokenLoss()

    def check_model(self, model: PreTrainedModel) -> None:
        """See AdaptedModule; and the model has to see a whole block at once."""
        super().check_model(model)
        longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if longest is not None and self.data.block_size > longest:
            raise InputError(
                f"block_size is {self.data.block_size}, but {self.backbone_name} sees at most {longest} tokens. Set "
                "--data.block_size."
            )

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits (rows, length, vocabulary); those at a position are for the token after it."""
        return self.model(**inputs, use_cache=False).logits

    def row_losses(self, batch: Batch, summed: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Sum of the losses of each row's scored tokens (rows,), in nats, float32.

        `summed` is the sum for one row, from logits (length, vocabulary) and labels (length,).
        """
        rows = zip(self(batch["inputs"]).unbind(0), batch["labels"].unbind(0), strict=True)
        # Row by row: with lower precision, only one row's logits at a time are float32.
        return torch.stack([summed(logits[:-1].float(), labels[1:]) for logits, labels in rows])

    def batch_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return (self.row_losses(batch, _fast_sum) * batch["weights"]).sum(), batch["scored"].sum()

    def evaluate_batch(self, batch: Batch, split: str) -> None:
        self.losses[split].update(self.row_losses(batch, _accurate_sum) * batch["weights"], batch["scored"])

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        tokens = (batch["labels"] >= 0).sum(dim=1)
        scores = torch.stack([self.row_losses(batch, _accurate_sum), tokens.float()], dim=1)
        return {"row": batch["row"], "scores": scores}  # (rows,), (rows, 2): loss and scored tokens

    def prediction_table(self, scores: dict[int, list[float]]) -> str:
        lines, windows = self.data.predict_examples().texts, self.data.predict_windows
        return losses_table(lines, windows.text.tolist(), scores)

    def split_figures(self, split: str) -> dict[str, Tensor]:
        loss = self.losses[split].compute()
        self.losses[split].reset()
        return {"loss": loss, "perplexity": loss.exp()}


# For training: one pass forward, one back.
_fast_sum = partial(functional.cross_entropy, reduction="sum")


def _accurate_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Σ −log p(label) over the positions that are scored, for figures; from logits (length, vocabulary).

    Torch's cross entropy adds exp(logit) over the vocabulary one after the other on the CPU: beside a word that is
    nearly certain, 50,000 unlikely ones get lost in float32. `logsumexp` adds in a tree. Labels (length,) are negative
    where nothing is scored.
    """
    chosen = logits.gather(1, labels.clamp_min(0)[:, None]).squeeze(1)  # (length,)
    return torch.where(labels >= 0, logits.logsumexp(dim=1) - chosen, 0.0).sum()


@torch.no_grad()
def check_causal(model: PreTrainedModel, name: str) -> None:
    """Raises InputError if what a model answers at a token depends on the tokens after it.

    Such a model (BERT, say) sees the word it should predict: its perplexity would mean nothing.
    """
    training = model.training
    model.eval()
    # in pairs that differ at their end; two of them, because one may hold what the model takes for padding
    rows = torch.tensor([[*range(first, first + 4), last] for first in (1, 21) for last in (30, 31)])
    logits = first_answer(model, input_ids=rows % model.config.get_text_config().vocab_size, use_cache=False)[:, :-1]
    model.train(training)
    if (logits[::2] - logits[1::2]).abs().max() > 1e-4 * logits.abs().max():
        raise InputError(
            f"backbone {name!r} is not a causal language model: what it answers depends on the tokens to come. "
            "Allowed: models that predict the next token, such as distilgpt2 or SmolLM2."
        )
