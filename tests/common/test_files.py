import errno
import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from common.errors import InputError
from common.files import (
    atomic_folder,
    atomic_write,
    cache_directory,
    load_json,
    read_text,
    write_cache,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def half_then(error):
    """A writer that fails half way."""

    def write(file):
        file.write(b"half of the new")
        raise error

    return write


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), SystemExit(1), OSError(errno.EBADF, "x")])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    write_text(path, "the old content")
    with pytest.raises(type(error)):
        atomic_write(path, half_then(error))
    assert path.read_text() == "the old content"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "no space left to write .*nothing that was there before is lost.*--runs_dir"),
        *((code, "can't reach .*was moved or deleted.*--runs_dir") for code in (errno.ENOENT, errno.EIO, errno.ESTALE)),
        (errno.EDQUOT, "no space left"),
        (errno.EFBIG, r"no space left to write .* \(x\)"),
        (errno.EACCES, "can't write .*Make the folder writable"),
        (errno.EROFS, "can't write"),
    ],
)
def test_a_full_disk_is_said_in_one_message(tmp_path, code, message):
    write_text(tmp_path / "file", "old")
    with pytest.raises(InputError, match=message):
        atomic_write(tmp_path / "file", half_then(OSError(code, "x")))
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("place", ["file/below", "file/far/below", "folder", "x" * 300])
def test_a_path_that_cannot_be_one_is_said_by_the_name_that_was_asked_for(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"can't use '{tmp_path / place}'"[:150]):
        write_text(tmp_path / place, "new")
    assert names(tmp_path) == ["file", "folder"]


def test_the_old_file_stays_readable_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def write(file):
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"

    atomic_write(path, write)
    assert path.read_text() == "new"


def test_what_killed_writers_left_is_deleted_by_the_next_one_and_nothing_else(tmp_path):
    script = """
        import os, pathlib, sys
        from common.files import atomic_folder, atomic_write
        folder = pathlib.Path(sys.argv[1])
        def killed(file):
            os._exit(9)
        if sys.argv[2] == "file":
            atomic_write(folder / "file", killed)
        with atomic_folder(folder / "export") as temporary:
            (temporary / "weights").write_text("large")
            os._exit(9)
    """
    for kind in ("file", "folder"):
        subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path, kind], timeout=60)
        assert len(names(tmp_path)) == 1
        with atomic_folder(tmp_path / "living") as living:
            assert names(tmp_path) == [living.name]
            (tmp_path / ".mine.partial").touch()
            (tmp_path / ".00000000-1.abcdefgh.partial").touch()  # of another machine, perhaps still being written
            write_text(tmp_path / "other", "new")
            assert len(names(tmp_path)) == 4
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    write_cache(tmp_path / "file" / "below", b"content", "tokens are")
    assert "tokens are not cached" in capsys.readouterr().err
    for name in ("RANKWISE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", lambda _: (_ for _ in ()).throw(RuntimeError("no home")))
    write_cache(cache_directory("factors") / "file", b"content", "factors are")
    assert "factors are not cached" in capsys.readouterr().err


def test_folders_are_made_and_the_umask_is_respected(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a" / "b" / "file", "é")
        with atomic_folder(tmp_path / "export") as temporary:
            (temporary / "inner").mkdir(0o700)
            os.close(os.open(temporary / "inner" / "weights", os.O_CREAT, 0o600))  # as safetensors does
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("export", "export/inner", "export/inner/weights")]
    assert modes == [0o750, 0o750, 0o640]
    path = tmp_path / "a" / "b" / "file"
    assert path.read_bytes() == "é".encode()
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.umask(before) == before


def test_json_has_null_for_what_json_can_not_say(tmp_path):
    content = {"a": [1.5, math.nan, {"b": math.inf}], "c": (-math.inf, True, None), "d": "é"}
    write_json(tmp_path / "file.json", content)
    text = (tmp_path / "file.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "a": [1.5, None, {"b": None}],
        "c": [None, True, None],
        "d": "é",
    }
    assert text.endswith("}\n")
    assert "é" in text


def test_caches_lie_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    assert cache_directory("factors") == tmp_path / "factors"
    monkeypatch.delenv("RANKWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory("factors") == tmp_path / "xdg" / "rankwise" / "factors"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory("factors") == Path.home() / ".cache" / "rankwise" / "factors"


def test_a_pipe_or_a_device_is_no_file_to_read_and_a_mark_in_front_is_no_text(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        with pytest.raises(OSError, match="it is no file, but a pipe or a device"):
            read_text(tmp_path / name)
    (tmp_path / "marked").write_text('{"é": 1}', encoding="utf-8-sig")
    assert load_json(tmp_path / "marked") == {"é": 1}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": "\\ud800"}', "1" * 5000, "{'a': 1}", ""])
def test_json_that_cannot_be_used_is_one_kind_of_error(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r".+"):
        load_json(tmp_path / "x.json")


def test_two_halves_of_one_character_are_text(tmp_path):
    (tmp_path / "x.json").write_text('"\\ud83d\\ude42"')
    assert load_json(tmp_path / "x.json") == "🙂"


def test_a_folder_that_another_process_has_written_meanwhile_stays(tmp_path):
    with pytest.raises(InputError, match="as a path: Directory not empty"), atomic_folder(tmp_path / "x") as temporary:
        (temporary / "ours").touch()
        write_text(tmp_path / "x" / "theirs", "theirs")
    assert names(tmp_path) == ["x"] and names(tmp_path / "x") == ["theirs"]
