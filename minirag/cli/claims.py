"""``minirag claims``: what the lessons claim, what was measured, and whether it still stands."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirag.cli.bases import check_place, show_bars
from minirag.errors import DataError, UsageError

if TYPE_CHECKING:
    from minirag.combination.ledger import Claim

_DESCRIPTION = """\
Print the claims ledger: each claim with its verdict, the number that stands
for it with its 95 % interval, the seeds, the command and the result file.

--run measures claims (all of them, if none is named) and writes ID.json and
ID.png. What is done lies in --work: a kill loses the training in progress,
and the same command goes on. A claim about a model that isn't shipped yet is
not measured with all the others.

--check exits with 1 if a result is older than what it depends on (the
experiment's version, its seeds and settings, the weights), and with 7 if there
is no result to check. What is not measured yet it names.

examples:
  minirag claims
  minirag claims --plan
  minirag claims --run F1 F2
  minirag claims --run F1 --reduced  # in seconds; it proves nothing
  minirag claims --check
"""
_WIDTH = 80


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``claims`` to the command line."""
    parser = subparsers.add_parser(
        "claims",
        help="what is claimed, what was measured, and whether it still stands",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--run", nargs="*", metavar="ID", dest="measure", help="measure these; none named: all"
    )
    what.add_argument("--check", action="store_true", help="fail if a result is out of date")
    what.add_argument(
        "--plan", action="store_true", help="print what each experiment trains, and how long"
    )
    add = parser.add_argument
    add("--reduced", action="store_true", help="the same in seconds, to see that it runs")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where results lie (default: lessons/results; reduced: runs/claims/reduced)",
    )
    add(
        "--work",
        type=Path,
        default=Path("runs/claims/pieces"),
        metavar="DIR",
        help="where finished trainings lie (default: runs/claims/pieces)",
    )
    add(
        "--studies",
        type=Path,
        default=Path("runs/compare"),
        metavar="DIR",
        help="where `minirag compare` keeps its readers and answers, which claims use and make, "
        "too (default: runs/compare)",
    )
    add(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of matrix products; auto takes bf16 where it is faster",
    )
    add("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print, plan, measure or check."""
    from minirag.combination.claims import claims_named
    from minirag.combination.ledger import results_root
    from minirag.files import checkout

    claims = claims_named(args.measure or ())
    if args.plan:
        return _plan(args, claims)
    out: Path = args.out or (Path("runs/claims/reduced") if args.reduced else results_root())
    if args.measure is not None:
        if args.out is None and not args.reduced and checkout() is None:
            raise UsageError(
                "this minirag is an installed one, whose results are not to be written over: give "
                "a directory for yours with --out."
            )
        check_place(out)
        _measure(args, claims, out)
    elif args.out is not None and not out.is_dir():
        raise DataError(
            f"there is no directory {out}: give the one that results lie in with --out, or measure "
            "into it with --run."
        )
    return _print(args, claims, out)


def _measure(args: argparse.Namespace, claims: Sequence[Claim[Any]], out: Path) -> None:
    from minirag.combination.ledger import MISSING, checksum, run_claim
    from minirag.combination.workbench import Workbench
    from minirag.transformer.machine import this_machine

    machine = this_machine(args.precision)
    bench = Workbench(args.work, machine, studies=args.studies, bar=show_bars(args))
    for claim in claims:
        missing = [m for m in claim.settings(args.reduced).models if checksum(m) == MISSING]
        if missing and not args.measure:  # all claims: those that can be measured
            print(f"{claim.id} is left out: there is no {' and no '.join(missing)} yet.",
                  file=sys.stderr)  # fmt: skip
            continue
        run_claim(claim, bench, out, reduced=args.reduced)


def _print(args: argparse.Namespace, claims: Sequence[Claim[Any]], out: Path) -> int:
    """The ledger; 1 if it was to be checked and does not stand.

    Raises
    ------
    DataError
        If a result is damaged, or it was to be checked and there is none: that is no success.
    """
    from minirag.combination.ledger import changed, read_result

    entries: list[dict[str, Any]] = []
    for claim in claims:
        result = read_result(claim, out)
        old = [] if result is None else changed(claim, result)
        entries.append(
            {
                "id": claim.id,
                "sentence": claim.sentence,
                "rule": claim.rule,
                "result": result,
                "file": None if result is None else str(out / f"{claim.id}.json"),
                "changed since": old,
            }
        )
    out_of_date = [entry["id"] for entry in entries if entry["changed since"]]
    missing = [entry["id"] for entry in entries if entry["result"] is None]
    if args.json:
        body = {"claims": entries, "out of date": out_of_date, "not measured": missing}
        print(json.dumps(body, indent=1))
    else:
        print("\n\n".join(_lines(claim, e) for claim, e in zip(claims, entries, strict=True)))
    if not args.check:
        return 0
    if len(missing) == len(entries):
        raise DataError(
            f"no claim has been measured yet, so there is nothing to check in {out}: measure with "
            "`minirag claims --run`, or give the directory that has results with --out."
        )
    if missing and not args.json:
        print(f"not measured yet: {', '.join(missing)}", file=sys.stderr)
    if out_of_date and not args.json:
        print(f"out of date: {', '.join(out_of_date)}. Measure again: minirag claims --run "
              f"{' '.join(out_of_date)}", file=sys.stderr)  # fmt: skip
    return 1 if out_of_date else 0


def _lines(claim: Claim[Any], entry: dict[str, Any]) -> str:
    result = entry["result"]
    said = [f"{claim.id}  {claim.sentence}"]
    if result is None:
        said.append(f"not measured yet: {claim.command(False)}")
    else:
        low, high = result["interval"]
        verdict = f"{result['verdict']}." + (
            " (Reduced: proves nothing.)" if result["reduced"] else ""
        )
        said += [
            f"-> {verdict}",
            f"{result['number']:.3f} [{low:.3f}, {high:.3f}]: {result['what the number is']}",
            result["reason"],
            f"seeds {', '.join(map(str, result['seeds']))}; {result['command']}; {entry['file']}",
        ]
    said += [f"OUT OF DATE: {what}" for what in entry["changed since"]]
    first, *rest = (textwrap.wrap(line, _WIDTH - 4, break_on_hyphens=False) for line in said)
    lines = [
        first[0],
        *(f"    {line}" for line in (*first[1:], *(x for some in rest for x in some))),
    ]
    return "\n".join(lines)


def _plan(args: argparse.Namespace, claims: Sequence[Claim[Any]]) -> int:
    """What each experiment does, and how long it takes."""
    plans = [(claim.id, claim.plan(claim.settings(args.reduced))) for claim in claims]
    new = sum((p.pieces - p.shared) * p.seconds for _, plan in plans for p in plan)
    if args.json:
        body = {id: [dataclasses.asdict(p) for p in plan] for id, plan in plans}
        print(json.dumps({"plan": body, "minutes": round(new / 60, 1)}, indent=1))
        return 0
    print(f"{'':<4}{'what':<44}{'pieces':>7}{'shared':>7}{'s each':>8}{'minutes':>9}")
    for id, plan in plans:
        for p in plan:
            minutes = (p.pieces - p.shared) * p.seconds / 60
            print(f"{id:<4}{p.what:<44}{p.pieces:>7}{p.shared:>7}{p.seconds:>8.0f}{minutes:>9.1f}")
    print(f"{'':<4}{'all; what claims share is counted once':<66}{new / 60:>9.1f}")
    return 0
