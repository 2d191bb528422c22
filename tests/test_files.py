"""Files are complete or absent, whatever the disk does; errors are one line."""

import errno
import json
import os
import stat

import numpy as np
import pytest

from mirrax import _errors
from mirrax._errors import MirraxError, nearest
from mirrax._files import append_line, write_atomically, write_json
from mirrax._json import parse_json, to_json


def failing(number: int):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def one_line(raised) -> str:
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_written_and_replaced(tmp_path):
    path = tmp_path / "geometry.safetensors"
    for data in (b"first", b"", b"x" * 3_000_000):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == [path.name]


def test_rights_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_short_writes_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    write_atomically(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only; choose another folder"),
        (errno.EACCES, "the folder is read-only for this user"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_nothing_half_written(tmp_path, monkeypatch, step, number, message):
    path = tmp_path / "summary.json"
    path.write_bytes(b"before")
    with monkeypatch.context() as patched:
        patched.setattr(os, step, failing(number))
        with pytest.raises(MirraxError, match=message) as raised:
            write_atomically(path, b"after")
    assert one_line(raised).startswith(f"cannot write {path}: ")
    assert raised.value.exit_code == 2
    assert os.listdir(tmp_path) == ["summary.json"] and path.read_bytes() == b"before"


def test_disk_fills_midway(tmp_path, monkeypatch):
    write, calls = os.write, []

    def fills(descriptor, data):
        calls.append(len(data))
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[:4])

    monkeypatch.setattr(os, "write", fills)
    with pytest.raises(MirraxError, match="the disk is full"):
        write_atomically(tmp_path / "file", b"0123456789")
    assert len(calls) == 3 and os.listdir(tmp_path) == []


def test_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"data")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_read_only_folder(tmp_path):
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(0o555)
    with pytest.raises(MirraxError, match="the folder is read-only for this user"):
        write_atomically(folder / "file", b"data")


def test_no_such_folder_and_folder_in_the_way(tmp_path):
    with pytest.raises(MirraxError, match="its folder does not exist") as raised:
        write_atomically(tmp_path / "absent" / "file", b"data")
    one_line(raised)
    (tmp_path / "taken").mkdir()
    with pytest.raises(MirraxError, match="a folder of that name exists"):
        write_atomically(tmp_path / "taken", b"data")
    (tmp_path / "plain").touch()
    with pytest.raises(MirraxError, match="its folder is a file"):
        write_atomically(tmp_path / "plain" / "file", b"data")
    assert sorted(os.listdir(tmp_path)) == ["plain", "taken"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are Unix's")
def test_what_is_no_file_is_written_and_stays(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for path in (pipe, link):
            write_atomically(path, b"geometry")
            assert os.read(reader, 100) == b"geometry"
    finally:
        os.close(reader)
    assert pipe.is_fifo() and link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    target.write_bytes(b"before")
    link.symlink_to(target)
    for data in (b"after", b"again"):
        write_atomically(link, data)
        assert link.is_symlink() and target.read_bytes() == data
        target.unlink()  # then the link leads nowhere, until the next
    assert os.listdir(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_rights_are_those_of_the_file_that_is_replaced(tmp_path, mode):
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    write_atomically(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes() == b"new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_leaves_a_file_to_its_owner(tmp_path):
    path = tmp_path / "file"
    path.touch(0o600)
    os.chown(path, 1234, 1235)
    write_atomically(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("before", [None, b"", b"[]\n"])
def test_a_line_that_fails_leaves_what_there_was(tmp_path, monkeypatch, before):
    path = tmp_path / "metrics.jsonl"
    if before is not None:
        path.write_bytes(before)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", failing(errno.ENOSPC))
        with pytest.raises(MirraxError, match="the disk is full"):
            append_line(path, "{}")
    assert (path.read_bytes() if path.exists() else None) == before
    append_line(path, "{}")
    assert path.read_bytes() == (before or b"") + b"{}\n"


def test_json_of_paths_that_are_no_text(tmp_path):
    """Bytes of a path that are no UTF-8 reach Python as halves of characters."""
    odd = os.fsdecode(b"r\xff")
    write_json(tmp_path / "a.json", {"out": odd, "at": tmp_path / odd, odd: [odd, "Δθ"]})
    escaped = "r\\udcff"
    assert parse_json((tmp_path / "a.json").read_bytes()) == {
        "out": escaped,
        "at": str(tmp_path / escaped),
        escaped: [escaped, "Δθ"],
    }


def test_json(tmp_path):
    path = tmp_path / "summary.json"
    write_json(
        path,
        {
            "numpy": [np.float32(0.5), np.int64(3), np.arange(3), np.array([np.nan, 1.0])],
            "never": float("nan"),
            "far": (float("inf"), 1e300),
            "path": tmp_path,
            "text": "Δθ",
            1: None,
            "flag": True,
            "flags": np.array([True]),
        },
    )
    assert json.loads(path.read_text()) == {
        "numpy": [0.5, 3, [0, 1, 2], [None, 1.0]],
        "never": None,
        "far": [None, 1e300],
        "path": str(tmp_path),
        "text": "Δθ",
        "1": None,
        "flag": True,
        "flags": [True],
    }
    assert "Δθ" in path.read_text(encoding="utf-8") and path.read_text().endswith("}\n")


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"value": 1})
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    assert json.loads(path.read_text()) == {"value": 1}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("MirraxError", 2),
        ("DataError", 2),
        ("ArtifactError", 2),
        ("ConfigError", 2),
        ("NumericalError", 3),
    ],
)
def test_exit_codes(name, code):
    error = getattr(_errors, name)("one line")
    assert isinstance(error, MirraxError) and error.exit_code == code


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("quadratic", " Did you mean 'quadratics'?"),
        ("ROTATED-MNIST", " Did you mean 'rotated-mnist' or 'rotated-digits'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_nearest(name, suggestion):
    assert nearest(name, ["rotated-digits", "rotated-mnist", "quadratics"]) == suggestion
    assert nearest(name, []) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' stands twice"),
        (b"[NaN]", "NaN is no finite number"),
        (b"[1e999]", "1e999 is no finite number"),
        (b"1" * 400, "a number has 400 digits"),
        (b"[" * 101 + b"]" * 101, "more than 100 levels"),
        (b"[" * 100_000, "more than 100 levels"),
        (b'["\\uD800"]', "surrogates not allowed"),
        (b"\xff", "invalid start byte"),
        (b"{", "Expecting property name"),
    ],
)
def test_json_without_a_single_meaning_is_refused(text, message):
    with pytest.raises(ValueError, match=message) as raised:
        parse_json(text)
    one_line(raised)


def test_json_as_it_is_written_comes_back():
    value = {"a": [1, 2.5, None, True, "ü\U0001f600\\ud"], "b": {"c": {}}, "": -(10**299) + 1}
    assert parse_json(to_json(value).encode()) == value
    assert parse_json("[" * 100 + "]" * 100)
    assert parse_json(b"\xef\xbb\xbf[1]") == [1]  # as some editors begin a file
    assert parse_json(b'["\\ud83d\\ude00"]') == ["\U0001f600"]
    assert parse_json("[-Infinity]", finite=False) == [-float("inf")]
