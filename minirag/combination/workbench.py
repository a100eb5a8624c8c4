"""The pieces of an experiment, each done once: what lies on the disk is not computed again.

A piece is what takes a minute at most: one training with its test, one round of questions. It is
filed under the SHA-256 of all that decides its outcome, so that experiments share what they have in
common, and a kill loses the piece that was in work and no other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minirag.files import write_text_atomically
from minirag.transformer.machine import Machine, this_machine


def sum_of(values: Any) -> str:
    """SHA-256 of plain JSON values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Workbench:
    """Where an experiment does its pieces.

    Parameters
    ----------
    place : Path
        A directory for finished pieces; several experiments may share it.
    studies : Path, optional
        Where studies keep their readers and answers; default: ``studies`` in ``place``.
    machine : Machine, optional
        Where to compute; default: this one, in the precision that suits it.
    bar : bool
        Show a progress bar with the time left.
    """

    def __init__(
        self,
        place: Path,
        machine: Machine | None = None,
        *,
        studies: Path | None = None,
        bar: bool = False,
    ) -> None:
        self.place, self.machine = place, machine or this_machine()
        self.studies = studies or place / "studies"
        # of the pieces asked for: the seconds that they took, whenever and wherever that was
        self.seconds, self.machines = 0.0, list[dict[str, Any]]()
        self.bar, self._shown = bar, tqdm(disable=True)

    @contextlib.contextmanager
    def progress(self, title: str, pieces: int) -> Iterator[None]:
        """Count the pieces done in this context, of about so many."""
        self.seconds, self.machines = 0.0, []
        with tqdm(desc=title, total=pieces, unit="piece", disable=not self.bar) as self._shown:
            yield

    def piece(
        self, name: str, values: Mapping[str, Any], work: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The outcome of a piece of work, from the disk if it has been done before.

        Parameters
        ----------
        name : str
            What it is, for people: it stands in the file's name and beside the bar.
        values : mapping
            Plain JSON values: all that decides the outcome. The precision of this machine belongs
            to it and needs not be given.
        work : function -> plain JSON values
            Does it.

        Raises
        ------
        DiskError
            If the outcome can't be saved.
        """
        decides = {**values, "precision": "bf16" if self.machine.bf16 else "fp32"}
        path = self.place / f"{name}-{sum_of(decides)[:16]}.json"
        filed = _read(path)
        if filed is None:
            self._shown.set_postfix_str(name)
            began = time.perf_counter()
            outcome = work()
            filed = {
                "decides": decides,
                "seconds": round(time.perf_counter() - began, 2),
                "machine": self.machine.describe(),
                "outcome": outcome,
            }
            write_text_atomically(path, json.dumps(filed) + "\n")
            filed = json.loads(json.dumps(filed))  # the same, whether fresh or from the disk
        elif not self._shown.disable:
            self._shown.initial += 1  # what took no time says nothing about the time left
        self._shown.update()
        self.seconds += filed["seconds"]
        if filed["machine"] not in self.machines:
            self.machines.append(filed["machine"])
        result: dict[str, Any] = filed["outcome"]
        return result


def _read(path: Path) -> dict[str, Any] | None:
    """What was filed; None if there is nothing, or nothing whole."""
    try:
        filed: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return filed if {"seconds", "machine", "outcome"} <= filed.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
