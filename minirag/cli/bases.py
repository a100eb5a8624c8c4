"""Knowledge bases as the verbs meet them: built from a folder, cached by content, opened again."""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import importlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from minirag.errors import DiskError, ModelUnavailable, StoreError, UsageError

if TYPE_CHECKING:
    from minirag.retrieval.encoder import BiEncoder
    from minirag.retrieval.knowledge_base import Changes, KnowledgeBase
    from minirag.text.datasets import Squad
    from minirag.text.documents import Document
    from minirag.text.report import Report

ENCODER = "all-MiniLM-L6-v2"
RETRIEVER = "retriever"  # ours, for the laboratory
ENCODERS = (ENCODER, RETRIEVER)  # those that have a name
READER = "SmolLM2-135M-Instruct"


def add_encoder_options(parser: argparse.ArgumentParser, default: str = ENCODER) -> None:
    """Options of every verb that makes vectors; ``default`` says what is taken if none is given."""
    parser.add_argument(
        "--encoder",
        metavar="MODEL",
        help=f"makes the vectors: a name or a directory (default: {default})",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: bf16 where the processor multiplies it faster, else fp32",
    )


def add_retriever_option(
    parser: argparse.ArgumentParser, *, default: str = "dense; for the laboratory's readers: hybrid"
) -> None:
    """Option of every verb that searches."""
    parser.add_argument(
        "--retriever",
        choices=("dense", "lexical", "hybrid"),  # written out: importing them imports NumPy
        help=f"by vectors, by words (BM25), or by both, their ranks fused (default: {default})",
    )


def import_torch() -> None:
    """Import torch without Python looking for garbage meanwhile, or in its modules ever again.

    What an import makes stays. Searching it, now and once more at the end, takes a fifth of the
    time of both, and torch is the longest part of a start.
    """
    if "torch" not in sys.modules:
        gc.disable()
        importlib.import_module("torch")
        gc.freeze()
        gc.enable()


def show_bars(args: argparse.Namespace) -> bool:
    """Bars are for people at a terminal: in a pipe or a log file they would be noise."""
    return not args.json and sys.stderr.isatty()


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Refuse a number below 1, by the option as it was typed; what was not given is left alone."""
    for name in names:
        given = getattr(args, name)
        if given is not None and given < 1:
            raise UsageError(f"--{name.replace('_', '-')} is {given}: give 1 or more.")


def number_within(low: float, high: float, noun: str) -> Callable[[str], float]:
    """What reads an option's number: one from ``low`` to ``high``, or it is no such thing."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= float(text) <= high:  # not a number fails, too
                return float(text)
        raise argparse.ArgumentTypeError(
            f"{text!r} is no {noun}: give a number from {low:g} to {high:g}."
        )

    return read


def check_png(option: str, path: Path) -> None:
    """Refuse a picture whose name promises another format than the one that is written."""
    if path.suffix.lower() != ".png":
        raise UsageError(
            f"{option} is {path}: pictures are written as PNG, so give a name that ends in .png."
        )


