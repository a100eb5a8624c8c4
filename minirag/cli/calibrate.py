"""``minirag calibrate``: measure when an answer would be a guess."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minirag.cli.bases import add_encoder_options, check_counts, load_encoder, show_bars, squad_base

_DESCRIPTION = """\
Measure when to abstain.

--squad, for answers from your documents: ask questions of a collection that
holds their article, and of the same collection without it, and find the
threshold on the best passage's score that tells the two apart. Chosen on one
half of the questions, counted on the other.

--reader, for the laboratory's readers: ask questions that the passages answer
and questions that they don't, and show what refusing sooner or later would
bring and cost. `minirag ask --domain ... --refuse-from P` refuses from P on.

examples:
  minirag calibrate --squad train-v1.1.json.gz --limit 600 --seed 1
  minirag calibrate --reader bart-base
  minirag calibrate --reader gpt-base-medicine-raft --domain medicine
"""
_POINTS = (None, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05)  # of the table; None: greedy
_GO_WITH = {  # options that only one of the two has
    "encoder": "squad",
    "precision": "squad",
    "domain": "reader",
    "language": "reader",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``calibrate`` to the command line."""
    parser = subparsers.add_parser(
        "calibrate",
        help="measure when to abstain",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--squad", type=Path, metavar="FILE", help="SQuAD 1.1 or 2.0")
    what.add_argument(
        "--reader", metavar="MODEL", help="a reader of the laboratory: a name or a directory"
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="--squad: questions, half to choose, half to count (default: 600); --reader: "
        "questions of a kind, of which there are four with and four without an answer "
        "(default: 150)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the draw (default: 1)")
    parser.add_argument(
        "--domain",
        choices=("general", "medicine", "law"),
        help="with --reader: what the questions are about (default: general)",
    )
    parser.add_argument(
        "--language", choices=("en", "es"), help="with --reader: of the questions (default: both)"
    )
    add_encoder_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate and print; what is used by default is changed by hand, not by this."""
    from minirag.errors import UsageError

    check_counts(args, "limit")
    given = "squad" if args.squad is not None else "reader"
    for option, wanted in _GO_WITH.items():
        if getattr(args, option) not in (None, "auto") and wanted != given:
            raise UsageError(f"--{option} goes with --{wanted}: leave it out.")
    return _squad(args) if given == "squad" else _reader(args)


def _squad(args: argparse.Namespace) -> int:
    """The least score of the best passage, for an encoder."""
    from minirag.cli.runs import typed
    from minirag.rag.evaluation import best_scores, sample_questions
    from minirag.rag.threshold import calibrate, to_json
    from minirag.text.datasets import read_squad

    limit = 600 if args.limit is None else args.limit
    squad = read_squad(args.squad)
    questions = sample_questions(squad, limit, args.seed, answerable=True)
    encoder = load_encoder(args.encoder, args.precision)
    base = squad_base(args.squad, squad, encoder, progress=show_bars(args))
    with_article, without = best_scores(base, squad, questions, progress=show_bars(args))
    calibration = calibrate(
        encoder.name,
        with_article,
        without,
        measured_on=(
            f"{len(questions)} questions of {args.squad.name} (seed {args.seed}) asked of its "
            f"{len(squad.paragraphs):,} paragraphs, with and without their own article; "
            "chosen on one half, counted on the other"
        ),
        command=typed(args),
    )
    if args.json:
        print(json.dumps(to_json(calibration), indent=2))
    else:
        print(calibration)
    return 0


def _reader(args: argparse.Namespace) -> int:
    """What a reader would refuse from which probability on."""
    from tqdm import tqdm

    from minirag.cli.runs import typed
    from minirag.rag.reading import TrainedReader
    from minirag.training import refusing

    reader = TrainedReader.load(args.reader)
    domain = args.domain or refusing.GENERAL
    languages = ("en", "es") if args.language is None else (args.language,)
    n = 150 if args.limit is None else args.limit
    asked = refusing.questions(domain, args.seed, n, languages)
    with_answer, without = (
        refusing.readiness(reader.model, reader.tokenizer, some)
        for some in tqdm(asked, unit="kind", disable=not show_bars(args), leave=False)
    )
    points = refusing.trade_off(with_answer, without, _POINTS)
    if args.json:
        value = {
            "reader": reader.name,
            "fingerprint": reader.fingerprint,
            "domain": domain,
            "languages": languages,
            "seed": args.seed,
            "with an answer": len(with_answer),
            "without an answer": len(without),
            "interval": "95 % Wilson",
            "points": [point.as_json() for point in points],
            "command": typed(args),
        }
        print(json.dumps(value, indent=1))
        return 0
    print(
        f"{reader.name}: {len(with_answer):,} questions with and {len(without):,} without an "
        f"answer, {domain}, {' and '.join(languages)}"
    )
    print(refusing.HEADER)
    for point in points:
        print(point.line())
    return 0
