"""Saving so that a kill or a full disk loses nothing, and reading what may be damaged.

Two shapes are enough for the whole package. One file: written beside its place, flushed to the
disk, then renamed over it (:func:`write_atomically`). A set of files that belong together: each
save writes new names, and a small ``manifest.json``, replaced last and atomically, says which names
are valid with their sizes and SHA-256 sums (:func:`save_set`, :func:`load_set`). Until the manifest
is replaced, the previous set is what a reader sees. Of several processes that save into one
directory, each waits for the one before (:func:`locked`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import minirag
from minirag.errors import CheckpointError, DiskError, StoreError

MANIFEST = "manifest.json"
LOCK = ".lock"
PATIENCE = 60.0  # seconds that a process waits for another one to have saved
_MAX_MANIFEST_BYTES = 16 << 20


def checkout() -> Path | None:
    """The checkout that minirag runs from; None if it was installed from a wheel."""
    above = Path(minirag.__file__).parent.parent
    return above if (above / "pyproject.toml").is_file() else None


def shipped_directory(name: str) -> Path:
    """What minirag brings beside its code (``weights``, ``lessons``): checkout's or wheel's."""
    above = checkout()
    if above is not None and (above / name).is_dir():
        return above / name
    return Path(minirag.__file__).parent / "_data" / name


def read_json_object(path: Path, absent: dict[str, Any] | None = None) -> dict[str, Any]:
    """Parse a JSON object that belongs to a model, from a file that nobody has checked.

    Parameters
    ----------
    absent : dict, optional
        What an absent file stands for; without it, a missing file is an error.

    Raises
    ------
    CheckpointError
        If the file can't be read, is not JSON, or holds something other than an object.
    """
    if absent is not None and not path.exists():
        return absent
    try:
        values = json.loads(path.read_text("utf-8"))
    except RecursionError:
        raise CheckpointError(f"{path} can't be read as JSON: it is nested too deeply.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(values).__name__}.")
    return values


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _disk_errors_as_sentences(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"could not write {path}: {error.strerror or error}. "
            "Free some space or choose another place; what was saved there before is untouched."
        ) from error


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it over ``path``.

    Raises
    ------
    DiskError
        If anything fails; ``path`` still holds what it held before.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with _disk_errors_as_sentences(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(temporary)
            _flush_to_disk(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends; see :func:`write_atomically`."""
    write_atomically(path, lambda part: _write_bytes(part, text.encode("utf-8")))


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


# -- one process at a time -------------------------------------------------------------------------

_held = threading.local()


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Let no other process, and no other thread, save into ``directory`` meanwhile.

    Whoever holds the lock may take it again, so that loading, changing and saving can be one. It
    lies on an empty file, which stays; the system takes it back when its holder ends, however it
    ends. Readers need no lock.

    Raises
    ------
    DiskError
        If the directory can't be written, or somebody else holds it for longer than ``PATIENCE``.
    """
    mine: set[Path] = _held.__dict__.setdefault("directories", set())
    place = directory.resolve()
    if place in mine:
        yield
        return
    with contextlib.ExitStack() as stack:
        with _disk_errors_as_sentences(directory):
            file = os.open(place / LOCK, os.O_RDONLY | os.O_CREAT)  # another user's can be locked
            stack.callback(os.close, file)
            _wait_for(file, directory)
        mine.add(place)
        try:
            yield
        finally:
            mine.remove(place)  # and closing the file lets go of it


def _wait_for(file: int, directory: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return _seize(file)
        except (BlockingIOError, PermissionError):  # what Linux and macOS say, and what Windows
            if time.monotonic() > end:
                raise DiskError(
                    f"could not write {directory}: for {PATIENCE:.0f} s another process has been "
                    "changing it. Wait until it has ended, then try again."
                ) from None
            time.sleep(0.05)
        except OSError:  # some network file systems have no locks: then as if nobody else saved
            return None


def _seize(file: int) -> None:
    """Lock a file by its descriptor; OSError at once if somebody else has."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- sets of files ---------------------------------------------------------------------------------


