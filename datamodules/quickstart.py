"""The quickstart corpus: sentences made on the spot, acceptable or not, by grammatical phenomenon."""

from typing import Any

from common.errors import InputError
from datamodules.sources import Examples
from datamodules.task import Task
from datamodules.text_classification import TextClassificationDataModule
from datamodules.tokenized_data import check_positive

QUICKSTART_TASK = Task(
    "quickstart", ("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation", "accuracy")
)


class QuickstartDataModule(TextClassificationDataModule):
    """Acceptability of generated sentences; needs no download, and is made again in a moment.

    Args:
        train_sentences: sentences to train on.
        validation_sentences: sentences to choose the epoch on.
        test_sentences: sentences for the reported figure.
        corpus_seed: seed of the corpus; apart from seed, so that all runs see the same sentences.
    """

    def __init__(
        self,
        train_sentences: int = 4000,
        validation_sentences: int = 800,
        test_sentences: int = 1200,
        corpus_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.train_sentences = train_sentences
        self.validation_sentences = validation_sentences
        self.test_sentences = test_sentences
        self.corpus_seed = corpus_seed

    @property
    def task(self) -> Task:
        return QUICKSTART_TASK

    @property
    def name(self) -> str:
        return "quickstart"

    def check_settings(self) -> None:
        super().check_settings()
        for name in ("train_sentences", "validation_sentences", "test_sentences"):
            check_positive(name, getattr(self, name))

    def load_examples(self) -> dict[str, Examples]:
        from datamodules.quickstart_corpus import generate_corpus

        try:
            corpus = generate_corpus(
                train_sentences=self.train_sentences,
                validation_sentences=self.validation_sentences,
                test_sentences=self.test_sentences,
                seed=self.corpus_seed,
            )
        except ValueError as error:  # it says itself how many sentences there can be
            raise InputError(str(error)) from error
        return {
            split: Examples(
                texts=[sentence.text for sentence in sentences],
                labels=[sentence.label for sentence in sentences],
                tags=[sentence.phenomenon for sentence in sentences],
            )
            for split, sentences in corpus.items()
        }
