"""Tiny models and data for every test, a cache of the tests' own, and no network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

import pytest

from tests import tiny


@pytest.fixture(scope="session")
def _cache_of_the_session(tmp_path_factory):
    return tmp_path_factory.mktemp("rankwise_cache")


@pytest.fixture(autouse=True)
def _no_user_cache(_cache_of_the_session, monkeypatch):
    """Tests neither read nor write the user's cache; `cache_directory` is below this folder."""
    monkeypatch.setenv("RANKWISE_CACHE", str(_cache_of_the_session))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> str:
    """A saved BERT of a few thousand parameters, with dropout."""
    return str(tiny.save_tiny_bert(tmp_path_factory.mktemp("tiny_bert")))


@pytest.fixture(scope="session")
def cola_folder(tmp_path_factory) -> str:
    """40 training rows, 12 for validation and 12 for the test, in the official CoLA layout."""
    return str(tiny.save_cola(tmp_path_factory.mktemp("tiny_cola")))