def save_set(
    directory: Path, kind: str, files: Mapping[str, Callable[[Path], None]], meta: Mapping[str, Any]
) -> None:
    """Save files that belong together; the previous set stays valid until the last moment.

    Parameters
    ----------
    directory : Path
        Created if need be.
    kind : str
        What this is (``"flat-index"``, ``"knowledge-base"``); :func:`load_set` insists on it.
    files : mapping of name to writer
        ``"vectors.npy" -> function(path)`` that writes the file at ``path``. The name on disk gets
        a random part, so that no valid file is ever written over.
    meta : mapping
        Plain JSON values, kept in the manifest.

    Raises
    ------
    DiskError
        If anything fails; the previous set is untouched.
    """
    with _disk_errors_as_sentences(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):  # else what another process has just written would be a stray
        written = _write_set(directory, kind, files, meta)
        _remove_strays(directory, keep={entry["file"] for entry in written.values()}, names=files)


def _write_set(
    directory: Path, kind: str, files: Mapping[str, Callable[[Path], None]], meta: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What the manifest then says of each file."""
    token = secrets.token_hex(4)
    written: dict[str, dict[str, Any]] = {}
    paths: list[Path] = []
    with _disk_errors_as_sentences(directory):
        try:
            for name, write in files.items():
                stem, dot, suffix = name.partition(".")
                path = directory / f"{stem}-{token}{dot}{suffix}"
                paths.append(path)
                write(path)
                _flush_to_disk(path)
                written[name] = {
                    "file": path.name,
                    "bytes": path.stat().st_size,
                    "sha256": sha256_of(path),
                }
            body = {"kind": kind, "meta": dict(meta), "files": written}
            manifest = {**body, "sha256": _sum_of(body)}
            write_text_atomically(directory / MANIFEST, json.dumps(manifest, indent=1))
        except BaseException:  # a kill by Ctrl-C included: leave no half-written files behind
            for path in paths:
                path.unlink(missing_ok=True)
            raise
    return written


def _remove_strays(directory: Path, keep: set[str], names: Mapping[str, object]) -> None:
    """Delete what earlier saves left: only names of the form that ``save_set`` gives."""
    for name in names:
        stem, dot, suffix = name.partition(".")
        for path in directory.glob(f"{stem}-{'[0-9a-f]' * 8}{dot}{suffix}"):
            if path.name not in keep:
                with contextlib.suppress(OSError):  # Windows: a reader may still hold it open
                    path.unlink()


def holds_leftovers_only(directory: Path) -> bool:
    """Whether all that a directory holds, if anything, is what a killed first save left."""
    leftover = re.compile(r".+-[0-9a-f]{8}(\.\w+)?|\..+\.[0-9a-f]{8}\.part")
    return all(leftover.fullmatch(path.name) or path.name == LOCK for path in directory.iterdir())


def _sum_of(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def load_set(
    directory: Path, kind: str, *, verify: bool = True
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Read a manifest and check that every file it names is there, whole and unchanged.

    Parameters
    ----------
    verify : bool
        Also compare the SHA-256 sums (about 1 s per GB); sizes are always compared.

    Returns
    -------
    meta, paths
        The saved ``meta`` and the path of each file under its plain name.

    Raises
    ------
    StoreError
        If something is missing, damaged, or of another kind.
    """
    path, called = directory / MANIFEST, kind.replace("-", " ")
    if not directory.exists():
        raise StoreError(f"there is no directory {directory}, and so no {called}: check the name.")
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise StoreError(f"{path} is too large to be a manifest: save it again.")
        manifest = json.loads(path.read_text("utf-8"))
        body = {key: manifest[key] for key in ("kind", "meta", "files")}
        entries = {
            str(name): (str(entry["file"]), int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in body["files"].items()
        }
        meta = dict(body["meta"])
        intact = manifest["sha256"] == _sum_of(body)
    except FileNotFoundError:
        raise StoreError(
            f"{directory} holds no {called}: there is no {MANIFEST} in it. Was it saved there?"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} is damaged ({error}): build the {called} again.") from error
    if not intact:
        raise StoreError(f"{path} is damaged (its checksum differs): build the {called} again.")
    if body["kind"] != kind:
        raise StoreError(f"{directory} holds a {body['kind'].replace('-', ' ')}, not a {called}.")
    paths = {}
    for name, (file, size, digest) in entries.items():
        if Path(file).name != file:
            raise StoreError(f"{path} names a file outside its directory: {file!r}.")
        paths[name] = directory / file
        if not paths[name].is_file() or paths[name].stat().st_size != size:
            raise StoreError(f"{paths[name]} is missing or cut short: build the {called} again.")
        if verify and sha256_of(paths[name]) != digest:
            raise StoreError(
                f"{paths[name]} is damaged (its checksum differs): build the {called} again."
            )
    return meta, paths
