"""A grammatical-acceptability corpus the project makes itself: the quickstart needs no download."""

from datamodules.quickstart_corpus.corpus import Sentence, generate_corpus, phenomena

__all__ = ["Sentence", "generate_corpus", "phenomena"]
