"""``minirag kb``: look at a knowledge base, and change it document by document."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirag.cli.answers import plain
from minirag.cli.bases import (
    RETRIEVER,
    add_encoder_options,
    changing,
    counted,
    import_torch,
    load_encoder,
    open_base,
    print_report,
    show_bars,
)
from minirag.cli.laboratory import DOMAINS, Label, relearning
from minirag.errors import StoreError, UsageError

if TYPE_CHECKING:
    from minirag.retrieval.knowledge_base import KnowledgeBase

_NAMED = 5  # documents, where one is asked for that is not there

_DESCRIPTION = """\
Look at a knowledge base that `minirag index` made, and change it document by
document. The next question sees the change; nothing is trained again.

examples:
  minirag kb info kb
  minirag kb plot kb --question "How do I freeze the first row?" --out kb.png
  minirag kb add kb newpage.md   # or a folder; replaces documents by name
  minirag kb remove kb newpage.md
  minirag kb new medicine --domain medicine   # one of the laboratory's
  minirag kb show medicine medicine-drug-1
  minirag kb change medicine medicine-drug-1 --text "..."
"""

_NEW = """\
Make a knowledge base of one of the laboratory's domains: the invented medicine,
law, or news of the invented country. Its documents are those that the shipped
fine-tuned readers have learned from, as far as they may have, and newer ones.
`minirag ask "..." --kb DIR` answers from it with our own readers; change it,
and the next answer reflects it.
"""

_PLOT = """\
Draw the passages' vectors in the plane that keeps most of their spread
(principal components), coloured by the cell of the IVF index that they lie in.
With --question: where it falls, the cells that a search with --nprobe looks
into, and the passages that it finds. Needs matplotlib: pip install
'minirag[plots]'.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``kb`` to the command line."""
    parser = subparsers.add_parser(
        "kb",
        help="look at a knowledge base, draw it, change single documents",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")

    def action(name: str, summary: str, description: str = "") -> argparse.ArgumentParser:
        made = actions.add_parser(
            name,
            help=summary,
            description=description or f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument("kb", type=Path, metavar="KB", help="the knowledge base's directory")
        made.add_argument("--json", action="store_true", help="print one JSON object, no bars")
        return made

    new = action("new", "make one of the laboratory's documents", _NEW)
    new.add_argument("--domain", choices=DOMAINS, required=True, help="what it is about")
    new.add_argument("--language", choices=("en", "es"), default="en", help="default: en")
    new.add_argument(
        "--moment",
        choices=("before", "after"),
        default="after",
        help="the documents as they were when readers learned them, or as they are (default)",
    )
    add_encoder_options(new, RETRIEVER)
    new.set_defaults(run=_new)
    action("info", "what it holds, and which encoder made it").set_defaults(run=_info)
    show = action("show", "print one document")
    show.add_argument("id", metavar="DOCUMENT", help="as `ask` cites it")
    show.set_defaults(run=_show)
    add = action("add", "add documents; those of the same name are replaced")
    add.add_argument("docs", type=Path, metavar="DOCS", help="a file or a folder of text")
    add_encoder_options(add, "the knowledge base's own")
    add.set_defaults(run=_add)
    change = action("change", "replace the text of one document")
    change.add_argument("id", metavar="DOCUMENT", help="as `ask` cites it; it must be there")
    text = change.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", metavar="TEXT", help="what it says from now on")
    text.add_argument("--file", type=Path, metavar="FILE", help="a file that has the text")
    add_encoder_options(change, "the knowledge base's own")
    change.set_defaults(run=_change)
    remove = action("remove", "remove documents")
    remove.add_argument("ids", nargs="+", metavar="DOCUMENT", help="as `ask` cites it")
    add_encoder_options(remove, "the knowledge base's own")
    remove.set_defaults(run=_remove)
    plot = action("plot", "draw its vectors, their cells, and what a question looks into", _PLOT)
    plot.add_argument("--question", metavar="TEXT", help="draw its search, too")
    plot.add_argument("--nprobe", type=int, metavar="N", help="cells to look into")
    plot.add_argument("-k", type=int, default=4, metavar="N", help="passages (default: 4)")
    plot.add_argument(
        "--out", type=Path, default=Path("kb.png"), metavar="PNG", help="default: kb.png"
    )
    add_encoder_options(plot, "the knowledge base's own")
    plot.set_defaults(run=_plot)


def _new(args: argparse.Namespace) -> int:
    began = time.perf_counter()
    import_torch()
    from minirag.combination.collection import ENCODER
    from minirag.combination.live import live_documents
    from minirag.files import holds_leftovers_only
    from minirag.retrieval.knowledge_base import KnowledgeBase

    if args.kb.exists() and (not args.kb.is_dir() or not holds_leftovers_only(args.kb)):
        raise StoreError(f"{args.kb} exists and is not empty: choose a new or empty directory.")
    base = KnowledgeBase(load_encoder(args.encoder or ENCODER, args.precision))
    documents = live_documents(args.domain, args.language, moment=args.moment)
    changes = base.add(documents, progress=show_bars(args))
    base.save(args.kb)
    Label(args.domain, args.language).write(args.kb)
    _say(args, base, {"added": changes.added}, time.perf_counter() - began)
    return 0


def _show(args: argparse.Namespace) -> int:
    from minirag.retrieval.snapshot_files import load_snapshot

    documents = load_snapshot(args.kb)[0].documents
    document = documents.get(args.id)
    if document is None:
        some = ", ".join(list(documents)[:_NAMED])
        more = " and others" if len(documents) > _NAMED else ""
        raise UsageError(
            f"there is no document {args.id!r} in {args.kb}, which holds "
            f"{counted(len(documents), 'document')}: {some}{more}."
        )
    if args.json:
        print(json.dumps(vars(document), ensure_ascii=False))
    else:
        print(plain(f"{document.title}\n\n{document.text}" if document.title else document.text))
    return 0


def _change(args: argparse.Namespace) -> int:
    import_torch()
    from minirag.text.readers import read_documents
    from minirag.text.report import Report

    text, report = args.text, Report()
    if args.file is not None:
        found = list(read_documents(args.file, report))
        if len(found) > 1:
            raise UsageError(f"{args.file} holds {len(found)} documents: give a file with one.")
        text = found[0].text
    if not text.strip():
        raise UsageError("the new text is empty: to take a document out, use `minirag kb remove`.")
    with changing(args.kb):
        base = open_base(args.kb, args.encoder, args.precision)
        document = dataclasses.replace(base.document(args.id), text=text)
        began = time.perf_counter()
        changes = base.change(document, report=report)
        updated = time.perf_counter() - began
        base.save(args.kb)
    print_report(report)
    _say(args, base, {"changed": changes.changed, "unchanged": changes.unchanged}, updated)
    return 0


def _info(args: argparse.Namespace) -> int:
    from minirag.retrieval.knowledge_base import KnowledgeBase

    info = KnowledgeBase.info(args.kb)
    if args.json:
        print(json.dumps({"knowledge_base": str(args.kb), **vars(info)}))
        return 0
    print(
        f"{args.kb}: {counted(info.n_documents, 'document')}, "
        f"{counted(info.n_passages, 'passage')} of at most {info.size} tokens "
        f"({info.overlap} shared by neighbours)"
    )
    print(f"encoder: {info.encoder_name}, {info.dim} numbers a vector")
    lists = f"in {counted(info.n_lists, 'cell')}" if info.n_lists else "all, exactly"
    print(f"searched: {lists}")
    return 0


def _add(args: argparse.Namespace) -> int:
    import_torch()
    from minirag.text.readers import read_documents
    from minirag.text.report import Report

    report = Report()
    with changing(args.kb):
        base = open_base(args.kb, args.encoder, args.precision)
        documents = read_documents(args.docs, report)
        began = time.perf_counter()
        changes = base.upsert(documents, progress=show_bars(args), report=report)
        updated = time.perf_counter() - began
        base.save(args.kb)
    print_report(report)
    counts = {"added": changes.added, "changed": changes.changed, "unchanged": changes.unchanged}
    _say(args, base, counts, updated)
    return 0


def _remove(args: argparse.Namespace) -> int:
    import_torch()
    with changing(args.kb):
        base = open_base(args.kb, args.encoder, args.precision)
        began = time.perf_counter()
        changes = base.delete(args.ids)
        updated = time.perf_counter() - began
        base.save(args.kb)
    _say(args, base, {"removed": changes.removed}, updated)
    return 0


def _say(
    args: argparse.Namespace, base: KnowledgeBase, counts: dict[str, int], seconds: float
) -> None:
    trained = relearning(args.kb)
    if args.json:
        values: dict[str, Any] = {"knowledge_base": str(args.kb), **counts}
        values |= {"documents": len(base), "passages": len(base.passages)}
        values |= {"seconds": round(seconds, 4)}
        if trained is not None:
            values |= {"training": {"model": trained.name, "seconds": trained.seconds}}
        print(json.dumps(values))
        return
    done = ", ".join(f"{n:,} {what}" for what, n in counts.items())
    took = f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
    print(
        f"{args.kb}: {done} in {took}; now {counted(len(base), 'document')}, "
        f"{counted(len(base.passages), 'passage')}"
    )
    if trained is not None and args.action != "new":
        print(
            f"To the same effect, {trained.name} would have to be trained again: "
            f"{trained.seconds:,.0f} s of training, when it was made."
        )


def _plot(args: argparse.Namespace) -> int:
    from minirag.cli.kb_plot import draw

    if args.question is not None and not args.question.strip():
        raise UsageError("the question is empty: ask something, in quotation marks.")
    for option, n in (("--nprobe", args.nprobe), ("-k", args.k)):
        if n is not None and n < 1:
            raise UsageError(f"{option} is {n}: give 1 or more.")
    import_torch()
    base = open_base(args.kb, args.encoder, args.precision)
    drawn = draw(base, args.out, question=args.question, k=args.k, nprobe=args.nprobe)
    if args.json:
        print(json.dumps({"picture": str(args.out), **drawn}))
        return 0
    print(
        f"{args.out}: {counted(drawn['passages'], 'passage')} in {drawn['cells']} cells; the plane "
        f"shows {drawn['shown']:.0%} of their spread"
    )
    if not drawn["own_cells"]:
        print("This base is small enough to be searched whole: its cells are drawn for the eye.")
    if args.question is not None:
        print(
            f"the question looks into {drawn['probed']} cells, {drawn['scanned']:.0%} of the "
            f"passages; {drawn['found']} of the {drawn['k']} nearest lie in them"
        )
    return 0
