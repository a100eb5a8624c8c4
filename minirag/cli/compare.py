"""``minirag compare``: the five arms on the six slices, over several worlds."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirag.cli.bases import check_counts, check_place, show_bars
from minirag.cli.finetune import tell
from minirag.cli.runs import typed
from minirag.errors import UsageError

if TYPE_CHECKING:
    from minirag.combination.study import Study

ENCODER = "retriever"  # of weights/

_DESCRIPTION = """\
Fine-tuning and retrieval side by side and together. For every seed a world is
drawn, a reader is fine-tuned on its facts without passages (closed book),
another one to read its documents with distractors (RAFT), and a knowledge base
is made. Then five arms answer the same questions in both languages: the base,
the fine-tuned reader, and with passages found by the hybrid retriever the base
(RAG), the fine-tuned and the RAFT reader. Beside them: the right passage always
given, random passages or none, retrieval without reading, questions that also
need general knowledge, and superseded documents left standing beside the new
ones.

The directory given with --out gets compare-DOMAIN-BASE.json with every number,
the same as .md and as .png, and all that was made on the way: what is done is
not done again, and a run that was killed goes on where it was. Three seeds take
a few hours on two cores.

--development prints what the number of passages and the retriever were chosen
by, in worlds that no comparison uses. --reduced runs everything in small, with
a few steps of fine-tuning: to see that it works, not to learn from.

examples:
  minirag compare --domain medicine --seeds 3
  minirag compare --domain law --base bart-base --out runs/law
  minirag compare --reduced --out /tmp/small
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``compare`` to the command line."""
    parser = subparsers.add_parser(
        "compare",
        help="five arms side by side: fine-tuning, retrieval, both",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--domain", default="medicine", choices=("medicine", "law"), help="default: medicine")
    add(
        "--base",
        default="gpt-base",
        metavar="MODEL",
        help="a name or a directory (default: gpt-base)",
    )
    add("--encoder", default=ENCODER, metavar="MODEL", help=f"finds passages (default: {ENCODER})")
    add("--seeds", type=int, default=3, metavar="N", help="how many worlds (default: 3)")
    add(
        "--questions", type=int, metavar="N",
        help="of each slice, in each language (default: 200; --reduced: 5)",
    )  # fmt: skip
    add("--out", type=Path, metavar="DIR", help="default: runs/compare")
    add("--development", action="store_true", help="print what k and the retriever were chosen by")
    add("--reduced", action="store_true", help="everything in small, in a minute or two")
    add(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of the fine-tunings; auto takes bf16 where it is faster",
    )
    add("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare, print the tables, and leave everything in --out."""
    from minirag.combination.comparison import compare_studies, markdown
    from minirag.combination.operating_points import operating_points_text, try_operating_points
    from minirag.combination.seeds import CLAIM_SEEDS, DEVELOPMENT_SEEDS
    from minirag.combination.study import run_study
    from minirag.files import write_text_atomically
    from minirag.transformer.machine import this_machine

    seeds = DEVELOPMENT_SEEDS if args.development else CLAIM_SEEDS
    if not 1 <= args.seeds <= len(seeds):
        raise UsageError(
            f"--seeds is {args.seeds}: give a number from 1 to {len(seeds)}: so many worlds are "
            "set aside for this."
        )
    worlds, out = list(seeds[: args.seeds]), args.out or Path("runs/compare")
    study, machine = _study(args), this_machine(args.precision)
    check_place(out)
    how: dict[str, Any] = {
        "machine": machine,
        "bar": show_bars(args),
        "tell": (lambda _: None) if args.json else tell,
    }
    name = f"{args.domain}-{Path(args.base).name}{'-reduced' if args.reduced else ''}"
    if args.development:
        body = try_operating_points(study, worlds, out, **how)
        place = out / f"development-{name}.json"
        text = operating_points_text(body)
    else:
        results = [run_study(dataclasses.replace(study, seed=seed), out, **how) for seed in worlds]
        body = compare_studies(results, bar=how["bar"])
        place = out / f"compare-{name}.json"
        text = markdown(body)
        write_text_atomically(place.with_suffix(".md"), text)
        _draw(body, place.with_suffix(".png"))
    body = {"command": typed(args), "machine": machine.describe(), **body}
    write_text_atomically(place, json.dumps(body, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(body, indent=2, ensure_ascii=False) if args.json else text)
    print(f"all of it is in {place}", file=sys.stderr)
    return 0


def _draw(body: dict[str, Any], place: Path) -> None:
    """A picture, if there is something to draw with: hours of work are not lost for want of it."""
    from minirag.combination.comparison_picture import draw_comparison

    try:
        draw_comparison(body, place)
    except UsageError as error:
        print(f"warning: no picture: {error}", file=sys.stderr)


def _study(args: argparse.Namespace) -> Study:
    from minirag.combination.study import Study, reduced

    check_counts(args, "questions")
    study = Study(args.domain, args.base, encoder=args.encoder)
    if args.reduced:
        study = reduced(study)
    if args.questions is not None:
        study = dataclasses.replace(study, questions=args.questions)
    return study
