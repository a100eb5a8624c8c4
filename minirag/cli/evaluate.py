"""``minirag evaluate``: retrieval and answers, scored on public data in its own formats."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minirag.cli import evaluate_dialogue
from minirag.cli.answers import plain
from minirag.cli.ask import PASSAGES, chat_reader, threshold
from minirag.cli.bases import (
    ENCODER,
    READER,
    RETRIEVER,
    add_encoder_options,
    add_retriever_option,
    cached_base,
    check_counts,
    counted,
    load_encoder,
    open_base,
    print_report,
    show_bars,
    squad_base,
    threshold_for,
)
from minirag.cli.runs import typed
from minirag.cli.stray import refuse_stray

K = 3  # passages read on SQuAD: what is written down in lessons/results was measured so

# argparse would not break its own line of alternatives, which is longer than a terminal.
_USAGE = """\
minirag evaluate [-h] (--squad FILE | --beir DIR | --questions FILE |
                       --model MODEL | --laboratory DOMAIN |
                       --follow-ups DOMAIN | --faq DOMAIN)
                      [options]
"""
_DESCRIPTION = """\
Score the retriever, and on SQuAD the whole pipeline, with 95 % intervals.

--questions takes your own, asked of --docs or --kb: JSON lines with
"question", "documents" (where the answer stands; none: nowhere) and "words"
(what a right answer holds; alternatives by |). Every answer is shown.

--squad takes a SQuAD 1.1 or 2.0 file (.json or .json.gz): all its paragraphs
are the collection, the questions are asked of all of it. --beir takes a folder
in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv), scored as
trec_eval does. The paragraphs' vectors are cached.

--model puts the tests of its card to a pretrained model of the laboratory, in
worlds of --seed (the card's: 1001).

--laboratory asks for passages of the invented world, about entities that no
training drew: in each language, across the two, by vectors, words and both,
and apart for names that the tokenizer breaks up most.

--follow-ups asks follow-up questions in the laboratory, with and without what
their history adds; --faq measures when a frequent question is taken for
another one. Both compare words unless --encoder names a model.

examples:
  minirag evaluate --squad train-v1.1.json.gz --limit 300
  minirag evaluate --squad dev-v2.0.json --limit 300 --retrieval-only
  minirag evaluate --beir cranfield
  minirag evaluate --questions mine.jsonl --docs handbook
  minirag evaluate --model bart-base --limit 100
  minirag evaluate --laboratory medicine --encoder retriever
  minirag evaluate --follow-ups medicine --language es
  minirag evaluate --faq law --picture faq.png
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``evaluate`` to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score retrieval and answers: SQuAD, BEIR, your own",
        usage=_USAGE,
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--squad", type=Path, metavar="FILE", help="SQuAD 1.1 or 2.0")
    what.add_argument("--beir", type=Path, metavar="DIR", help="a folder in BEIR's layout")
    what.add_argument(
        "--questions", type=Path, metavar="FILE", help="your own, with --docs or --kb"
    )
    what.add_argument(
        "--model", metavar="MODEL", help="a pretrained one of the laboratory, or its directory"
    )
    what.add_argument(
        "--laboratory",
        choices=("general", "medicine", "law"),
        help="passages of its world, searched as a retriever's training is tested",
    )
    dialogue = evaluate_dialogue.DOMAINS
    what.add_argument("--follow-ups", choices=dialogue, help="of conversations in its world")
    what.add_argument("--faq", choices=dialogue, help="frequent questions about its world")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--docs", type=Path, help="the documents that --questions are about")
    where.add_argument("--kb", type=Path, help="the same as a knowledge base")
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="questions, drawn by --seed (default: all; --laboratory, --model: 400)",
    )
    parser.add_argument(
        "--passages",
        type=int,
        default=5000,
        metavar="N",
        help="with --laboratory: how many in each language (default: 5000)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="of draw and bootstrap (default: 0; --model: 1001)",
    )
    parser.add_argument("--retrieval-only", action="store_true", help="don't write answers")
    parser.add_argument(
        "-k",
        type=int,
        metavar="N",
        help=f"passages to read or find (default: with --questions {PASSAGES}, as `ask`; else {K})",
    )
    parser.add_argument("--threshold", type=threshold, metavar="SCORE", help="as of `minirag ask`")
    add_retriever_option(parser, default="--beir, --laboratory: all three, else dense")
    parser.add_argument(
        "--peers",
        action="store_true",
        help="with --beir: sentence-transformers + faiss and bm25s beside ours",
    )
    parser.add_argument("--reader", metavar="MODEL", default=READER, help=f"default: {READER}")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--prose",
        action="store_true",
        help="freely written answers, as `ask` gives (default with --questions)",
    )
    how.add_argument(
        "--quote",
        action="store_true",
        help="answers in the documents' words, as `ask --quote` gives (default with --squad)",
    )
    add_encoder_options(
        parser,
        f"of --kb its own; --laboratory: {RETRIEVER}; --follow-ups, --faq: none, by words alone; "
        f"else {ENCODER}",
    )
    evaluate_dialogue.add_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    refuse_stray(args, _GO_WITH, _measurement(args))
    if args.model is not None:
        return _model(args)
    args.seed = args.seed or 0
    if args.questions is not None:
        results = _own(args)
    elif args.laboratory is not None:
        results = _laboratory(args)
    elif args.follow_ups is not None:
        results = evaluate_dialogue.follow_ups(args)
    elif args.faq is not None:
        results = evaluate_dialogue.faq(args)
    else:
        results = _beir(args) if args.beir is not None else _squad(args)
    if args.json:
        print(json.dumps({"command": typed(args), **results}, indent=2, ensure_ascii=False))
    return 0


