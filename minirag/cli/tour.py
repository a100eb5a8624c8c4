"""``minirag tour``: fine-tuning and RAG side by side, in about a minute."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any

from minirag.cli.answers import plain
from minirag.cli.bases import cached_under, check_counts, import_torch, load_encoder, show_bars

if TYPE_CHECKING:
    from minirag.combination.arms import ReaderName
    from minirag.combination.tour import Part, Table
    from minirag.combination.tour_texts import Texts
    from minirag.corpus.world import World
    from minirag.retrieval.knowledge_base import KnowledgeBase

_DESCRIPTION = """\
Fine-tuning and RAG side by side, in about a minute and without a network: the
same medical questions to five arms, then a guideline changes and they are asked
again, then a question that no document answers, then all arms on all kinds of
questions. The medicine is invented, so that nobody can know it from elsewhere;
which questions are asked is drawn by --seed, and wrong answers are shown.

examples:
  minirag tour
  minirag tour --language es
  minirag tour --raft runs/gpt-base-medicine-raft   # a reader of your own
"""
_WIDTH = 80


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``tour`` to the command line."""
    parser = subparsers.add_parser(
        "tour",
        help="see fine-tuning and RAG side by side, in a minute",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--language", choices=("en", "es"), default="en", help="default: en")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the questions (default: 0)"
    )
    parser.add_argument(
        "--questions",
        type=int,
        default=20,
        metavar="N",
        help="of each kind, in the table at the end (default: 20)",
    )
    for option, what in (
        ("--base", "the reader as it was pretrained"),
        ("--closed-book", "the reader fine-tuned on facts; its world is toured"),
        ("--raft", "the reader fine-tuned to read passages"),
    ):
        parser.add_argument(
            option, type=Path, metavar="DIR", help=f"{what} (default: the shipped one)"
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the parts of the tour as they come."""
    began = time.perf_counter()
    import_torch()
    from minirag.combination.live import learned_world, reader_directory, training_of
    from minirag.combination.tour import Cast, tour
    from minirag.combination.tour_texts import texts_in
    from minirag.rag.reading import TrainedReader

    check_counts(args, "questions")
    given: dict[ReaderName, Path | None]
    given = {"base": args.base, "closed-book": args.closed_book, "raft": args.raft}
    places = {name: reader_directory(name, "medicine", place) for name, place in given.items()}
    world = learned_world("medicine", places["closed-book"])
    cast = Cast(
        world,
        args.language,
        {name: TrainedReader.load(place) for name, place in places.items()},
        lambda: _library(world, args.language, show_bars(args)),
        training_of(places["closed-book"]),
    )
    parts = tour(cast, seed=args.seed, n=args.questions, progress=show_bars(args))
    said = texts_in(args.language)
    if args.json:
        values = {
            "language": args.language,
            "seed": args.seed,
            "world_seed": world.seed,
            "readers": {name: str(place) for name, place in places.items()},
            "chapters": list(_chapters(parts)),
            "seconds": round(time.perf_counter() - began, 1),
        }
        print(json.dumps(values, indent=2, ensure_ascii=False))
        return 0
    printer = _Printer(said, coloured=_has_colours())
    for part in parts:
        printer.take(part)
    language = "" if args.language == "en" else f" --language {args.language}"
    printer.paragraph(said.took.format(seconds=f"{time.perf_counter() - began:.0f}"))
    printer.paragraph(said.on.format(command=f'minirag ask "..." --domain medicine{language}'))
    return 0


def _library(world: World, language: str, progress: bool) -> KnowledgeBase:
    """The world's collection, from the cache as far as it is there."""
    from minirag.combination.collection import ENCODER, collection_documents

    documents = collection_documents(world, language)
    name = f"laboratory {world.domain.name} {language} of {world.seed}"
    return cached_under(name, documents, load_encoder(ENCODER, "auto"), None, progress)[0]


# -- for people ------------------------------------------------------------------------------------


def _has_colours() -> bool:
    """Colours are for terminals, and for people who have not said no (https://no-color.org)."""
    return (
        sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "") != "dumb"
    )


_GREEN, _RED, _BOLD, _FAINT = "32", "31", "1", "2"


