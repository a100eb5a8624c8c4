"""``minirag world``: look at the laboratory's invented world, or write it out as files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minirag.corpus.dice import Dice
from minirag.corpus.export import export_world
from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.world import DOMAINS, Record, World, WorldDocument, draw_world
from minirag.errors import UsageError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``world`` to the command line."""
    parser = subparsers.add_parser(
        "world",
        help="look at the invented world that the laboratory measures in, or export it",
        description=(
            "Print documents of the laboratory's invented world with questions and their true "
            "answers, or write a whole world out as Markdown and JSON lines."
        ),
    )
    parser.add_argument("--domain", choices=tuple(DOMAINS), default="general")
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--show", type=int, metavar="N", help="print N documents (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="which world to draw (default: 0)")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="write all documents and questions into DIR"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show or export a world; returns the exit code."""
    if args.show is not None and args.show < 0:
        raise UsageError(f"--show is {args.show}: give 0 or more.")
    world = draw_world(args.domain, args.seed)
    if args.export is not None:
        n_files = export_world(world, args.language, args.export)
        if args.json:
            print(json.dumps({"directory": str(args.export), "files": n_files}))
        else:
            print(f"Wrote {n_files} files into {args.export}.")
        if args.show is None:
            return 0
    n = 3 if args.show is None else args.show
    documents = {document.id: document for document in world.documents(args.language)}
    shown = [
        _sample(world, record, documents[record.id], args.language)
        for record in Dice(args.seed, "show", args.domain).sample(world.records, n)
    ]
    if args.json:
        print(json.dumps(shown, ensure_ascii=False, indent=1))
    else:
        print("\n\n".join(_as_text(sample) for sample in shown))
    return 0


def _sample(
    world: World, record: Record, document: WorldDocument, language: str
) -> dict[str, object]:
    """A record's current document and two questions about it."""
    phrasings, dice = world.phrasings(language), Dice(world.seed, "show", record.id, language)
    name = getattr(record.entity.name, language)
    questions = [
        {
            "question": phrasings.attributes[key].question(dice).fill({"name": name}),
            "answer": getattr(record.current.facts[key], language).text,
        }
        for key in dice.sample(tuple(record.current.facts), 2)
    ]
    return {
        "id": document.id,
        "group": record.group,
        "date": document.date.isoformat(),
        "title": document.title,
        "text": document.text,
        "questions": questions,
    }


def _as_text(sample: dict[str, object]) -> str:
    questions = sample["questions"]
    assert isinstance(questions, list)
    head = f"{sample['title']}  ({sample['id']}, {sample['date']}, {sample['group']})"
    asked = [f"  {q['question']}\n    {q['answer']}" for q in questions]
    return "\n".join([head, str(sample["text"]), *asked])