_MEASUREMENTS = (
    "--squad", "--beir", "--questions", "--model", "--laboratory", "--follow-ups", "--faq"
)  # fmt: skip
_GO_WITH = {  # options that some of them have
    "--docs": ("--questions",),
    "--kb": ("--questions",),
    "--limit": ("--squad", "--model", "--laboratory", "--follow-ups", "--faq"),
    "--passages": ("--laboratory",),
    "--retrieval-only": ("--squad",),
    "-k": ("--squad", "--questions", "--follow-ups"),
    "--threshold": ("--squad", "--questions", "--faq"),
    "--retriever": ("--squad", "--beir", "--questions", "--laboratory", "--follow-ups"),
    "--peers": ("--beir",),
    "--prose": ("--squad", "--questions"),
    "--quote": ("--squad", "--questions"),
    "--picture": ("--faq",),
}


def _measurement(args: argparse.Namespace) -> str:
    """What is measured, as it was asked for."""
    (what,) = (
        name for name in _MEASUREMENTS if getattr(args, name[2:].replace("-", "_")) is not None
    )
    return what


def _model(args: argparse.Namespace) -> int:
    from minirag.errors import ModelUnavailable
    from minirag.training.recipes import RECIPES
    from minirag.training.report import REPORT_SEED, base_scores, languages_of
    from minirag.training.weights import shipped_or_other
    from minirag.transformer.checkpoints import CONFIG

    check_counts(args, "limit")
    directory = Path(shipped_or_other(args.model))
    if not (directory / CONFIG).is_file():
        raise ModelUnavailable(
            f"there is no model in {directory}: give a directory that `minirag pretrain` made, or "
            f"one of {', '.join(RECIPES)}."
        )
    seed = REPORT_SEED if args.seed is None else args.seed
    n, languages = args.limit or 400, languages_of(directory)
    scores = base_scores(directory, seed, n, languages, progress=show_bars(args))
    if args.json:
        values = [score.as_json() for score in scores]
        body = {"command": typed(args), "model": args.model, "seed": seed, "scores": values}
        print(json.dumps(body, indent=2))
        return 0
    width = max(len(score.name) for score in scores)
    print(f"{'':<{width}}{'n':>6}   right")
    for score in scores:
        print(f"{score.name:<{width}}{score.n:>6}   {score.right}")
    return 0


def _beir(args: argparse.Namespace) -> dict[str, object]:
    from minirag.rag.evaluation import beir_retrieval
    from minirag.retrieval.knowledge_base import RETRIEVERS
    from minirag.text.datasets import read_beir

    data = read_beir(args.beir)
    encoder = load_encoder(args.encoder, args.precision)
    scores = beir_retrieval(
        encoder,
        data,
        kinds=RETRIEVERS if args.retriever is None else (args.retriever,),
        peers=args.peers,
        seed=args.seed,
        progress=show_bars(args),
    )
    if not args.json:
        print(f"{args.beir}: {len(data.corpus):,} documents, encoded by {encoder.name}")
        for name, measured in scores.items():
            print(f"\n{name}\n{measured.table()}")
    return {
        "beir": str(args.beir),
        "documents": len(data.corpus),
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint},
        "retrieval": {name: measured.to_json() for name, measured in scores.items()},
    }


def _laboratory(args: argparse.Namespace) -> dict[str, object]:
    from minirag.retrieval.retrieval_tests import WAYS, evaluate_retriever, table

    encoder = load_encoder(args.encoder or RETRIEVER, args.precision)
    scores = evaluate_retriever(
        encoder,
        args.laboratory,
        seed=args.seed,
        passages=args.passages,
        questions=400 if args.limit is None else args.limit,
        ways=WAYS if args.retriever is None else (args.retriever,),
        progress=show_bars(args),
    )
    if not args.json:
        print(f"{args.passages:,} passages in each language, encoded by {encoder.name}")
        print(table(scores))
    return {
        "laboratory": args.laboratory,
        "seed": args.seed,
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint},
        "retrieval": [score.as_json() for score in scores],
    }


