"""Options that would be passed over, where one verb does several things."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from minirag.errors import UsageError


def refuse_stray(
    args: argparse.Namespace, goes_with: Mapping[str, Sequence[str]], now: str, called: str = "{}"
) -> None:
    """Refuse what says nothing to ``now``: whoever gave an option believes that it counts.

    Parameters
    ----------
    goes_with : mapping
        From options, as they are typed, to what they go with.
    now : str
        What is done, in the same words.
    called : str
        How a sentence calls such things; ``{}`` stands for their words.

    Raises
    ------
    UsageError
        If an option that was typed does not go with it.
    """
    for option, places in goes_with.items():
        if now not in places and was_typed(args, option):
            *others, last = places
            wanted = f"{', '.join(others)} or {last}" if others else last
            raise UsageError(
                f"{option} goes with {called.format(wanted)}, and not with "
                f"{called.format(now)}: leave it out."
            )


def was_typed(args: argparse.Namespace, option: str) -> bool:
    """Whether an option was given, in full or by its beginning."""
    given = {argument.partition("=")[0] for argument in args.arguments}
    if not option.startswith("--"):  # -k 3, -k3
        return any(word.startswith(option) for word in given)
    return any(
        word.startswith("--") and len(word) > 3 and option.startswith(word) for word in given
    )
