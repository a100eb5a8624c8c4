"""``minirag weights``: the shipped models, with their checksums, verified."""

from __future__ import annotations

import argparse
import json
import sys

_DESCRIPTION = """\
List the models that minirag ships, with the SHA-256 sums of their weights, and
compare every file with its recorded checksum. The exit status is 1 if a file
is missing, changed or unknown.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``weights`` to the command line."""
    parser = subparsers.add_parser(
        "weights",
        help="list and verify the shipped models",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what there is, and what is wrong with it."""
    from minirag.training.weights import inspect_weights, weights_root

    models = inspect_weights()
    if args.json:
        body = {"root": str(weights_root()), "models": [model.as_json() for model in models]}
        print(json.dumps(body, indent=2, ensure_ascii=False))
    else:
        print(f"{weights_root()}: {len(models)} models")
        width = max((len(model.name) for model in models), default=0)
        for model in models:
            state = "damaged" if model.problems else "whole"
            print(f"  {model.name:{width}} {model.bytes / 1e6:6.1f} MB  {state}")
            print(f"    {model.sha256}")  # a line of its own: 64 digits
    bad = [problem for model in models for problem in model.problems]
    if not args.json:
        for problem in bad:
            print(problem, file=sys.stderr)
    return 1 if bad else 0