def check_place(directory: Path) -> None:
    """Make the directory for results and try it: hours of work should not end in an error.

    Raises
    ------
    DiskError
        If nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise DiskError(
            f"nothing can be written into {directory} ({error.strerror or error}): choose another "
            "place with --out."
        ) from error


def load_encoder(name: str | None, precision: str) -> BiEncoder:
    """The encoder, in the precision that suits the machine."""
    from minirag.retrieval.encoder import BiEncoder
    from minirag.transformer.machine import inference_dtype

    name = name or ENCODER
    dtype = inference_dtype(precision)  # type: ignore[arg-type]  # argparse checked the choice
    try:
        return BiEncoder.load(name, dtype=dtype)
    except ModelUnavailable as error:
        if _is_public(name):  # it only has to be fetched
            raise
        raise ModelUnavailable(
            f"{name!r} is neither a directory nor an encoder that minirag knows: give one of "
            f"{', '.join(ENCODERS)}, or a directory in the hub's layout (config.json, "
            "model.safetensors, tokenizer.json)."
        ) from error


def _is_public(name: str) -> bool:
    from minirag.transformer.catalogue import CATALOGUE

    return any(name in (model.name, model.hub.repo) for model in CATALOGUE)


def open_base(directory: Path, encoder: str | None, precision: str) -> KnowledgeBase:
    """A saved knowledge base with the encoder that it names."""
    from minirag.files import MANIFEST
    from minirag.retrieval.knowledge_base import KnowledgeBase

    if not (directory / MANIFEST).exists():
        raise StoreError(
            f"there is no knowledge base in {directory}: check the name, or make one with "
            f"`minirag index DOCS --out {directory}`."
        )
    name = encoder or KnowledgeBase.info(directory).encoder_name
    try:
        model = load_encoder(name, precision)
    except ModelUnavailable as error:
        if encoder is not None or _is_public(name):
            raise
        raise ModelUnavailable(
            f"{directory} was built with the encoder {name}: {error} "
            "If it was built with one from a directory, give that directory with --encoder."
        ) from error
    return KnowledgeBase.load(directory, model)


@contextlib.contextmanager
def changing(directory: Path) -> Iterator[None]:
    """Around loading, changing and saving: so that no other process's change gets lost between.

    Where there is no knowledge base, there is nothing to lose, and nothing is written.
    """
    from minirag.files import MANIFEST, locked

    with locked(directory) if (directory / MANIFEST).exists() else contextlib.nullcontext():
        yield


def cached_base(
    documents: Path, encoder: BiEncoder, report: Report, *, progress: bool
) -> tuple[KnowledgeBase, Changes]:
    """The knowledge base of a folder, from the cache; what changed since is read and encoded."""
    return cached_under(str(documents.resolve()), documents, encoder, report, progress)


def cached_under(
    name: str,
    source: Path | Iterable[Document],
    encoder: BiEncoder,
    report: Report | None,
    progress: bool,
) -> tuple[KnowledgeBase, Changes]:
    """A knowledge base of exactly these documents: what the cache has of them, and the rest."""
    from minirag.retrieval.knowledge_base import KnowledgeBase
    from minirag.transformer.hub import cache_dir

    vectors = f"{encoder.fingerprint} {next(encoder.model.parameters()).dtype}"
    key = hashlib.sha256(f"{name}\0{vectors}".encode()).hexdigest()[:24]
    place = cache_dir() / "knowledge-bases" / key
    try:
        base = KnowledgeBase.load(place, encoder)
    except StoreError:  # none yet, or not whole: it is only a cache
        base = KnowledgeBase(encoder)
    changes = base.update_from(source, progress=progress, report=report)
    if changes.added or changes.changed or changes.removed:
        try:
            base.save(place)
        except DiskError as error:
            print(f"warning: not cached: {error}", file=sys.stderr)
    return base, changes


def threshold_for(encoder_name: str, given: float | None) -> float:
    """The threshold given, or the one calibrated for the encoder; else none, and a word."""
    from minirag.rag.threshold import load_calibrations

    if given is not None:
        return given
    calibration = load_calibrations().get(encoder_name)
    if calibration is None:
        print(
            f"warning: no threshold is calibrated for {encoder_name}: it will never abstain. "
            "Give --threshold, or measure one with `minirag calibrate`.",
            file=sys.stderr,
        )
        return -1.0
    return calibration.threshold


def squad_base(path: Path, squad: Squad, encoder: BiEncoder, *, progress: bool) -> KnowledgeBase:
    """All paragraphs of a SQuAD file as a knowledge base; cached by the file's content."""
    from minirag.files import sha256_of

    return cached_under(f"squad {sha256_of(path)}", squad.paragraphs, encoder, None, progress)[0]


def counted(n: int, noun: str) -> str:
    """``1 document``, ``4,647 passages``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def print_report(report: Report) -> None:
    """Notes on what was left out or altered, on stderr."""
    for line in report.lines():
        print(f"warning: {line}", file=sys.stderr)
