"""The quickstart corpus: sentences made on the spot, acceptable or not, by grammatical phenomenon."""

from dataclasses import dataclass

from datamodules.sources import Examples
from datamodules.task import Task
from datamodules.text_classification import TextClassificationDataModule

QUICKSTART_TASK = Task(
    "quickstart", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation", "accuracy")
)


@dataclass(kw_only=True, eq=False, repr=False)
class QuickstartDataModule(TextClassificationDataModule):
    """Acceptability of generated sentences; needs no download, and is made again in a moment.

    Args:
        train_sentences: sentences to train on.
        validation_sentences: sentences to choose the epoch on.
        test_sentences: sentences for the reported figure.
        corpus_seed: seed of the corpus. It is separate from seed, so that all runs see the same sentences.
    """

    train_sentences: int = 4000
    validation_sentences: int = 800
    test_sentences: int = 1200
    corpus_seed: int = 0

    @property
    def task(self) -> Task:
        return QUICKSTART_TASK

    @property
    def name(self) -> str:
        return "quickstart"

    def load_examples(self) -> dict[str, Examples]:
        from datamodules.quickstart_corpus import generate_corpus

        corpus = generate_corpus(
            self.train_sentences, self.validation_sentences, self.test_sentences, seed=self.corpus_seed
        )
        columns = {split: [list(column) for column in zip(*rows, strict=True)] for split, rows in corpus.items()}
        return {split: Examples(texts, None, labels, tags) for split, (texts, labels, tags) in columns.items()}
