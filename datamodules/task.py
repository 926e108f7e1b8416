"""What a task is: its text columns, its labels and how it is scored."""

from dataclasses import dataclass

from common.errors import listing

# What can choose the best checkpoint, the usual choice first. f1 is for two labels, the second one being found.
CLASSIFICATION_METRICS = ("accuracy", "matthews_correlation", "f1")
REGRESSION_METRICS = ("pearson", "spearman")


@dataclass(frozen=True)
class Task:
    """One classification or regression task over a text or a pair of texts."""

    name: str  # short name, as on the hub (`cola`)
    text_fields: tuple[str, ...]  # one column name, or two for pairs of texts
    label_names: tuple[str, ...]  # names in label order; empty for regression
    metrics: tuple[str, ...]  # what to report; the first one chooses the best checkpoint
    label_column: str = "label"  # name of the label column

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.text_fields, self.label_column)

    @property
    def is_regression(self) -> bool:
        return not self.label_names

    @property
    def is_pair(self) -> bool:
        return len(self.text_fields) == 2

    @property
    def num_labels(self) -> int:
        """Width of the classification head: 1 for regression."""
        return len(self.label_names) or 1

    @property
    def allowed_labels(self) -> str:
        """The labels a file may hold, in words."""
        if self.is_regression:
            return "a finite number"
        return listing([f"{index} ({name})" for index, name in enumerate(self.label_names)])


# Column names and label order are those of the hub's nyu-mll/glue: models and data made elsewhere agree.
GLUE_TASKS = {
    task.name: task
    for task in (
        Task("cola", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation", "accuracy")),
        Task("sst2", ("sentence",), ("negative", "positive"), ("accuracy",)),
        Task("mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("f1", "accuracy", "average")),
        Task("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy", "average")),
        Task("stsb", ("sentence1", "sentence2"), (), ("pearson", "spearman", "average")),
        Task("mnli", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), ("accuracy",)),
        Task("qnli", ("question", "sentence"), ("entailment", "not_entailment"), ("accuracy",)),
        Task("rte", ("sentence1", "sentence2"), ("entailment", "not_entailment"), ("accuracy",)),
        Task("wnli", ("sentence1", "sentence2"), ("not_entailment", "entailment"), ("accuracy",)),
    )
}
