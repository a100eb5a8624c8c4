"""Pictures: matplotlib is an extra, and where it is missing a sentence says how to get it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minirag.errors import UsageError
from minirag.files import write_atomically


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, no global state
    except ImportError:
        raise UsageError(
            "matplotlib is not installed: pip install 'minirag[plots]' to draw pictures."
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def save_png(figure: Any, out: Path, dpi: int = 120) -> None:
    """Write a figure; what ``out`` held stays if that fails.

    Raises
    ------
    DiskError
        If it can't be written.
    """
    write_atomically(out, lambda part: figure.savefig(part, format="png", dpi=dpi))
