"""``minirag pretrain``: a base model of the laboratory."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minirag.cli.bases import show_bars
from minirag.cli.runs import of_chosen_length

if TYPE_CHECKING:
    from minirag.training.recipes import Recipe

_DESCRIPTION = """\
Pretrain one of the laboratory's base models: tokenizer, training, scores, model
card. gpt-base and bert-base begin from nothing, bart-base with the blocks of
gpt-base.

Without --minutes or --steps the run has the recipe's full length. The
directory given with --out gets the model in the hub's layout, its scores and
its curve; Ctrl-C waits for the end of a step (a second one doesn't) and loses
none, a kill at most those since the last checkpoint, and --resume goes on as if
nothing had happened.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``pretrain`` to the command line."""
    parser = subparsers.add_parser(
        "pretrain",
        help="pretrain a base model",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", help="what to train: gpt-base, bert-base or bart-base"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="as many steps as this machine takes in M minutes, measured before the start",
    )
    length.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="exactly N steps; a resumed run can be given another N before its rate falls",
    )
    parser.add_argument(
        "--language",
        choices=("en", "es"),
        help="learn one language alone, from twice the exercises in it (default: both)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and data (default: 0)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the model goes (default: runs/RECIPE)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
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
        help="questions in each test of the finished model; 0: no tests (default: 400)",
    )
    parser.add_argument(
        "--compare-vocabularies",
        action="store_true",
        help="train no model: leave in --out what vocabularies of several sizes do to the text "
        "(vocabulary.json), for the model's card",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, test, and print the scores."""
    from minirag.training.pretrain import Watching, pretrain, steps_in
    from minirag.training.recipes import recipe_named
    from minirag.transformer.machine import this_machine

    recipe = recipe_named(args.recipe)
    name, asked = recipe.name, f"minirag pretrain {recipe.name}"
    if args.language is not None:
        recipe = recipe.in_language(args.language)
        name, asked = f"{name}-{args.language}", f"{asked} --language {args.language}"
    out = args.out or Path("runs") / name
    if args.compare_vocabularies:
        return _compare_vocabularies(recipe, out, args.json)
    machine = this_machine(args.precision)
    recipe = of_chosen_length(args, recipe, out, lambda m: steps_in(m, recipe, machine))
    scores = pretrain(
        recipe,
        out,
        seed=args.seed,
        machine=machine,
        resume=args.resume,
        watching=Watching(
            validate_every=0 if args.json else max(1, min(500, recipe.steps // 4)),
            report_questions=args.questions,
            bar=show_bars(args),
        ),
        command=f"{asked} --steps {recipe.steps} --seed {args.seed}",
    )
    if args.json:
        body = {"out": str(out), "steps": recipe.steps, "scores": [s.as_json() for s in scores]}
        print(json.dumps(body, indent=2, ensure_ascii=False))
        return 0
    for s in scores:
        print(f"{s.name:32} {s.right}  (refused {s.refused.value:.3f}, n = {s.n})")
    print(f"the model is in {out}", file=sys.stderr)
    return 0


def _compare_vocabularies(recipe: Recipe, out: Path, as_json: bool) -> int:
    from minirag.errors import UsageError
    from minirag.files import write_text_atomically
    from minirag.training.card import VOCABULARY
    from minirag.training.vocabulary import compare_vocabularies

    if recipe.vocabulary_of is not None:
        raise UsageError(
            f"{recipe.name} takes the vocabulary of {recipe.vocabulary_of}: give that as RECIPE."
        )
    entries = compare_vocabularies(recipe)
    text = json.dumps(entries, indent=1)
    write_text_atomically(out / VOCABULARY, text + "\n")
    if as_json:
        print(text)
        return 0
    for entry in entries:
        print(
            f"{entry['vocab_size']:>6,} entries: {entry['tokens_per_word']} tokens a word, "
            f"{entry['domain_words_in_known_pieces']:.3f} of foreign words in known pieces"
        )
    print(f"the comparison is in {out / VOCABULARY}", file=sys.stderr)
    return 0
