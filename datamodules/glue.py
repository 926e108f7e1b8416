"""The nine GLUE tasks, from local files or from the hub."""

from dataclasses import replace
from typing import Any, Literal

from common.errors import one_of
from datamodules.sources import Examples
from datamodules.sources_glue import COLA_VALIDATION, read_glue_folder, read_hub
from datamodules.subsets import validated_on_training_rows
from datamodules.task import GLUE_TASKS, Task
from datamodules.text_classification import TextClassificationDataModule
from datamodules.tokenized_data import check_positive


class GLUEDataModule(TextClassificationDataModule):
    """A GLUE task: from `data_dir` when given, else nyu-mll/glue from the hub or its cache.

    Args:
        task: cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte or wnli.
        data_dir: folder with the task's files: GLUE's .tsv files, .parquet, .jsonl, a save_to_disk folder, or
            for cola the official release; text files may be gzip-compressed.
        cola_validation: for the official CoLA release. in_domain validates on the in-domain and tests on the
            out-of-domain file; combined validates on both, as GLUE does, and leaves no test.
        dataset_revision: hub branch, tag or commit of the data set.
        held_out_rows: validate on so many random training rows and test on the published validation split, so that
            no split is both chosen on and reported; null validates on the published one.
        metric: which of the task's metrics chooses the best epoch, if not the first: matthews_correlation or accuracy
            for cola; f1, accuracy or average (GLUE's mean of the two) for mrpc and qqp; pearson, spearman or average
            for stsb; accuracy for the others.
    """

    def __init__(
        self,
        task: str = "cola",
        data_dir: str | None = None,
        cola_validation: Literal["in_domain", "combined"] = "in_domain",
        dataset_revision: str | None = None,
        held_out_rows: int | None = None,
        metric: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.task_name = task
        self.data_dir = data_dir
        self.cola_validation = cola_validation
        self.dataset_revision = dataset_revision
        self.held_out_rows = held_out_rows
        self.metric = metric

    @property
    def task(self) -> Task:
        if self.task_name not in GLUE_TASKS:
            raise one_of("task", self.task_name, sorted(GLUE_TASKS))
        task = GLUE_TASKS[self.task_name]
        if self.metric is None:
            return task
        return replace(task, metrics=tuple(dict.fromkeys((self.metric, *task.metrics))))  # `check_settings` checks it

    @property
    def name(self) -> str:
        return f"glue/{self.task_name}"

    def check_settings(self) -> None:
        super().check_settings()
        if self.cola_validation not in COLA_VALIDATION:
            raise one_of("cola_validation", self.cola_validation, COLA_VALIDATION)
        check_positive("held_out_rows", self.held_out_rows)
        if self.metric is not None and self.metric not in (known := GLUE_TASKS[self.task.name].metrics):
            raise one_of(f"metric for {self.task_name}", self.metric, known)

    def load_examples(self) -> dict[str, Examples]:
        examples = self._published()
        if self.held_out_rows is None:
            return examples
        return validated_on_training_rows(examples, self.held_out_rows, self.subset_seed)

    def _published(self) -> dict[str, Examples]:
        if self.data_dir is None:
            return read_hub(self.task, self.dataset_revision)
        return read_glue_folder(self.task, self.data_dir, self.cola_validation)
