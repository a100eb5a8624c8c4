"""How long a training is to be: what the verbs that train make of their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from minirag.training.resumable import RunRecipe

R = TypeVar("R", bound="RunRecipe")


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
    """
    from minirag.training.resumable import CHECKPOINT, steps_of_run

    steps = recipe.steps
    if args.steps is not None:
        steps = args.steps
    elif args.resume:
        steps = steps_of_run(out / CHECKPOINT)
    elif args.minutes is not None:
        steps = steps_in(args.minutes)
    chosen: R = recipe.with_steps(steps)
    return chosen
