"""``minirag map``: the measured map of when which arm is the most accurate."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirag.cli.bases import check_counts, check_place, check_png, show_bars
from minirag.cli.finetune import tell
from minirag.errors import UsageError

if TYPE_CHECKING:
    from minirag.choosing.grid import Grid
    from minirag.choosing.measured_map import MeasuredMap

_DESCRIPTION = """\
Show when fine-tuning, when retrieval, when both: exact match of the five arms
over volatility (share of the facts changed between training and asking),
specialisation (distance of the domain's wording from the base's) and size of
the knowledge. `minirag choose` answers from it.

--run measures a map. For each specialisation and size two readers are
fine-tuned, each until a plateau or for --tokens at most, and asked at every
volatility, in which the knowledge base alone changes. The directory given with
--out gets map.json and map.png, after each seed, and all that was made on the
way: what is done is not done again, and a run that was killed goes on where it
was. Three seeds take some hours on two cores; --reduced takes a minute or so,
and shows how it goes and nothing about arms.

examples:
  minirag map
  minirag map --picture map.png
  minirag map --run --out runs/map
  minirag map --run --reduced --out /tmp/small
  minirag choose --map runs/map/map.json
"""
_OF_RUN = ("reduced", "out", "seeds", "sizes", "questions", "tokens", "base", "domain", "language",
           "encoder", "precision")  # fmt: skip


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``map`` to the command line."""
    parser = subparsers.add_parser(
        "map",
        help="when which arm is the most accurate, measured",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--map", type=Path, metavar="FILE", help="default: the one that comes with minirag")
    add("--picture", type=Path, metavar="FILE", help="draw it (PNG)")
    add("--run", action="store_true", dest="measure", help="measure a map")
    add("--json", action="store_true", help="print one JSON object, no bars")
    run_options = parser.add_argument_group("with --run").add_argument
    run_options(
        "--reduced",
        action="store_true",
        default=None,
        help="everything in small, in a minute or so",
    )
    run_options("--out", type=Path, metavar="DIR", help="default: runs/map")
    run_options("--seeds", type=int, metavar="N", help="how many worlds (default: 3)")
    run_options("--sizes", metavar="N,N", help="entities (default: 100,300,1000)")
    run_options("--questions", type=int, metavar="N", help="of a cell, a seed (default: 200)")
    run_options("--tokens", type=int, metavar="N", help="of a fine-tuning (default: 800000)")
    run_options("--base", metavar="MODEL", help="a name or a directory (default: gpt-base)")
    run_options("--encoder", metavar="MODEL", help="finds passages (default: retriever)")
    run_options("--domain", choices=("medicine", "law"), help="default: medicine")
    run_options("--language", choices=("en", "es"), help="default: en")
    run_options(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        help="of the fine-tunings; auto takes bf16 where it is faster",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure or read a map; print and draw it."""
    from minirag.choosing.map_picture import draw_map
    from minirag.choosing.map_table import map_table
    from minirag.choosing.measured_map import MeasuredMap, shipped_map

    if args.picture:
        check_png("--picture", args.picture)
    if args.measure:
        measured = _measure(args)
    else:
        for name in _OF_RUN:
            if getattr(args, name) is not None:
                raise UsageError(f"--{name} is about measuring: give --run with it.")
        measured = MeasuredMap.load(args.map or shipped_map())
    if args.picture:
        draw_map(measured, args.picture)
    if args.json:
        print(json.dumps(measured.as_json(), indent=2, ensure_ascii=False))
    else:
        print(map_table(measured))
    return 0


def _measure(args: argparse.Namespace) -> MeasuredMap:
    from minirag.choosing.map_picture import draw_map
    from minirag.choosing.measured_map import MAP, PICTURE
    from minirag.choosing.measuring import measure
    from minirag.combination.collection import ENCODER
    from minirag.combination.workbench import Workbench
    from minirag.finetuning.base import Base
    from minirag.retrieval.encoder import BiEncoder
    from minirag.transformer.machine import this_machine

    if args.map:
        raise UsageError("--map is read, --run measures: give one of them.")
    grid, out = _grid(args), args.out or Path("runs/map")
    check_place(out)
    bench = Workbench(out / "cells", this_machine(args.precision or "auto"), bar=show_bars(args))
    rounds = measure(
        grid,
        Base.load(grid.base),
        BiEncoder.load(args.encoder or ENCODER),
        out,
        bench,
        command=_command(args),
        tell=(lambda _: None) if args.json else tell,
    )
    for measured in rounds:
        measured.save(out / MAP)
        try:
            draw_map(measured, out / PICTURE)
        except UsageError as error:  # hours of work are not lost for want of a picture
            print(f"warning: no picture: {error}", file=sys.stderr)
    print(f"the map is in {out}", file=sys.stderr)
    return measured


def _grid(args: argparse.Namespace) -> Grid:
    from minirag.choosing.grid import REDUCED, Grid
    from minirag.combination.seeds import CLAIM_SEEDS

    check_counts(args, "questions", "tokens")
    grid = REDUCED if args.reduced else Grid()
    names = ("questions", "tokens", "base", "domain", "language")
    given: dict[str, Any] = {name: getattr(args, name) for name in names}
    if args.sizes is not None:
        given["sizes"] = _sizes(args.sizes)
    if args.seeds is not None:
        if not 1 <= args.seeds <= len(CLAIM_SEEDS):
            raise UsageError(f"--seeds is {args.seeds}: give 1 to {len(CLAIM_SEEDS)} worlds.")
        given["seeds"] = CLAIM_SEEDS[: args.seeds]
    return dataclasses.replace(grid, **{k: v for k, v in given.items() if v is not None})


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted({int(size) for size in text.split(",")}))
    except ValueError:
        sizes = ()
    if not sizes or sizes[0] < 1:
        raise UsageError(f"--sizes is {text!r}: give numbers of entities, such as 100,300,1000.")
    return sizes


def _command(args: argparse.Namespace) -> str:
    """What makes the same numbers again, wherever they are put."""
    words = ["minirag map --run"]
    for name in _OF_RUN:
        value = getattr(args, name)
        if name in ("out", "precision") or value is None:
            continue
        words.append(f"--{name}" if value is True else f"--{name} {Path(str(value)).name}")
    return " ".join(words)
