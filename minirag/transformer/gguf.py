"""GGUF files, llama.cpp's format (versions 2 and 3): their metadata and tensors.

A GGUF file is a header, then metadata (key, type, value), then a table of tensors, then the
tensors' bytes. It comes from outside and is not trusted: every count, length and offset is compared
with the size of the file before memory is taken for it, and whatever is wrong becomes one sentence.
The file is mapped into memory, so that each byte is read once, when it is needed.

Source: the GGUF specification in the ggml project (``docs/gguf.md``).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from minirag.errors import CheckpointError
from minirag.transformer.quants import FORMATS, BlockFormat, dequantize

# The specification's numbers for the metadata's types, with their NumPy equivalents.
_NUMBERS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_STRING, _ARRAY = 8, 9

_MAX_DIMENSIONS = 4
_MAX_ARRAY_DEPTH = 4
_MAX_NAME_BYTES = 65535
_DEFAULT_ALIGNMENT = 32


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies and how it is stored."""

    name: str
    shape: tuple[int, ...]  # slowest dimension first, as NumPy and PyTorch write it
    format: BlockFormat
    start: int  # byte of the file
    bytes: int


class _Cursor:
    """Reads the header from left to right and never past the end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def fail(self, what: str) -> NoReturn:
        raise CheckpointError(
            f"{self.path} can't be read as GGUF: {what}. "
            "It is damaged, or cut short, or not a GGUF file: fetch it again."
        )

    def _advance(self, size: int, what: str) -> int:
        """Move on by ``size`` bytes and return where they start."""
        if size > len(self.data) - self.at:
            self.fail(
                f"{what} at byte {self.at} would take {size} bytes, "
                f"but the file ends after {len(self.data)}"
            )
        start, self.at = self.at, self.at + size
        return start

    def number(self, layout: str, what: str) -> int:
        start = self._advance(struct.calcsize(layout), what)
        return int(struct.unpack_from(layout, self.data, start)[0])

    def string(self, what: str) -> str:
        size = self.number("<Q", f"the length of {what}")
        start = self._advance(size, what)
        try:
            return self.data[start : start + size].decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what} at byte {start} is not UTF-8 text")

    def name(self, what: str) -> str:
        name = self.string(what)
        if not name or len(name) > _MAX_NAME_BYTES:
            self.fail(f"{what} before byte {self.at} has {len(name)} characters")
        return name

    def count(self, what: str, least: int) -> int:
        """Read how many items follow; each of them takes at least ``least`` bytes."""
        count = self.number("<Q", what)
        if count * least > len(self.data) - self.at:
            self.fail(f"{what} is {count}, more than the file has room for")
        return count

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        if kind in _NUMBERS:
            return self._numbers(kind, 1, what)[0]
        if kind == _STRING:
            return self.string(what)
        if kind != _ARRAY:
            self.fail(f"{what} has the unknown type {kind}")
        if depth == _MAX_ARRAY_DEPTH:
            self.fail(f"{what} nests arrays more than {_MAX_ARRAY_DEPTH} deep")
        kind = self.number("<I", f"the element type of {what}")
        if kind in _NUMBERS:
            count = self.count(f"the length of {what}", _NUMBERS[kind].itemsize)
            return self._numbers(kind, count, what)
        # A string is at least its length (8 bytes), an array its type and length (12 bytes).
        count = self.count(f"the length of {what}", 8 if kind == _STRING else 12)
        return [self.value(kind, what, depth + 1) for _ in range(count)]

    def _numbers(self, kind: int, count: int, what: str) -> list[Any]:
        dtype = _NUMBERS[kind]
        start = self._advance(count * dtype.itemsize, what)
        values: list[Any] = np.frombuffer(self.data, dtype, count, start).tolist()
        return values


class GGUFFile:
    """An open GGUF file: ``metadata`` as plain Python, ``tensors`` by name, ``read`` for one.

    Use it in a ``with`` block, so that the mapping is closed (Windows can't delete a mapped file).

    Attributes
    ----------
    metadata : dict
        Numbers, booleans, strings and (nested) lists of them.
    tensors : dict of str to TensorInfo
        In the order of the file.

    Raises
    ------
    CheckpointError
        If the file is not GGUF 2 or 3, or anything in its header contradicts its size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                if path.stat().st_size < 24:
                    raise CheckpointError(f"{path} is too short to be a GGUF file.")
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointError(
                f"{path} can't be opened: {error.strerror or error}. Is it a GGUF file?"
            ) from error
        try:
            cursor = _Cursor(self._data, path)
            n_tensors = self._read_preamble(cursor)
            self.metadata = self._read_metadata(cursor)
            self.tensors = self._read_table(cursor, n_tensors)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the mapping; arrays already read stay valid, they are copies."""
        with contextlib.suppress(BufferError):  # an error's traceback may still hold a view
            self._data.close()

    def _read_preamble(self, cursor: _Cursor) -> int:
        if self._data[:4] != b"GGUF":
            cursor.fail(f"it starts with {self._data[:4]!r}, not with b'GGUF'")
        cursor.at = 4
        version = cursor.number("<I", "the version")
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            order = " (a big-endian file)" if swapped in (2, 3) else ""
            cursor.fail(f"its version is {version}{order}, and only 2 and 3 are known")
        # A tensor's entry: name length 8, name 1, dimensions 4 + 8, format 4, offset 8.
        return cursor.count("the number of tensors", least=33)

    def _read_metadata(self, cursor: _Cursor) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        # An entry: key length 8, key 1, type 4, value 1.
        for _ in range(cursor.count("the number of metadata entries", least=14)):
            key = cursor.name("a metadata key")
            if key in metadata:
                cursor.fail(f"the metadata holds {key!r} twice")
            kind = cursor.number("<I", f"the type of {key!r}")
            metadata[key] = cursor.value(kind, f"the value of {key!r}")
        return metadata

    def _read_table(self, cursor: _Cursor, n_tensors: int) -> dict[str, TensorInfo]:
        alignment = self.metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1):
            cursor.fail(f"its alignment is {alignment!r}, not a power of two from 8 on")
        infos = [self._read_entry(cursor, alignment) for _ in range(n_tensors)]
        data_start = -(-cursor.at // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, shape, form, offset in infos:
            size = math.prod(shape) // form.weights * form.bytes
            if data_start + offset + size > len(self._data):
                cursor.fail(
                    f"tensor {name!r} lies at bytes {data_start + offset} to "
                    f"{data_start + offset + size}, but the file ends after {len(self._data)}"
                )
            if name in tensors:
                cursor.fail(f"it holds tensor {name!r} twice")
            tensors[name] = TensorInfo(name, shape, form, data_start + offset, size)
        # Many names over the same bytes would let a small file take any amount of memory.
        in_order = sorted(tensors.values(), key=lambda info: info.start)
        for before, after in itertools.pairwise(in_order):
            if before.start + before.bytes > after.start:
                cursor.fail(f"the tensors {before.name!r} and {after.name!r} overlap")
        return tensors

    def _read_entry(
        self, cursor: _Cursor, alignment: int
    ) -> tuple[str, tuple[int, ...], BlockFormat, int]:
        name = cursor.name("a tensor's name")
        n_dims = cursor.number("<I", f"the number of dimensions of {name!r}")
        if not 1 <= n_dims <= _MAX_DIMENSIONS:
            cursor.fail(f"tensor {name!r} has {n_dims} dimensions, not 1 to {_MAX_DIMENSIONS}")
        sizes = [cursor.number("<Q", f"a dimension of {name!r}") for _ in range(n_dims)]
        shape = tuple(reversed(sizes))  # GGUF writes the fastest dimension first
        kind = cursor.number("<I", f"the format of {name!r}")
        if kind not in FORMATS:
            known = ", ".join(form.name for form in FORMATS.values())
            cursor.fail(f"tensor {name!r} is stored in format number {kind}; known are {known}")
        form = FORMATS[kind]
        if min(shape) < 1 or shape[-1] % form.weights:
            cursor.fail(
                f"tensor {name!r} has shape {shape}, which can't be cut into rows of "
                f"{form.name} blocks of {form.weights}"
            )
        offset = cursor.number("<Q", f"the offset of {name!r}")
        if offset % alignment:
            cursor.fail(f"tensor {name!r} starts at {offset}, not a multiple of {alignment}")
        return name, shape, form, offset

    def read(self, name: str) -> NDArray[np.float32]:
        """Dequantise one tensor into a new float32 array of its shape.

        Raises
        ------
        CheckpointError
            If there is no tensor of this name.
        """
        if name not in self.tensors:
            raise CheckpointError(f"{self.path} has no tensor named {name!r}.")
        info = self.tensors[name]
        data = np.frombuffer(self._data, np.uint8, info.bytes, info.start)
        return dequantize(data, info.format).reshape(info.shape)
