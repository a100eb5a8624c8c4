"""The trained weights that minirag ships: where they lie, what there is, whether it is whole.

Each directory in ``weights/`` holds one model in the hub's layout with its model card, and a
``checksums.json`` that names every file with its size and SHA-256 sum.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirag.errors import ModelUnavailable
from minirag.files import sha256_of, shipped_directory, write_text_atomically
from minirag.transformer.checkpoints import CONFIG, WEIGHTS

CHECKSUMS = "checksums.json"


def weights_root() -> Path:
    """The directory ``weights/``: of the checkout that minirag runs from, else of the wheel."""
    return shipped_directory("weights")


def shipped(root: Path | None = None) -> list[Path]:
    """The directories of all shipped models, by name."""
    root = root or weights_root()
    return sorted(path.parent for path in root.glob(f"*/{CONFIG}"))


def locate_weights(name: str, root: Path | None = None) -> Path:
    """The directory of a shipped model.

    Raises
    ------
    ModelUnavailable
        If there is none of that name.
    """
    root = root or weights_root()
    directory = root / name
    if Path(name).name != name or not (directory / CONFIG).is_file():
        have = ", ".join(path.name for path in shipped(root)) or "none"
        raise ModelUnavailable(
            f"there are no weights {name!r} in {root} (there: {have}). "
            f"Train them: minirag pretrain {name}"
        )
    return directory


def shipped_or_other(name_or_path: str) -> str:
    """The directory of what minirag ships under this name; anything else as it was given.

    A model in a directory of that name, here, goes first.
    """
    shipped, given = weights_root() / name_or_path, Path(name_or_path)
    if given.name != name_or_path or (given / CONFIG).is_file():
        return name_or_path
    return str(shipped) if (shipped / CONFIG).is_file() else name_or_path


def seal(directory: Path) -> Path:
    """Write ``checksums.json`` over the files of a model, not over those of a run in progress.

    Raises
    ------
    DiskError
        If writing fails.
    """
    sums = {
        _name(path, directory): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in _files(directory)
    }
    path = directory / CHECKSUMS
    write_text_atomically(path, json.dumps(sums, indent=1) + "\n")
    return path


def _files(directory: Path) -> list[Path]:
    """What is sealed: plain files, without the seal itself and without hidden ones.

    Of the directories below only that counts which says how a sentence encoder pools.
    """
    return sorted(
        path
        for path in (*directory.iterdir(), *(directory / "1_Pooling").glob("*"))
        if path.is_file() and path.name != CHECKSUMS and not path.name.startswith(".")
    )


def _name(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix()


def problems(directory: Path) -> list[str]:
    """What is wrong with a sealed directory, a sentence each; nothing: it is whole."""
    try:
        sums: dict[str, Any] = json.loads((directory / CHECKSUMS).read_text("utf-8"))
        entries = {
            str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in sums.items()
        }
    except FileNotFoundError:
        return [f"{directory} has no {CHECKSUMS}: nothing says what should be in it."]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return [f"{directory / CHECKSUMS} can't be read: {error}."]
    found = []
    present = {_name(path, directory): path for path in _files(directory)}
    for name in sorted(set(present) - set(entries)):
        found.append(f"{present[name]} is not in {CHECKSUMS}.")
    for name, (size, digest) in entries.items():
        if name not in present:
            found.append(f"{directory / name} is missing.")
        elif present[name].stat().st_size != size or sha256_of(present[name]) != digest:
            found.append(f"{present[name]} is not the file that {CHECKSUMS} was made for.")
    return found


@dataclass(frozen=True)
class Shipped:
    """One shipped model, looked at."""

    name: str
    directory: Path
    bytes: int  # of all its files
    sha256: str  # of its weights
    problems: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "directory": str(self.directory),
            "bytes": self.bytes,
            "sha256": self.sha256,
            "problems": self.problems,
        }


def inspect_weights(root: Path | None = None) -> list[Shipped]:
    """All shipped models with their checksums, verified."""
    return [
        Shipped(
            directory.name,
            directory,
            sum(path.stat().st_size for path in _files(directory)),
            sha256_of(directory / WEIGHTS) if (directory / WEIGHTS).is_file() else "",
            problems(directory),
        )
        for directory in shipped(root)
    ]
