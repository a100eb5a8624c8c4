"""``minirag train-retriever``: an encoder that finds passages."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minirag.cli.bases import show_bars
from minirag.cli.runs import of_chosen_length

if TYPE_CHECKING:
    from minirag.retrieval.retriever_recipe import RetrieverRecipe

_DESCRIPTION = """\
Train the laboratory's retriever by contrast: from a pretrained encoder to one
whose vectors lie near when a passage answers a question, in both languages and
across them.

Without --minutes or --steps the run has the recipe's full length. The
directory given with --out gets the retriever, its scores and its curve; Ctrl-C
or a kill loses at most the steps since the last checkpoint, and --resume, with
the same options, goes on as if nothing had happened. With --domain it goes on
from the general retriever on that domain's documents.

examples:
  minirag train-retriever --minutes 10
  minirag train-retriever --domain medicine --base runs/retriever
  minirag train-retriever --negatives 0 --batch 32 --steps 300 --out runs/r-0-32
  minirag train-retriever --compare runs/r-* --out runs
  minirag evaluate --laboratory general --encoder runs/retriever
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``train-retriever`` to the command line."""
    parser = subparsers.add_parser(
        "train-retriever",
        help="train an encoder that finds passages",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="what to begin from: shipped weights or a directory (default: bert-base; with "
        "--domain: retriever)",
    )
    parser.add_argument(
        "--domain", choices=("medicine", "law"), help="tune to a domain (default: general)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="as many steps as this machine takes in M minutes, measured before the start",
    )
    length.add_argument("--steps", type=int, metavar="N", help="exactly N steps")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="passages in a batch, in-batch negatives"
    )
    parser.add_argument(
        "--negatives", type=int, metavar="N", help="hard negatives for each of them, mined"
    )
    parser.add_argument(
        "--families",
        type=int,
        metavar="N",
        help="families of two or three passages in a pool, in which negatives are mined "
        "(default: 1024)",
    )
    parser.add_argument(
        "--mine-from",
        type=int,
        metavar="N",
        help="the first pool in which they are; before it they are of the same family (default: 4)",
    )
    parser.add_argument("--temperature", type=float, metavar="T", help="of the loss")
    parser.add_argument(
        "--symmetric",
        action="store_true",
        default=None,
        help="passages have to find their questions, too",
    )
    parser.add_argument(
        "--pooling", choices=("mean", "cls", "last"), help="what makes one vector of a text"
    )
    parser.add_argument(
        "--towers", choices=("shared", "separate"), help="one encoder for both sides, or one each"
    )
    parser.add_argument("--rate", type=float, metavar="R", help="the learning rate's peak")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the data (default: 0)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where it goes (default: runs/retriever[-DOMAIN])"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="train nothing: draw the recall of finished runs into --out, by hard negatives and "
        "batch size",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of matrix products; auto takes bf16 where it is faster",
    )
    parser.add_argument(
        "--questions",
        type=int,
        default=400,
        metavar="N",
        help="questions in each test of the finished retriever; 0: no tests (default: 400)",
    )
    parser.add_argument(
        "--passages",
        type=int,
        default=5000,
        metavar="N",
        help="passages that they are asked of (default: 5000)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, test, and print the scores; or compare finished runs."""
    return _compare(args) if args.compare else _train(args)


def _recipe(args: argparse.Namespace) -> RetrieverRecipe:
    """The recipe with what was given instead of its own values."""
    from minirag.retrieval.retriever_recipe import GENERAL_RETRIEVER, domain_retriever

    recipe = domain_retriever(args.domain) if args.domain else GENERAL_RETRIEVER
    names = (
        "base", "batch", "negatives", "families", "mine_from", "temperature", "symmetric",
        "pooling", "towers",
    )  # fmt: skip
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.rate is not None:
        given["optimization"] = dataclasses.replace(recipe.optimization, rate=args.rate)
    return dataclasses.replace(recipe, **given)


def _train(args: argparse.Namespace) -> int:
    from minirag.errors import UsageError
    from minirag.retrieval.retrieval_tests import table
    from minirag.retrieval.train_retriever import Watching, steps_in, train_retriever
    from minirag.training.card import TRAINING
    from minirag.transformer.machine import this_machine

    if args.questions > args.passages:
        raise UsageError(
            f"{args.questions} questions, one a passage, can't be asked of {args.passages} "
            "passages: give fewer with --questions."
        )
    recipe = _recipe(args)
    out = args.out or Path("runs") / recipe.name
    machine = this_machine(args.precision)
    recipe = of_chosen_length(args, recipe, out, lambda m: steps_in(m, recipe, machine))
    scores = train_retriever(
        recipe,
        out,
        seed=args.seed,
        machine=machine,
        resume=args.resume,
        watching=Watching(
            validate_every=0 if args.json else max(1, min(100, recipe.steps // 4)),
            report_passages=args.passages,
            report_questions=args.questions,
            bar=show_bars(args),
        ),
        command=_command(args, recipe),
    )
    if args.json:
        body = {"out": str(out), "steps": recipe.steps, "scores": [s.as_json() for s in scores]}
        print(json.dumps(body, indent=2, ensure_ascii=False))
        return 0
    if scores:
        print(table(scores))
    if recipe.negatives and not json.loads((out / TRAINING).read_text("utf-8"))["mined"]:
        print(
            "note: the run ended before negatives were mined; they were other passages of the same "
            "family. For a short run give smaller --families, or --mine-from 1.",
            file=sys.stderr,
        )
    print(f"the retriever is in {out}", file=sys.stderr)
    return 0


def _command(args: argparse.Namespace, recipe: RetrieverRecipe) -> str:
    """The command that gives the same weights again, for the card."""
    names = (
        "base", "domain", "batch", "negatives", "families", "mine_from", "temperature", "pooling",
        "towers", "rate",
    )  # fmt: skip
    given = [
        f"--{name.replace('_', '-')} {getattr(args, name)}"
        for name in names
        if getattr(args, name) is not None
    ]
    given += ["--symmetric"] if args.symmetric else []
    length = f"--steps {recipe.steps} --seed {args.seed}"
    return " ".join(["minirag train-retriever", *given, length])


def _compare(args: argparse.Namespace) -> int:
    from minirag.errors import DataError
    from minirag.retrieval.contrast_plot import differing, save_comparison
    from minirag.training.card import SCORES, TRAINING

    for run in args.compare:
        for name in (TRAINING, SCORES):
            if not (run / name).is_file():
                raise DataError(
                    f"{run} holds no finished and tested run of train-retriever: there is no "
                    f"{name} in it. Give directories that were its --out."
                )
    out = args.out or Path("runs")
    runs = save_comparison(args.compare, out)
    if others := differing(runs):
        print(
            f"warning: the runs differ in {', '.join(others)}, too: the picture does not show "
            "negatives and batch size alone.",
            file=sys.stderr,
        )
    if args.json:
        print(json.dumps({"out": str(out), "runs": runs}, indent=2, ensure_ascii=False))
        return 0
    for r in runs:
        recalls = "   ".join(f"{name} {value[0]:.3f}" for name, value in r["recall@3"].items())
        kind = ("mined " if r["mined"] else "related ") if r["negatives"] else ""
        print(
            f"{r['negatives']} {kind}negatives, batch {r['batch']:>4}, seed {r['seed']}: {recalls}"
        )
    print(f"the picture is {out / 'comparison.png'}", file=sys.stderr)
    return 0
