"""``minirag faq``: frequent questions with answers that a person wrote, asked and kept current."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from minirag.cli.answers import plain, print_wrapped
from minirag.cli.ask import threshold
from minirag.errors import DataError, MiniragError, UsageError

if TYPE_CHECKING:
    from minirag.rag.faq import Faq, FaqReply

_DESCRIPTION = """\
Answer frequent questions word for word as a person wrote it. A question is
compared with the stored ones; the answer of the nearest is given if it is near
enough, else that is said, with what was measured of the threshold. Nothing is
generated. By words, nearly all of them must agree; --encoder compares what is
meant. Entries are JSON lines:
{"id": "hours", "question": "When do you open?", "answer": "At nine."}

`faq ask FILE` without a question takes one a line until the input ends, and
each is asked of the file as it is by then.

examples:
  minirag faq add faq.jsonl --id hours --question "When do you open?" \\
      --answer "At nine."
  minirag faq ask faq.jsonl "when do you open"
  minirag faq ask faq.jsonl "At what time do you open?" \\
      --encoder all-MiniLM-L6-v2
  minirag faq change faq.jsonl hours --answer "At ten."
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``faq`` to the command line."""
    parser = subparsers.add_parser(
        "faq",
        help="keep frequent questions with their answers, and ask them",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        sentence = f"{summary[0].upper()}{summary[1:]}."
        made = actions.add_parser(name, help=summary, description=sentence)
        made.add_argument("file", type=Path, metavar="FILE", help="the entries, as JSON lines")
        made.add_argument("--json", action="store_true", help="print JSON")
        return made

    ask = action("ask", "answer a question with an entry's answer, if one is near enough")
    ask.add_argument("question", nargs="?", metavar="QUESTION", help="default: one a line of input")
    ask.add_argument(
        "--threshold",
        type=threshold,
        metavar="LIKENESS",
        help="least likeness, up to 1, to be taken for the same question (default: as measured)",
    )
    ask.add_argument(
        "--encoder", metavar="MODEL", help="compare by vectors (default: by words, no model)"
    )
    ask.set_defaults(run=_ask)
    add = action("add", "add an entry; the file is made if there is none")
    add.add_argument("--question", required=True, metavar="TEXT", help="as people ask it")
    add.add_argument("--answer", required=True, metavar="TEXT", help="given word for word")
    add.add_argument("--id", metavar="ID", help="default: made from the question")
    add.set_defaults(run=_add)
    change = action("change", "change an entry")
    change.add_argument("id", metavar="ID", help="of the entry, as `faq list` shows it")
    change.add_argument("--question", metavar="TEXT", help="how it is asked from now on")
    change.add_argument("--answer", metavar="TEXT", help="what is answered from now on")
    change.set_defaults(run=_change)
    remove = action("remove", "remove entries")
    remove.add_argument("ids", nargs="+", metavar="ID", help="as `faq list` shows them")
    remove.set_defaults(run=_remove)
    action("list", "print all entries").set_defaults(run=_list)


def _load(path: Path) -> Faq:
    """The entries, to be changed: how they are compared does not matter."""
    from minirag.rag.faq import Faq

    if not path.exists():
        raise DataError(f"there is no FAQ {path}: check the name, or make one with `faq add`.")
    return Faq.load(path)


# -- asking ----------------------------------------------------------------------------------------


def _ask(args: argparse.Namespace) -> int:
    from minirag.cli.bases import load_encoder
    from minirag.rag.faq import Faq
    from minirag.rag.faq_threshold import rates_at_default

    if args.question is not None and not args.question.strip():
        raise UsageError("the question is empty: ask something, in quotation marks.")
    _load(args.file)  # a bad file is told before a model is loaded
    encoder = None if args.encoder is None else load_encoder(args.encoder, "auto")
    faq = Faq.load(args.file, encoder, threshold=args.threshold)
    rates = ""
    if args.threshold is None:
        rates = rates_at_default("words" if encoder is None else encoder.name)
    if args.question is not None:
        _print(faq.ask(args.question), args.json, rates)
        return 0
    seen = _state_of(args.file)
    try:
        for question in _questions():
            try:
                if (now := _state_of(args.file)) != seen:
                    faq.update_from(_load(args.file).entries)
                    seen = now
            except MiniragError as error:  # half-edited by hand, say: the entries before stand
                print(f"warning: not read again: {error}", file=sys.stderr)
            reply = faq.ask(question)
            _print(reply, args.json, rates)
            if reply.entry is None:
                rates = ""  # once is enough
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


def _questions() -> Iterator[str]:
    if sys.stdin.isatty():
        with contextlib.suppress(EOFError):  # Ctrl-D
            while True:
                if question := input("? ").strip():
                    yield question
        print()
        return
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="replace")
    for line in sys.stdin:
        if line.strip():
            yield line.strip()


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written again."""
    with contextlib.suppress(OSError):
        about = path.stat()
        return about.st_mtime_ns, about.st_size, about.st_ino
    return None


