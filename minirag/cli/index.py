"""``minirag index``: make a knowledge base of a folder of text, or bring one up to date."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from minirag.cli.bases import (
    add_encoder_options,
    changing,
    counted,
    import_torch,
    load_encoder,
    open_base,
    print_report,
    show_bars,
)
from minirag.cli.laboratory import Label
from minirag.errors import StoreError, UsageError

if TYPE_CHECKING:
    from minirag.retrieval.knowledge_base import Changes, KnowledgeBase

_DESCRIPTION = """\
Read documents, cut them into passages, and keep text and vectors together in a
knowledge base.

DOCS is a folder of .md and .txt files (read with its subfolders), one such
file, or a .jsonl with one {"id": ..., "text": ..., "title": ...} a line. Where
--out holds a knowledge base already, only what changed since is read again:
documents that are gone from DOCS are removed from it.

examples:
  minirag index handbook --out kb
  minirag index pages.jsonl --out kb --size 128 --overlap 16
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``index`` to the command line."""
    parser = subparsers.add_parser(
        "index",
        help="make a knowledge base of a folder of text",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("docs", type=Path, metavar="DOCS", help="a folder or a file of text")
    parser.add_argument("--out", type=Path, required=True, metavar="KB", help="where to save it")
    parser.add_argument(
        "--size",
        type=int,
        metavar="N",
        help="tokens of a passage, at most (default: 256, or the encoder's)",
    )
    parser.add_argument(
        "--overlap",
        type=int,
        metavar="N",
        help="tokens that neighbours share (default: an eighth of --size)",
    )
    add_encoder_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build or update the knowledge base and say what happened."""
    began = time.perf_counter()
    import_torch()
    from minirag.text.report import Report

    report = Report()
    with changing(args.out):
        base = _base_to_update(args)
        changes = base.update_from(args.docs, progress=show_bars(args), report=report)
        base.save(args.out)
    seconds = time.perf_counter() - began
    gone = _all_gone(args, changes)
    print_report(report)
    for line in gone:
        print(f"warning: {line}", file=sys.stderr)
    if args.json:
        print(
            json.dumps(
                {
                    "knowledge_base": str(args.out),
                    "documents": len(base),
                    "passages": len(base.passages),
                    "added": changes.added,
                    "changed": changes.changed,
                    "removed": changes.removed,
                    "unchanged": changes.unchanged,
                    "encoder": {
                        "name": base.encoder.name,
                        "fingerprint": base.encoder.fingerprint,
                    },
                    "warnings": [*map(str, report.notes), *gone],
                    "seconds": round(seconds, 3),
                },
                indent=2,
                ensure_ascii=False,
            )
        )
        return 0
    print(
        f"{args.out}: {counted(len(base), 'document')}, {counted(len(base.passages), 'passage')}"
        f", encoded by {base.encoder.name}\n"
        f"{changes.added:,} added, {changes.changed:,} changed, {changes.removed:,} removed, "
        f"{changes.unchanged:,} as before; {seconds:.1f} s"
    )
    return 0


def _all_gone(args: argparse.Namespace, changes: Changes) -> list[str]:
    """A sentence where nothing of what was there is left: perhaps DOCS or --out is another one."""
    if not changes.removed or changes.changed or changes.unchanged:
        return []
    return [
        f"{args.docs} has none of the documents that {args.out} held: all of them were removed "
        f"({changes.removed:,}). If they were meant to stay, index them again, and use "
        f"`minirag kb add {args.out} {args.docs}` to add to them."
    ]


def _base_to_update(args: argparse.Namespace) -> KnowledgeBase:
    """The knowledge base that is there, or an empty one."""
    from minirag.files import MANIFEST, holds_leftovers_only
    from minirag.retrieval.knowledge_base import KnowledgeBase

    label = Label.read(args.out)
    if label is not None:  # its own readers would be asked about documents they can't read
        raise StoreError(
            f"{args.out} holds the laboratory's {label.domain}, and indexing would remove all of "
            "its documents: choose another --out, or add to it with `minirag kb add`."
        )
    if (args.out / MANIFEST).exists():
        try:
            base = open_base(args.out, args.encoder, args.precision)
        except StoreError as error:
            raise StoreError(f"{error} To begin anew, delete {args.out} first.") from error
        for name in ("size", "overlap"):
            given, kept = getattr(args, name), getattr(base, name)
            if given not in (None, kept):
                raise UsageError(
                    f"{args.out} was made with --{name} {kept}, and {given} is asked for: "
                    "choose another --out, or delete it first."
                )
        return base
    if args.out.exists() and (not args.out.is_dir() or not holds_leftovers_only(args.out)):
        raise StoreError(
            f"{args.out} exists and is no knowledge base: choose a new or empty directory."
        )
    encoder = load_encoder(args.encoder, args.precision)
    return KnowledgeBase(encoder, size=args.size, overlap=args.overlap)
