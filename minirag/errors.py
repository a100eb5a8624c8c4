"""Every error a user can meet: one sentence saying what was given, what was expected, what to do.

The command line prints the sentence on stderr and exits with the class's ``exit_code``; Python
callers catch :class:`MiniragError` or one of its kinds.
"""

from __future__ import annotations


class MiniragError(Exception):
    """Base of all errors that minirag raises on purpose."""

    exit_code = 1


class ModelUnavailable(MiniragError):
    """A model is neither cached nor to be had: no network, or an unknown name."""

    exit_code = 2


class DocumentError(MiniragError):
    """The documents (or other files) given are not there, can't be read, or hold none."""

    exit_code = 3


class StoreError(MiniragError):
    """A saved index, knowledge base or run is missing, damaged, or made by something else."""

    exit_code = 4


class DiskError(MiniragError):
    """Writing failed: disk full, no permission. What was saved before is untouched."""

    exit_code = 5


class CheckpointError(MiniragError):
    """A model's files don't say what they must: unknown family, missing tensor, wrong shape."""

    exit_code = 6


class DataError(MiniragError):
    """A data set (SQuAD, BEIR, JSONL, ...) is not in the format it should be in."""

    exit_code = 7


class TrainingError(MiniragError):
    """A training can't start or go on: no data, every label masked, the loss is not a number."""

    exit_code = 8


class UsageError(MiniragError, ValueError):
    """An option or argument that can't be meant: an empty question, k = -1."""

    exit_code = 64  # EX_USAGE, so that it is not taken for ModelUnavailable's 2
