"""``minirag calibrate``: measure the score below which an answer would be a guess."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minirag.cli.bases import add_encoder_options, check_counts, load_encoder, show_bars, squad_base

if TYPE_CHECKING:
    from minirag.training.refusing import RefusalPoint, RefusalQuestions

_DESCRIPTION = """\
Measure when to abstain.

--squad, for answers from your documents: ask questions of a collection that
holds their article, and of the same collection without it, and find the
threshold on the best passage's score that tells the two apart. Chosen on one
half of the questions, counted on the other.

--reader, for the laboratory's readers: ask questions that the passages answer
and others, and find how probable a refusal must be to be given. With --save
that is kept beside the weights, and the scores and the card are made anew.

examples:
  minirag calibrate --squad train-v1.1.json.gz --limit 600 --seed 1
  minirag calibrate --reader gpt-base
  minirag calibrate --reader runs/gpt-base-medicine-raft --save
"""
_POINTS = (0.5, 0.4, 0.3, 0.2, 0.1, 0.05)  # of the table
_LIMIT = {"squad": 600, "reader": 150}


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
        help="questions: with --squad half to choose, half to count (default: 600); with "
        "--reader of each kind (default: 150)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the draw of --squad (default: 1)")
    parser.add_argument(
        "--save", action="store_true", help="with --reader: keep it, and measure the card's scores"
    )
    add_encoder_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate and print; the file of calibrations is changed by hand, not by this."""
    check_counts(args, "limit")
    if args.reader is not None:
        return _reader(args)
    from minirag.errors import UsageError
    from minirag.rag.evaluation import best_scores, sample_questions
    from minirag.rag.threshold import calibrate, to_json
    from minirag.text.datasets import read_squad

    if args.save:
        raise UsageError("--save goes with --reader, and --squad was given: leave it out.")
    limit = args.limit or _LIMIT["squad"]
    seed = 1 if args.seed is None else args.seed
    squad = read_squad(args.squad)
    questions = sample_questions(squad, limit, seed, answerable=True)
    encoder = load_encoder(args.encoder, args.precision)
    base = squad_base(args.squad, squad, encoder, progress=show_bars(args))
    with_article, without = best_scores(base, squad, questions, progress=show_bars(args))
    calibration = calibrate(
        encoder.name,
        with_article,
        without,
        measured_on=(
            f"{len(questions)} questions of {args.squad.name} (seed {seed}) asked of its "
            f"{len(squad.paragraphs):,} paragraphs, with and without their own article; "
            "chosen on one half, counted on the other"
        ),
        command=f"minirag calibrate --squad {args.squad.name} --limit {limit} --seed {seed}",
    )
    if args.json:
        print(json.dumps(to_json(calibration), indent=2))
    else:
        print(calibration)
    return 0


def _reader(args: argparse.Namespace) -> int:
    """Show what a reader would refuse from which probability on, and choose one."""
    import dataclasses

    from minirag.errors import UsageError
    from minirag.rag.reading import TrainedReader
    from minirag.training.refusing import lowest_point, readiness, trade_off
    from minirag.training.weights import shipped_or_other
    from minirag.transformer.hub import locate

    if args.encoder is not None or args.seed is not None:
        raise UsageError("--encoder and --seed go with --squad, and --reader was given.")
    reader = TrainedReader.load(args.reader)
    directory = locate(shipped_or_other(args.reader)).directory
    asked = _questions(directory, args.limit or _LIMIT["reader"])
    answerable, unanswerable = (
        readiness(reader.model, reader.tokenizer, some)
        for some in (asked.answerable, asked.unanswerable)
    )
    point = lowest_point(answerable, unanswerable, most_false=asked.most_false, seed=asked.seed)
    if args.json:
        print(json.dumps({"reader": reader.name, **dataclasses.asdict(point)}, indent=2))
    else:
        points = sorted({*_POINTS, point.least}, reverse=True)
        print(trade_off(answerable, unanswerable, points))
        print(f"chosen: {point}")
    if args.save:
        print("measuring the scores of the card anew: minutes", file=sys.stderr)
        _measure_again(directory, point)
        print(f"kept in {directory}", file=sys.stderr)
    return 0


def _questions(directory: Path, n: int) -> RefusalQuestions:
    """Development questions of what a reader was taught to read."""
    from minirag.errors import UsageError
    from minirag.finetuning.again import data_of
    from minirag.finetuning.run import RESULT
    from minirag.training.report import languages_of, refusal_questions

    if not (directory / RESULT).is_file():
        return refusal_questions(n, languages_of(directory))
    refusals = data_of(directory, questions=n)[1].refusals
    if refusals is None:
        raise UsageError(f"{directory} was not taught to refuse: only the way raft teaches that.")
    return refusals()


def _measure_again(directory: Path, point: RefusalPoint) -> None:
    from minirag.finetuning.again import measure_again
    from minirag.finetuning.run import RESULT
    from minirag.training.report import report

    if (directory / RESULT).is_file():
        measure_again(directory, point)
    else:
        point.save(directory)
        report(directory, 400)