def _print(reply: FaqReply, as_json: bool, rates: str) -> None:
    """The reply; where there is no answer, also how often that is so, and how often it is wrong."""
    if as_json:
        values = {
            "question": reply.question,
            "answer": reply.entry.answer if reply.entry else None,
            "id": reply.entry.id if reply.entry else None,
            "likeness": round(reply.likeness, 4),
            "threshold": reply.threshold,
            "nearest": asdict(reply.nearest) if reply.nearest else None,
        }
        print(json.dumps(values, ensure_ascii=False), flush=True)
        return
    if reply.entry is not None:
        print(plain(reply.text))
        print(
            plain(f"    [{reply.entry.id}] {reply.entry.question}  likeness {reply.likeness:.2f}")
        )
    else:
        print_wrapped(reply.text)
        if rates and reply.nearest is not None:
            print_wrapped(rates, indent="    ")
    sys.stdout.flush()


# -- changing --------------------------------------------------------------------------------------


def _add(args: argparse.Namespace) -> int:
    from minirag.rag.faq import Faq, FaqEntry

    id = args.id or hashlib.sha256(args.question.encode()).hexdigest()[:8]
    with _changing(args.file):
        faq = _load(args.file) if args.file.exists() else Faq()
        faq.add([FaqEntry(id, args.question, args.answer)])
        faq.save(args.file)
    return _said(args, faq, "added", id)


def _change(args: argparse.Namespace) -> int:
    from minirag.rag.faq import FaqEntry

    if args.question is None and args.answer is None:
        raise UsageError("there is nothing to change: give --question, --answer, or both.")
    with _changing(args.file):
        faq = _load(args.file)
        old = faq.entry(args.id)
        question = old.question if args.question is None else args.question
        answer = old.answer if args.answer is None else args.answer
        faq.change(FaqEntry(args.id, question, answer))
        faq.save(args.file)
    return _said(args, faq, "changed", args.id)


def _remove(args: argparse.Namespace) -> int:
    with _changing(args.file):
        faq = _load(args.file)
        faq.remove(args.ids)
        faq.save(args.file)
    return _said(args, faq, "removed", *args.ids)


@contextlib.contextmanager
def _changing(path: Path) -> Iterator[None]:
    """Around loading and saving, so that no other process's entry gets lost between."""
    from minirag.files import locked

    with locked(path.parent) if path.parent.is_dir() else contextlib.nullcontext():
        yield


def _said(args: argparse.Namespace, faq: Faq, what: str, *ids: str) -> int:
    if args.json:
        print(json.dumps({"faq": str(args.file), what: list(ids), "entries": len(faq)}))
    else:
        entries = "1 entry" if len(faq) == 1 else f"{len(faq):,} entries"
        print(f"{args.file}: {what} {', '.join(ids)}; now {entries}")
    return 0


def _list(args: argparse.Namespace) -> int:
    entries = _load(args.file).entries
    if args.json:
        print(json.dumps([asdict(entry) for entry in entries], ensure_ascii=False, indent=1))
        return 0
    for entry in entries:
        print(plain(f"[{entry.id}] {entry.question}\n    {entry.answer}"))
    return 0
