"""The claims ledger: every claim of the lessons is an experiment with a command and a verdict.

A claim has an id, the sentence that it tests, and a rule, written down before anything is measured,
by which numbers become a verdict. Its experiment leaves ``ID.json`` and ``ID.png``; the file names
all that the result depends on, so that :func:`changed` can tell whether it still stands.

To add a claim, write a module in :mod:`minirag.combination.claims` with a ``CLAIM`` in it, and name
it there.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from minirag.combination.workbench import Workbench, sum_of
from minirag.corpus.phrasings import DIRECTORY as PHRASINGS
from minirag.errors import DataError
from minirag.files import sha256_of, shipped_directory, write_text_atomically
from minirag.intervals import Interval
from minirag.pictures import new_figure, save_png
from minirag.training.weights import shipped_or_other
from minirag.transformer.checkpoints import WEIGHTS

Says = Literal["holds", "does not hold", "holds only when"]
MISSING = "missing"  # instead of the checksum of weights that aren't there


@dataclass(frozen=True)
class Verdict:
    """What an experiment says about its claim."""

    says: Says
    when: str  # completes "holds only when"; else empty
    reason: str  # a sentence with the numbers that decided
    number: Interval  # the one that stands for the result, with its 95 % interval
    what: str  # what the number is
    results: dict[str, Any]  # plain values: all that lessons and the picture show


@dataclass(frozen=True)
class Planned:
    """Some pieces of work of one kind."""

    what: str
    pieces: int
    seconds: float  # each, on two cores; about
    shared: int = 0  # so many of the pieces are also an earlier claim's: done once for both


@dataclass(frozen=True)
class Settings:
    """All that decides how an experiment comes out; each claim adds what it needs."""

    seeds: tuple[int, ...]  # of what the verdict rests on
    development: tuple[int, ...]  # of what is chosen beforehand
    models: tuple[str, ...]  # shipped weights that it begins with


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Claim(Generic[S]):
    """A sentence, and the experiment that tests it."""

    id: str
    sentence: str
    rule: str  # when it holds, and when only sometimes
    version: int  # of the experiment: raise it with every change that the settings don't show
    full: S
    reduced: S  # the same in seconds: shows that it runs, and proves nothing
    plan: Callable[[S], Sequence[Planned]]
    run: Callable[[S, Workbench], Verdict]
    draw: Callable[[Any, dict[str, Any]], None]  # on an empty figure, the verdict's results
    size: tuple[float, float] = (9.0, 4.0)  # of the picture, in inches

    def settings(self, reduced: bool) -> S:
        """The settings of the full or of the reduced experiment."""
        return self.reduced if reduced else self.full

    def command(self, reduced: bool) -> str:
        """The command that runs it."""
        return f"minirag claims --run {self.id}{' --reduced' if reduced else ''}"


def results_root() -> Path:
    """Where the shipped results lie."""
    return shipped_directory("lessons") / "results"


# ------------------------------------------------------------------------------------ dependencies


def dependencies(claim: Claim[Any], settings: Settings) -> dict[str, Any]:
    """All that a result depends on, as plain values: another value makes it an old result."""
    configuration = json.loads(json.dumps(dataclasses.asdict(settings)))
    return {
        "experiment version": claim.version,
        "seeds": configuration.pop("seeds"),
        "development seeds": configuration.pop("development"),
        "weights": {name: checksum(name) for name in configuration.pop("models")},
        "wordings": wordings(),
        "configuration": configuration,
    }


def checksum(model: str) -> str:
    """SHA-256 of the weights of a shipped model, or of one in a directory."""
    weights = Path(shipped_or_other(model)) / WEIGHTS
    return sha256_of(weights) if weights.is_file() else MISSING


def wordings() -> str:
    """SHA-256 of all that puts the laboratory's worlds into words."""
    files = sorted(PHRASINGS.glob("*.json"))
    return sum_of({path.name: json.loads(path.read_text("utf-8")) for path in files})


def changed(claim: Claim[Any], result: dict[str, Any]) -> list[str]:
    """What a result depends on and is no longer as it was; nothing: the result stands."""
    now = dependencies(claim, claim.settings(result["reduced"]))
    if sum_of(now) == result["fingerprint"]:
        return []
    return _differences(result["depends on"], now) or ["the fingerprint itself"]


def _differences(then: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted({*then, *now})
            for line in _differences(
                then.get(key, "nothing"), now.get(key, "nothing"), f"{path}{key}, "
            )
        ]
    if then == now:
        return []
    return [f"{path.rstrip(', ')} ({_short(then)} then, {_short(now)} now)"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


# ----------------------------------------------------------------------------------------- results


def run_claim(
    claim: Claim[Any], bench: Workbench, out: Path, *, reduced: bool = False
) -> dict[str, Any]:
    """Run a claim's experiment and write ``ID.json`` and ``ID.png``.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    DiskError
        If a piece or the result can't be written.
    """
    figure = new_figure(*claim.size)  # what is missing for the picture should be known now
    settings = claim.settings(reduced)
    depends_on = dependencies(claim, settings)
    with bench.progress(claim.id, sum(planned.pieces for planned in claim.plan(settings))):
        verdict = claim.run(settings, bench)
    value, low, high = (round(x, 4) for x in verdict.number)
    result = {
        "claim": claim.id,
        "sentence": claim.sentence,
        "rule": claim.rule,
        "reduced": reduced,
        "verdict": " ".join(filter(None, (verdict.says, verdict.when))),
        "reason": verdict.reason,
        "number": value,
        "interval": [low, high],
        "what the number is": verdict.what,
        "seeds": depends_on["seeds"],
        "command": claim.command(reduced),
        "seconds": round(bench.seconds, 1),
        "machines": bench.machines,
        "fingerprint": sum_of(depends_on),
        "depends on": depends_on,
        "results": verdict.results,
    }
    claim.draw(figure, verdict.results)
    save_png(figure, out / f"{claim.id}.png")
    write_text_atomically(out / f"{claim.id}.json", json.dumps(result, indent=1) + "\n")
    return result


def read_result(claim: Claim[Any], root: Path) -> dict[str, Any] | None:
    """A claim's result in a directory; None if it has not been measured yet.

    Raises
    ------
    DataError
        If its file is damaged or something else.
    """
    path = root / f"{claim.id}.json"
    try:
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        whole = result["claim"] == claim.id and result.keys() >= _FIELDS
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} can't be read ({error}): {_again(claim)}") from error
    if not whole:
        raise DataError(f"{path} is no result of claim {claim.id}: {_again(claim)}")
    return result


_FIELDS = {
    "verdict", "reason", "number", "interval", "what the number is", "seeds", "command", "reduced",
    "fingerprint", "depends on",
}  # fmt: skip


def _again(claim: Claim[Any]) -> str:
    return f"measure it again with `{claim.command(False)}`."
