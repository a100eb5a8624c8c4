"""``minirag world``: look at the laboratory's invented world, or write it out as files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from minirag.cli.bases import check_counts
from minirag.corpus.dice import Dice
from minirag.corpus.export import export_world
from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.world import DOMAINS, Record, World, WorldDocument, draw_world

_DESCRIPTION = """\
Print documents of the laboratory's invented world, each with two questions and
their true answers, or write a whole world out as Markdown and JSON lines.

Behind a document's id and date stands its group, which says what a fine-tuning
may learn of it and what becomes of it afterwards:

  stable        learned in fine-tuning, and as it was ever since
  unseen        never learned, always in the knowledge base
  updated       learned as it was, then revised: shown as it is now
  new           came after the fine-tuning
  unanswerable  in the knowledge base, but asked for what it does not say

examples:
  minirag world --domain medicine
  minirag world --domain law --language es --show 1
  minirag world --domain medicine --seed 7 --export worlds/medicine-7
"""
_NO_ANSWER = {"en": "(the document does not say)", "es": "(el documento no lo dice)"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``world`` to the command line."""
    parser = subparsers.add_parser(
        "world",
        help="look at the invented world that the laboratory measures in, or export it",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--domain", choices=tuple(DOMAINS), default="general", help="default: general")
    add("--language", choices=LANGUAGES, default="en", help="of the documents (default: en)")
    add("--show", type=int, metavar="N", help="print N documents (default: 3)")
    add("--seed", type=int, default=0, metavar="N", help="which world to draw (default: 0)")
    add("--export", type=Path, metavar="DIR", help="write all documents and questions into DIR")
    add("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show or export a world; returns the exit code."""
    check_counts(args, "show")
    world = draw_world(args.domain, args.seed)
    said: dict[str, Any] = {"domain": args.domain, "language": args.language, "seed": args.seed}
    if args.export is not None:
        said["files"] = export_world(world, args.language, args.export)
        said["directory"] = str(args.export)
    if args.export is None or args.show is not None:
        said["documents"] = _samples(world, args.language, 3 if args.show is None else args.show)
    if args.json:
        print(json.dumps(said, ensure_ascii=False, indent=1))
        return 0
    if args.export is not None:
        print(f"Wrote {said['files']} files into {args.export}.")
    if "documents" in said:
        print("\n\n".join(_as_text(sample, args.language) for sample in said["documents"]))
    return 0


def _samples(world: World, language: str, n: int) -> list[dict[str, Any]]:
    documents = {document.id: document for document in world.documents(language)}
    records = Dice(world.seed, "show", world.domain.name).sample(world.records, n)
    return [_sample(world, record, documents[record.id], language) for record in records]


def _sample(world: World, record: Record, document: WorldDocument, language: str) -> dict[str, Any]:
    """A record's current document with two questions, or what is asked of an unanswerable one."""
    phrasings, dice = world.phrasings(language), Dice(world.seed, "show", record.id, language)
    name, facts = getattr(record.entity.name, language), record.current.facts
    asked = tuple(facts)
    if record.group == "unanswerable":
        asked = tuple(key for key in world.domain.kinds[record.entity.kind] if key not in facts)
    questions = [
        {
            "question": phrasings.attributes[key].question(dice).fill({"name": name}),
            "answer": getattr(facts[key], language).text if key in facts else None,
        }
        for key in dice.sample(asked, 2)
    ]
    return {
        "id": document.id,
        "group": record.group,
        "date": document.date.isoformat(),
        "title": document.title,
        "text": document.text,
        "questions": questions,
    }


def _as_text(sample: dict[str, Any], language: str) -> str:
    no = _NO_ANSWER[language]
    head = f"{sample['title']}  ({sample['id']}, {sample['date']}, {sample['group']})"
    asked = [f"  {q['question']}\n    {q['answer'] or no}" for q in sample["questions"]]
    return "\n".join([head, sample["text"], *asked])