def _own(args: argparse.Namespace) -> dict[str, object]:
    from minirag.errors import UsageError
    from minirag.rag.own_questions import (
        RIGHTLY_REFUSED,
        check_documents,
        judge,
        read_own_questions,
        summary,
    )
    from minirag.rag.pipeline import Pipeline, Settings
    from minirag.text.report import Report

    questions = read_own_questions(args.questions)
    show = not args.json
    report = Report()
    if args.kb is not None:
        base = open_base(args.kb, args.encoder, args.precision)
    elif args.docs is not None:
        encoder = load_encoder(args.encoder, args.precision)
        base, _ = cached_base(args.docs, encoder, report, progress=show_bars(args))
    else:
        raise UsageError("--questions needs the documents they are about: give --docs or --kb.")
    print_report(report)
    check_documents(args.questions, questions, {document.id for document in base.documents})
    reader = chat_reader(args.reader, args.precision)
    kind = args.retriever or "dense"
    least = threshold_for(base.encoder.name, args.threshold)
    k = PASSAGES if args.k is None else args.k
    settings = Settings(k=k, threshold=least, quote=args.quote)
    judged = judge(
        Pipeline(base.retriever(kind), reader, settings), questions, progress=show_bars(args)
    )
    scores = summary(judged)
    answerable = sum(bool(j.question.documents) for j in judged)
    counted_on = {
        name: len(judged) - answerable if name == RIGHTLY_REFUSED else answerable for name in scores
    }
    if show:
        for number, j in enumerate(judged, start=1):
            verdict = "right" if j.right else "WRONG"
            said = plain(j.answer or "(abstained)")
            print(f"{number:>2}. {plain(j.question.text)}\n    {verdict}: {said}")
            print(f"    cites {plain(', '.join(j.cited)) or 'nothing'}")
        print(f"\n{reader.name}, {base.encoder.name}, {counted(k, 'passage')}")
        print(f"{'':<16}{'share':>6}   95 % interval      n")
        for name, s in scores.items():
            of = counted_on[name]
            print(f"{name:<16}{s.value:>6.2f}   {s.low:.2f} to {s.high:.2f}  {of:>6}")
    return {
        "questions": str(args.questions),
        "encoder": {"name": base.encoder.name, "fingerprint": base.encoder.fingerprint},
        "reader": {"name": reader.name, "fingerprint": reader.fingerprint},
        "k": k,
        "threshold": settings.threshold,
        "scores": {
            name: {"value": s.value, "low": s.low, "high": s.high, "n": counted_on[name]}
            for name, s in scores.items()
        },
        "answers": [j.to_json() for j in judged],
    }


def _squad(args: argparse.Namespace) -> dict[str, object]:
    from minirag.rag.evaluation import sample_questions, squad_answers, squad_retrieval
    from minirag.rag.pipeline import Pipeline, Settings
    from minirag.text.datasets import read_squad

    squad = read_squad(args.squad)
    questions = sample_questions(squad, args.limit, args.seed)
    encoder = load_encoder(args.encoder, args.precision)
    show = not args.json
    base = squad_base(args.squad, squad, encoder, progress=show_bars(args))
    kind = args.retriever or "dense"
    retriever = base.retriever(kind)
    retrieval = squad_retrieval(retriever, questions, seed=args.seed, progress=show_bars(args))
    if show:
        print(
            f"{args.squad}: {len(squad.paragraphs):,} paragraphs in {len(base.passages):,} "
            f"passages, encoded by {encoder.name}, searched by {kind} retrieval"
        )
        print(retrieval.table())
    results: dict[str, object] = {
        "squad": str(args.squad),
        "paragraphs": len(squad.paragraphs),
        "seed": args.seed,
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint},
        "retriever": kind,
        "retrieval": retrieval.to_json(),
    }
    if args.retrieval_only:
        return results
    reader = chat_reader(args.reader, args.precision)
    settings = Settings(
        k=K if args.k is None else args.k,
        threshold=threshold_for(encoder.name, args.threshold),
        quote=not args.prose,
    )
    answers, predictions = squad_answers(
        Pipeline(base.retriever(kind), reader, settings),
        questions,
        seed=args.seed,
        progress=show_bars(args),
    )
    if show:
        how = "writes freely" if args.prose else "quotes the likeliest words of them"
        print(
            f"\n{reader.name} reads {counted(settings.k, 'passage')} and {how}; abstains below "
            f"{settings.threshold}"
        )
        print(answers.table())
    return {
        **results,
        "reader": {"name": reader.name, "fingerprint": reader.fingerprint},
        "k": settings.k,
        "quoted": not args.prose,
        "threshold": settings.threshold,
        "answers": answers.to_json(),
        "predictions": [
            {"id": p.question.id, "answer": p.text, "exact": p.exact, "f1": round(p.f1, 4)}
            for p in predictions
        ],
    }
