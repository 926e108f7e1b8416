"""Damaged data files: a clear message, or exactly the rows that stand in the file; never a traceback."""

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import InputError
from tests import tiny
from tests.hostile.bad_files import Format, make_formats, texts_of

NAMES = (
    *("cola tsv", "cola tsv.gz", "glue tsv", "glue jsonl", "ag_news csv", "table csv", "table tsv", "table jsonl"),
    *("table parquet", "saved data set", "wikitext raw", "plain text"),
)
TEXT_FORMATS = tuple(name for name in NAMES if not name.endswith(("gz", "parquet", "set")))
# What a byte can do most harm as: ends, separators, quotes, escapes, NUL, byte order marks, halves of characters.
HARMFUL = b'\x00|\n|\r|\t|,|"|\\|{|\xff\xfe|\xef\xbb\xbf|\xc3|\xe2\x80\xa8'.split(b"|")


@pytest.fixture(scope="module")
def formats(tmp_path_factory, tiny_bert, tiny_gpt2) -> dict[str, Format]:
    made = make_formats(tmp_path_factory.mktemp("formats"), tiny_bert, tiny_gpt2)
    assert tuple(made) == NAMES
    return made


def outcome(form: Format, content: bytes, folder: Path) -> list[str] | str:
    """The training texts that are read, or the message."""
    data = form.with_content(content, folder)
    try:
        data.setup()
    except InputError as error:
        return str(error)
    return texts_of(data)


def check_message(message: str, folder: Path) -> None:
    assert len(message) < 4000
    assert str(folder) in message or "split" in message, message
    assert message.rstrip().endswith((".", ")")), message


@st.composite
def damage(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """A few changes: what is done, where (as a share of the file), and with which bytes."""
    kinds = st.sampled_from(["cut", "insert", "replace", "delete", "repeat", "lose the beginning"])
    harm = st.one_of(st.sampled_from(HARMFUL), st.binary(min_size=1, max_size=4))
    return draw(st.lists(st.tuples(kinds, st.floats(0, 1), harm), min_size=1, max_size=3))


def damaged(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, harm in changes:
        place = int(share * len(content))
        before, after = content[:place], content[place:]
        content = {
            "cut": before,
            "insert": before + harm + after,
            "replace": before + harm + after[len(harm) :],
            "delete": before + after[len(harm) + 5 :],
            "repeat": before + after[:40] + after,
            "lose the beginning": after,
        }[kind]
    return content


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), changes=damage())
def test_random_damage_is_refused_or_read_as_it_stands(formats, tmp_path, name, changes):
    form, folder = formats[name], tmp_path / "data"
    content = damaged(form.whole(), changes)
    found = outcome(form, content, folder)
    if isinstance(found, str):
        check_message(found, folder)
        return
    assert all(isinstance(text, str) for text in found)
    if name not in ("wikitext raw", "plain text"):
        assert found and all(text.strip() for text in found)
    if name in TEXT_FORMATS and not name.endswith(("csv", "jsonl")):  # these two have escapes of their own
        raw = content.decode()  # what was accepted is valid text
        assert all(text.strip() in raw for text in found)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_files_of_anything_at_all_are_refused_or_read(formats, tmp_path, name, content):
    found = outcome(formats[name], content, tmp_path / "data")
    if isinstance(found, str):
        check_message(found, tmp_path / "data")


@pytest.mark.parametrize("name", NAMES)
def test_whole_files_are_read_and_line_ends_of_windows_and_a_byte_order_mark_change_nothing(formats, tmp_path, name):
    form = formats[name]
    usual = outcome(form, form.whole(), tmp_path / "data")
    assert isinstance(usual, list)
    if name not in TEXT_FORMATS:
        return
    windows = b"\xef\xbb\xbf" + form.whole().replace(b"\n", b"\r\n")
    assert outcome(form, windows, tmp_path / "data") == usual


@pytest.mark.parametrize("name", TEXT_FORMATS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda content: b"", "is empty"),
        (lambda content: b"\n \n\n", "is empty"),
        (lambda content: content[:40] + b"\x00" + content[40:], "NUL"),
        (lambda content: content.decode().encode("utf-16"), "UTF-8"),
        (lambda content: content[:-5] + "é".encode("latin-1") + content[-5:], "UTF-8"),
        (lambda content: gzip.compress(content)[:-30], "gzip data is damaged or cut off"),
        (lambda content: gzip.compress(content)[:12], "gzip data is damaged or cut off"),
    ],
    ids=["empty", "blank", "nul", "utf-16", "latin-1", "truncated gzip", "headless gzip"],
)
def test_files_that_are_no_text_are_refused(formats, tmp_path, name, change, expected):
    form = formats[name]
    message = outcome(form, change(form.whole()), tmp_path / "data")
    assert isinstance(message, str) and expected in message, message
    assert Path(form.damaged).name in message


def test_very_many_columns_are_read_or_named(formats, tmp_path):
    form = formats["table csv"]
    names = ["text", "label", *(f"column{place}" for place in range(100_000))]
    rows = [",".join([text, str(label), *["0"] * 100_000]) for text, label in tiny.sentences(16, 0)]
    content = "\n".join([",".join(names), *rows]) + "\n"
    assert isinstance(outcome(form, content.encode(), tmp_path / "data"), list)
    lost = content.replace("text", "txt", 1)
    message = outcome(form, lost.encode(), tmp_path / "data")
    assert isinstance(message, str) and "Did you mean 'txt'" in message
    assert len(message) < 4000  # not all hundred thousand of them
