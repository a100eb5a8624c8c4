"""How long a training is to be: what the verbs that train make of their options."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from minirag.cli.bases import check_counts
from minirag.errors import UsageError

if TYPE_CHECKING:
    from minirag.training.resumable import RunRecipe

R = TypeVar("R", bound="RunRecipe")

_ASIDE = {
    "--out": 1,
    "--resume": 0,
    "--json": 0,
}  # options that change no result, with their values


def typed(args: argparse.Namespace) -> str:
    """The command as it was typed, without what only says where, when and how results appear."""
    kept, skip = [], 0
    for argument in args.arguments:
        name = argument.partition("=")[0]
        if skip:
            skip -= 1
        elif name in _ASIDE:
            skip = 0 if "=" in argument else _ASIDE[name]
        else:
            kept.append(argument)
    return shlex.join(["minirag", *kept])


def of_chosen_length(
    args: argparse.Namespace, recipe: R, out: Path, steps_in: Callable[[float], int]
) -> R:
    """The recipe for as many steps as --steps, the run to be resumed, or --minutes asks for.

    Parameters
    ----------
    out : Path
        Where the run lies.
    steps_in : function minutes -> steps
        Tries some steps on this machine.

    Raises
    ------
    UsageError
        If that makes no run.
    """
    from minirag.training.resumable import CHECKPOINT, steps_of_run

    check_counts(args, "steps")
    if args.minutes is not None and not args.minutes > 0:  # not above 0: nan, too
        raise UsageError(f"--minutes is {args.minutes}: give a number above 0.")
    steps = recipe.steps
    if args.steps is not None:
        steps = args.steps
    elif args.resume:
        steps = steps_of_run(out / CHECKPOINT)
    elif args.minutes is not None:
        steps = steps_in(args.minutes)
    chosen: R = recipe.with_steps(steps)
    return chosen
