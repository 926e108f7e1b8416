"""Tiny models and data for every test, a cache of the tests' own, and no network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports torch: on tiny models, threads only wait for each other
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # else a compilation leaves processes and threads to later tests

import pytest
from hypothesis import settings

from tests import tiny

# The same cases each time; `--hypothesis-profile many` tries many more, and others each time.
settings.register_profile("few", max_examples=20, deadline=None, derandomize=True)
settings.register_profile("many", max_examples=5000, deadline=None)
settings.load_profile("few")


@pytest.fixture(scope="session", autouse=True)
def _no_user_cache(tmp_path_factory):
    """Neither tests nor fixtures read or write the user's cache; `cache_directory` is below this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANKWISE_CACHE", str(tmp_path_factory.mktemp("rankwise_cache")))
        yield


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> str:
    """A saved BERT of a few thousand parameters, with dropout."""
    return str(tiny.save_tiny_bert(tmp_path_factory.mktemp("tiny_bert")))


@pytest.fixture(scope="session")
def cola_folder(tmp_path_factory) -> str:
    """40 training rows, 12 for validation and 12 for the test, in the official CoLA layout."""
    return str(tiny.save_cola(tmp_path_factory.mktemp("tiny_cola")))


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory) -> str:
    """A saved GPT-2 of a few thousand parameters; its tokenizer has no pad token."""
    return str(tiny.save_tiny_gpt2(tmp_path_factory.mktemp("tiny_gpt2")))


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> str:
    """A saved Llama of a few thousand parameters; its tokenizer begins every text with <s>."""
    return str(tiny.save_tiny_llama(tmp_path_factory.mktemp("tiny_llama")))


@pytest.fixture(scope="session")
def wikitext_folder(tmp_path_factory) -> str:
    """Raw text in WikiText's official layout: 40 paragraphs to train on, 9 for validation and test each."""
    return str(tiny.save_wikitext(tmp_path_factory.mktemp("tiny_wikitext")))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, tiny_bert, cola_folder):
    """Config and runs folder of one finished run called `tiny`, of three epochs; to be copied, not changed."""
    from tests.command_line import run, write_config

    runs_dir = tmp_path_factory.mktemp("finished_run")
    config = write_config(runs_dir, tiny_bert, cola_folder)
    assert run("fit", config, runs_dir) == 0
    return config, runs_dir
