"""``minirag calibrate``: measure the score below which an answer would be a guess."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from minirag.cli.bases import add_encoder_options, load_encoder, show_bars, squad_base

_DESCRIPTION = """\
Ask questions of a collection that holds their article, and of the same
collection without it, and find the threshold on the best passage's score that
tells the two apart. Chosen on one half of the questions, counted on the other.

example:
  minirag calibrate --squad train-v1.1.json.gz --limit 600 --seed 1
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``calibrate`` to the command line."""
    parser = subparsers.add_parser(
        "calibrate",
        help="measure when to abstain",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--squad", type=Path, required=True, metavar="FILE", help="SQuAD 1.1 or 2.0"
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=600,
        metavar="N",
        help="questions, half to choose, half to count (default: 600)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the draw (default: 1)")
    add_encoder_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate and print; the file of calibrations is changed by hand, not by this."""
    from minirag.rag.evaluation import best_scores, sample_questions
    from minirag.rag.threshold import calibrate, to_json
    from minirag.text.datasets import read_squad

    squad = read_squad(args.squad)
    questions = sample_questions(squad, args.limit, args.seed, answerable=True)
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
        command=f"minirag calibrate --squad {args.squad.name} --limit {args.limit} "
        f"--seed {args.seed}",
    )
    if args.json:
        print(json.dumps(to_json(calibration), indent=2))
    else:
        print(calibration)
    return 0
