"""Classifying or scoring sentences and sentence pairs."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MaxMetric, MeanMetric, MinMetric
from transformers import PreTrainedModel

from callbacks.trained_module import Batch
from common.terminal import logger
from lightning_modules.adapted_module import AdaptedModule
from lightning_modules.backbone_loading import load_backbone
from lightning_modules.first_token import use_first_token_only
from lightning_modules.metrics import AccuracyByTag, make_metric
from lightning_modules.padding import check_mask, harmless_padding_side
from lightning_modules.prediction_tables import answers_table


class TextClassificationModule(AdaptedModule):
    """Text classification or regression with a pretrained encoder (or decoder) and a classification head.

    Args:
        backbone: hub name, folder, or package:NAME for a model carried by an installed package.
        *others: those of AdaptedModule after its backbone, in its order.
        **settings: the same, by name.
    """

    architecture = "AutoModelForSequenceClassification"

    def __init__(self, backbone: str = "roberta-large", *others: Any, **settings: Any) -> None:
        super().__init__(backbone, *others, **settings)
        self.losses: Any = nn.ModuleDict()
        self.metrics: Any = nn.ModuleDict()
        self.ranges: Any = nn.ModuleDict()  # smallest and largest prediction of a split
        self.accuracy_by_tag: AccuracyByTag | None = None

    def load_model(self) -> tuple[nn.Module, tuple[str, ...]]:
        from transformers import AutoModelForSequenceClassification

        data = self.data
        self.task = data.task
        place = (AutoModelForSequenceClassification, self.backbone_name, self.revision)
        model, head = load_backbone(*place, whole=self.brings_its_head, num_labels=self.task.num_labels)
        self.storage.round(model, head)
        # Decoders classify the last token that isn't padding: they have to know what this tokenizer pads with.
        for config in (model.config, model.config.get_text_config()):  # where its forward looks
            config.pad_token_id = data.tokenizer.pad_token_id
        use_first_token_only(model)
        side = harmless_padding_side(model, data.tokenizer)
        data.tokenizer.padding_side = side or "right"
        if side is None and not self.sees_padding:
            self.sees_padding = True
            logger.warning(
                f"The answer of {self.backbone_name} to a row changes when the row is padded, even with an attention "
                "mask. Rows of different length are therefore computed separately, which is correct but slower. A "
                "program that pads its rows gets other answers from this model."
            )
        return model, head

    def check_model(self, model: PreTrainedModel) -> None:
        """See AdaptedModule; and the model has to have an attention mask."""
        check_mask(model)
        super().check_model(model)

    @property
    def metric_name(self) -> str:
        return self.data.task.metrics[0]

    @property
    def figure_names(self) -> tuple[str, ...]:
        return ("loss", *self.data.task.metrics)

    def make_metrics(self) -> None:
        data = self.data
        for split in (*data.validation_names, *data.test_names):
            self.losses[split] = MeanMetric(nan_strategy="disable")  # a loss that is no number has no finite mean
            self.metrics[split] = nn.ModuleDict(
                {name: make_metric(name, self.task.num_labels) for name in self.task.metrics}
            )
            self.ranges[split] = nn.ModuleList([MinMetric(), MaxMetric()])
        if data.tag_names:
            self.accuracy_by_tag = AccuracyByTag(len(data.tag_names))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits (rows, classes), or scores (rows, 1), float32."""
        if not self.sees_padding:
            return self.model(**inputs).logits.float()
        lengths = inputs["attention_mask"].sum(dim=1)  # (rows,)
        groups = [(lengths == length).nonzero().squeeze(1) for length in lengths.unique()]
        parts = [{name: cells[rows, : lengths[rows[0]]] for name, cells in inputs.items()} for rows in groups]
        logits = torch.cat([self.model(**part).logits.float() for part in parts])
        return logits[torch.cat(groups).argsort()]

    def _row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of each row (rows,)."""
        if self.task.is_regression:
            return functional.mse_loss(logits.squeeze(-1), labels, reduction="none")
        return functional.cross_entropy(logits, labels, reduction="none")

    def batch_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        losses = self._row_losses(self(batch["inputs"]), batch["labels"]) * batch["weights"]  # (rows,)
        return losses.sum(), batch["weights"].sum()

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        logits = self(batch["inputs"])
        scores = logits if self.task.is_regression else logits.softmax(dim=-1)
        return {"row": batch["row"], "scores": scores}  # (rows,), (rows, classes)

    def prediction_table(self, scores: dict[int, list[float]]) -> str:
        return answers_table(self.data.task, self.data.predict_examples(), scores)

    def evaluate_batch(self, batch: Batch, split: str) -> None:
        logits, labels = self(batch["inputs"]), batch["labels"]
        if not batch["real_rows"]:  # takes part only because another process has a batch left
            return
        predictions = logits.squeeze(-1) if self.task.is_regression else logits.argmax(dim=-1)  # (rows,)
        self.losses[split].update(self._row_losses(logits, labels))
        for metric in self.metrics[split].values():
            metric.update(predictions, labels)
        for extreme in self.ranges[split]:
            extreme.update(predictions.float())
        if self.accuracy_by_tag is not None and "tag" in batch and split == "test":
            self.accuracy_by_tag.update(predictions, labels, batch["tag"])

    def constant_answer(self, split: str) -> str | None:
        smallest, largest = (float(extreme.compute()) for extreme in self.ranges[split])
        if self.task.is_regression:
            return f"{smallest:.3f}" if largest - smallest < 1e-4 else None
        return repr(self.task.label_names[int(smallest)]) if smallest == largest else None

    def tag_accuracies(self) -> dict[str, float]:
        if self.accuracy_by_tag is None:
            return {}
        accuracies = zip(self.data.tag_names, self.accuracy_by_tag.compute().tolist(), strict=True)
        return {tag: accuracy for tag, accuracy in accuracies if accuracy == accuracy}  # no rows: NaN

    def on_test_epoch_start(self) -> None:
        if self.accuracy_by_tag is not None:
            self.accuracy_by_tag.reset()

    def split_figures(self, split: str) -> dict[str, Tensor]:
        metrics = {"loss": self.losses[split], **self.metrics[split]}
        figures = {name: metric.compute() for name, metric in metrics.items()}
        for metric in (*metrics.values(), *self.ranges[split]):
            metric.reset()
        return figures
