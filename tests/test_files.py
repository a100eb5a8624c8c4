"""Sets of files saved by several processes at once: whole, and none of them lost."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time

import pytest

from minirag import files
from minirag.errors import DiskError
from minirag.files import LOCK, load_set, locked, save_set


def _writers(text: str) -> dict:
    return {name: lambda path: path.write_text(text) for name in ("a.txt", "b.txt")}


def _texts(directory) -> list[str]:
    _, paths = load_set(directory, "texts")
    return [path.read_text() for path in paths.values()]


SAVING = """
import pathlib, sys
from minirag.files import save_set
write = lambda path: path.write_text("second")
print("ready", flush=True)
save_set(pathlib.Path(sys.argv[1]), "texts", {"a.txt": write, "b.txt": write}, {})
"""
HOLDING = """
import pathlib, sys, time
from minirag.files import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def _started(code: str, directory) -> subprocess.Popen:
    """A process of this code, at the place where it has printed its line."""
    given = [sys.executable, "-c", code, str(directory)]
    process = subprocess.Popen(given, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_process_that_saves_waits_for_another_one(tmp_path):
    """Between the first one's two files comes a second process, and may not clear them away."""
    save_set(tmp_path, "texts", _writers("before"), {})
    others = []

    def slow(path):
        others.append(_started(SAVING, tmp_path))
        with contextlib.suppress(subprocess.TimeoutExpired):
            others[0].wait(timeout=1)
        assert _texts(tmp_path) == ["before", "before"]
        path.write_text("first")

    save_set(tmp_path, "texts", {**_writers("first"), "b.txt": slow}, {})
    assert others[0].wait() == 0
    assert _texts(tmp_path) == ["second", "second"]
    assert len(list(tmp_path.iterdir())) == 4  # two files, the manifest and the lock


def test_the_lock_of_a_killed_process_is_free(tmp_path, monkeypatch):
    holder = _started(HOLDING, tmp_path)
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    try:
        with pytest.raises(DiskError, match=r"another process .* Wait until it has ended"):
            save_set(tmp_path, "texts", _writers("mine"), {})
    finally:
        holder.kill()
        holder.wait()
    save_set(tmp_path, "texts", _writers("mine"), {})
    assert _texts(tmp_path) == ["mine", "mine"]


def test_whoever_holds_the_lock_may_take_it_again_and_other_threads_wait(tmp_path):
    saved = []

    def save(text):
        save_set(tmp_path, "texts", _writers(text), {})
        saved.append(text)

    other = threading.Thread(target=save, args=["other"])
    with locked(tmp_path):
        other.start()
        time.sleep(0.2)
        save("mine")
        save("mine again")
        assert saved == ["mine", "mine again"]
    other.join()
    assert saved[-1] == "other"
    assert _texts(tmp_path) == ["other", "other"]


def test_what_can_only_be_read_is_read_without_a_lock(tmp_path, monkeypatch):
    save_set(tmp_path, "texts", _writers("before"), {})
    (tmp_path / LOCK).unlink()

    def refused(*_):  # chmod would not stop an administrator
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", refused)
    assert _texts(tmp_path) == ["before", "before"]
    assert not (tmp_path / LOCK).exists()
    with pytest.raises(DiskError, match="Permission denied"):
        save_set(tmp_path, "texts", _writers("after"), {})


def test_where_there_are_no_locks_it_is_saved_all_the_same(tmp_path, monkeypatch):
    def unsupported(_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files, "_seize", unsupported)
    save_set(tmp_path, "texts", _writers("mine"), {})
    assert _texts(tmp_path) == ["mine", "mine"]
