"""``minirag choose``: which arm to take, with its evidence and its cost."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirag.cli.answers import text_width
from minirag.errors import UsageError

if TYPE_CHECKING:
    from minirag.choosing.rules import Needs

_DESCRIPTION = """\
Fine-tuning, retrieval or both? Seven answers about your case, and the advisor
says which of the five arms to take: by the measured map (`minirag map`) and a
few rules, with the cell of the map that it rests on, the costs, and what would
change its mind. Outside the map it says "not measured".

At a terminal and without options it asks; with options, what is not given has
its default. The map was measured with small models on an invented domain:
trust its order of the arms, not its seconds.

examples:
  minirag choose
  minirag choose --wording disjoint --volatility 0.5 --entities 300 --cite
  minirag choose --volatility 0 --questions-a-day 100000 --json
"""


@dataclass(frozen=True)
class _Question:
    """One thing that the advisor asks."""

    name: str  # the field of Needs
    option: str
    asks: str
    read: Callable[[str], Any]
    default: Any
    hint: str  # what may be answered


def _wording(text: str) -> str:
    words = ("shared", "half", "disjoint")  # written out: importing what defines them is slow
    if text not in words:
        raise ValueError(f"give {', '.join(words)}")
    return text


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError("give a share from 0 to 1, or a percentage such as 25%")
    return share


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            number = int(text.replace(",", ""))
        except ValueError:
            number = least - 1
        if number < least:
            raise ValueError(f"give a whole number, {least} or more")
        return number

    return read


def _enough(text: str) -> int | None:
    return None if text == "enough" else _whole(0)(text)


def _yes(text: str) -> bool:
    if text.lower() not in ("yes", "y", "no", "n"):
        raise ValueError("give yes or no")
    return text.lower() in ("yes", "y")


def _seconds(text: str) -> float | None:
    if text == "any":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError("give seconds above 0, or any")
    return seconds


_QUESTIONS = (
    _Question(
        "specialisation", "--wording",
        "How specific is the domain? Does it say things as general text does (shared), half of "
        "them (half), or in phrases of its own (disjoint)?",
        _wording, "disjoint", "shared, half, disjoint",
    ),
    _Question(
        "volatility", "--volatility",
        "How volatile is it? The share of the facts that change in a year, at the beginning of "
        "which you would train, if at all.",
        _share, 0.25, "a share, or a percentage",
    ),
    _Question(
        "entities", "--entities",
        "How large is the knowledge? The number of things (drugs, statutes, products) that the "
        "documents are about, one document each.",
        _whole(1), 300, "a number",
    ),
    _Question(
        "questions_a_day", "--questions-a-day",
        "How many questions a day will be asked? The more, the more the time of an answer weighs.",
        _whole(0), 100, "a number",
    ),
    _Question(
        "labelled", "--labelled",
        "How many questions with their right answers do you have, or could you make, to train on?",
        _enough, None, "a number, or enough: as many as it takes",
    ),
    _Question(
        "citations", "--cite",
        "Must every answer name the document that it comes from?",
        _yes, False, "yes, no",
    ),
    _Question(
        "latency", "--latency",
        "How many seconds may an answer take, on a machine like the one that measured?",
        _seconds, None, "seconds, or any",
    ),
)  # fmt: skip


def _shown(question: _Question) -> str:
    """A default as one would type it."""
    none = {"labelled": "enough", "latency": "any"}
    value = none.get(question.name, "no") if not question.default else question.default
    return str(value)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``choose`` to the command line."""
    parser = subparsers.add_parser(
        "choose",
        help="fine-tuning, retrieval or both: advice from the map",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    for question in _QUESTIONS:
        answers = f"{question.hint}; default: {_shown(question)}"
        text = f"{question.asks} ({answers})".replace("%", "%%")
        if question.read is _yes:
            add(question.option, dest=question.name, action="store_const", const="yes",
                help="every answer must name its source")  # fmt: skip
        else:
            add(question.option, dest=question.name, metavar="ANSWER", help=text)
    add("--map", type=Path, metavar="FILE", help="default: the one that comes with minirag")
    add("--json", action="store_true", help="print one JSON object, ask nothing")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask or read the answers, and print the advice."""
    from minirag.choosing.advisor import advise, said
    from minirag.choosing.measured_map import MeasuredMap, shipped_map

    given = any(getattr(args, question.name) is not None for question in _QUESTIONS)
    ask = not given and not args.json and sys.stdin.isatty()
    needs = None if ask else _given(args)  # a wrong option is told first, whatever the map
    measured = MeasuredMap.load(args.map or shipped_map())  # before anything is asked
    needs = needs or _ask()
    advice = advise(measured, needs)
    if args.json:
        print(json.dumps(advice.as_json(), indent=2, ensure_ascii=False))
        return 0
    for line in (f"you: {'; '.join(said(needs))}.", "", *advice.lines()):
        print(_wrapped(line))
    return 0


def _wrapped(line: str) -> str:
    """A line with its own spaces, or several; in a list, what goes on stands further in."""
    indent = len(line) - len(line.lstrip())
    return textwrap.fill(
        line,
        text_width(),
        subsequent_indent=" " * (indent + 2) if indent else "",
        break_on_hyphens=False,
    )


def _given(args: argparse.Namespace) -> Needs:
    """The answers as options; what is not given has its default."""
    from minirag.choosing.rules import Needs

    answers = {}
    for question in _QUESTIONS:
        text, answers[question.name] = getattr(args, question.name), question.default
        if text is not None:
            try:
                answers[question.name] = question.read(text)
            except ValueError as error:
                raise UsageError(f"{question.option} is {text!r}: {error}.") from None
    return Needs(**answers)


def _ask() -> Needs:
    """The answers of somebody at a terminal; Enter takes the default."""
    from minirag.choosing.rules import Needs

    print("Seven questions; Enter takes what stands in brackets.\n")
    answers = {}
    for question in _QUESTIONS:
        print(_wrapped(f"{question.asks} ({question.hint})"))
        while True:
            try:
                text = input(f"[{_shown(question)}] ").strip()
            except EOFError:
                raise UsageError(
                    "the answers ended before the questions did: give them as options, see "
                    "`minirag choose --help`."
                ) from None
            try:
                answers[question.name] = question.read(text) if text else question.default
                break
            except ValueError as error:
                print(f"{text!r} is no answer to that: {error}.")
        print()
    return Needs(**answers)
