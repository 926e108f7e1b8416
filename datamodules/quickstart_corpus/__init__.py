"""A grammatical-acceptability corpus the project makes itself: the quickstart needs no download."""

from datamodules.quickstart_corpus.corpus import PHENOMENA, Sentence, generate_corpus

__all__ = ["PHENOMENA", "Sentence", "generate_corpus"]
