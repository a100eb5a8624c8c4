"""Arrays on disk, read as what they are: files from elsewhere, to be checked before they are used.

Plain ``.npy`` files, never pickle. A header is checked against what the manifest promises before
memory is taken for the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from minirag.errors import StoreError, UsageError
from minirag.retrieval.vectors import LARGEST_NORM, Metric, check_space


def writer_of(array: NDArray[Any]) -> Callable[[Path], None]:
    """A function that writes ``array`` at the path it is given, for ``files.save_set``."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    return write


def text_writer_of(text: str) -> Callable[[Path], None]:
    """A function that writes ``text`` in UTF-8 at the path it is given."""

    def write(path: Path) -> None:
        path.write_bytes(text.encode("utf-8"))

    return write


def open_array(
    path: Path, dtype: DTypeLike, shape: tuple[int, ...], *, mmap: bool = False
) -> NDArray[Any]:
    """Read an array of exactly this type and shape, or (``mmap``) map it without reading it.

    Raises
    ------
    StoreError
        If the file is not such an array.
    """
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{path} is not an array file ({error}): build the index again.") from None
    right = isinstance(mapped, np.ndarray) and mapped.dtype == dtype and mapped.shape == shape
    if not right or not mapped.flags.c_contiguous:
        raise StoreError(
            f"{path} should hold {np.dtype(dtype)} of shape {shape}, row by row, and does not: "
            "build the index again."
        )
    return np.asarray(mapped) if mmap else np.array(mapped)


def whole_number(meta: Mapping[str, Any], key: str, most: int = 2**62) -> int:
    """A count from a manifest: an integer from 0 to ``most``, or a StoreError."""
    value = meta.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise StoreError(f"the manifest says {key} = {value!r}: build the index again.")
    return value


def space_of(meta: Mapping[str, Any]) -> tuple[int, Metric]:
    """The ``dim`` and ``metric`` of a manifest, or a StoreError."""
    dim, metric = whole_number(meta, "dim"), meta.get("metric")
    try:
        check_space(dim, str(metric))
    except UsageError as error:
        raise StoreError(f"the manifest is wrong, {error} Build the index again.") from None
    return dim, metric  # type: ignore[return-value]  # check_space made sure


def norm_of(meta: Mapping[str, Any]) -> float:
    """The ``largest_norm`` of a manifest, or a StoreError."""
    norm = meta.get("largest_norm")
    if not isinstance(norm, float) or not 0 <= norm <= LARGEST_NORM:
        raise StoreError(f"the manifest says largest_norm = {norm!r}: build the index again.")
    return norm


def skew_of(meta: Mapping[str, Any]) -> float | None:
    """The ``trained_skew`` of a manifest (None: it has none), or a StoreError."""
    skew = meta.get("trained_skew")
    if skew is not None and not (isinstance(skew, float) and 0 < skew < np.inf):
        raise StoreError(f"the manifest says trained_skew = {skew!r}: build the index again.")
    return skew


def files_named(paths: Mapping[str, Path], *names: str) -> list[Path]:
    """The paths of these files of a set, or a StoreError naming the first that is missing."""
    for name in names:
        if name not in paths:
            raise StoreError(f"the manifest lists no {name}: build the index again.")
    return [paths[name] for name in names]