class _Printer:
    """Parts of a tour as text, at most 80 columns wide."""

    def __init__(self, said: Texts, *, coloured: bool) -> None:
        self.said, self.coloured = said, coloured
        self.width = min(get_terminal_size().columns, _WIDTH)
        self.arms = max(map(len, said.arms.values())) + 2

    def take(self, part: Part) -> None:
        """Print a part, at once."""
        from minirag.combination.tour import Asked, Begun, Changed, Noticed, Reply, Table

        match part:
            case Begun():
                print("\n" + self.painted(_BOLD, f"{part.number}  {part.title}"))
                self.paragraph(part.introduction)
            case Asked():
                right = self.said.right_refusal
                if part.right is not None:
                    right = f"{self.said.right_answer}: {part.right}"
                self.paragraph(part.question, _BOLD)
                self.paragraph(f"({part.kind}; {right})", _FAINT, gap=False)
            case Reply():
                self.reply(part)
            case Changed():
                self.paragraph(f"{part.title} ({part.document})", _BOLD)
                self.paragraph(f"{self.said.before}: {part.before}")
                self.paragraph(f"{self.said.after}: {part.after}", gap=False)
            case Table():
                self.table(part)
            case Noticed():
                self.paragraph(f"{self.said.notice}: {part.text}")
                self.paragraph(f"{self.said.read_on}: {part.read_on}", gap=False)
        sys.stdout.flush()

    def painted(self, colour: str, text: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if self.coloured else text

    def paragraph(self, text: str, colour: str = "", *, gap: bool = True) -> None:
        if gap:
            print()
        for line in textwrap.wrap(
            plain(" ".join(text.split())), self.width, break_on_hyphens=False
        ):
            print(self.painted(colour, line) if colour else line)

    def reply(self, reply: Any) -> None:
        """One line for an arm, if it fits: its name, right or wrong, the answer, its source."""
        answer = reply.answer
        if answer is None:
            answer = self.said.refused if reply.given else self.said.unknown
            if reply.unmentioned:
                answer = self.said.unmentioned
        elif reply.given:
            answer += f" [{'; '.join(reply.sources) or self.said.no_source}]"
        if reply.stale:
            answer += f" ({self.said.stale})"
        mark = self.painted(*((_GREEN, "✓") if reply.right else (_RED, "✗")))
        indent = self.arms + 4
        first, *rest = textwrap.wrap(
            plain(" ".join(answer.split())), self.width - indent, break_on_hyphens=False
        )
        print(f"  {reply.arm:<{self.arms}}{mark} {first}")
        for line in rest:
            print(" " * indent + line)

    def table(self, table: Table) -> None:
        """Arms down, slices across; the intervals below the shares."""
        columns = self.said.columns
        print("\n" + " " * self.arms + "".join(f"{name:>10}" for name in columns.values()))
        for arm in dict.fromkeys(cell.arm for cell in table.cells):
            row = {cell.slice: cell.right for cell in table.cells if cell.arm == arm}
            shares = "".join(f"{100 * row[slice].value:>10.0f}" for slice in columns)
            ranges = "".join(
                f"{f'{100 * row[slice].low:.0f}-{100 * row[slice].high:.0f}':>10}"
                for slice in columns
            )
            print(f"{arm:<{self.arms}}{shares}")
            print(" " * self.arms + self.painted(_FAINT, ranges))


# -- for programs ----------------------------------------------------------------------------------


def _chapters(parts: Iterable[Part]) -> Iterator[dict[str, Any]]:
    """The parts as plain values, put together to chapters."""
    from minirag.combination.tour import Asked, Begun, Changed, Noticed, Reply, Table

    chapter: dict[str, Any] = {}
    for part in parts:
        values = dataclasses.asdict(part)
        match part:
            case Begun():
                chapter = values | {"questions": []}
            case Asked():
                chapter["questions"].append(values | {"replies": []})
            case Reply():
                chapter["questions"][-1]["replies"].append(values)
            case Changed():
                chapter["changed"] = values
            case Table():
                chapter["table"] = values
            case Noticed():
                yield chapter | {"notice": part.text, "read_on": part.read_on}
