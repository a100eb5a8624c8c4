"""The laboratory's knowledge bases as the verbs meet them: made on first use, asked, labelled."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minirag.cli.bases import cached_under, load_encoder, number_within, open_base, show_bars
from minirag.errors import ModelUnavailable, StoreError, UsageError
from minirag.files import write_text_atomically

if TYPE_CHECKING:
    from minirag.combination.live import Training
    from minirag.rag.reading import ReadingPipeline
    from minirag.retrieval.knowledge_base import KnowledgeBase

# Written out: importing what defines them imports torch.
DOMAINS = ("medicine", "law", "news")
ARMS = ("base", "fine-tuned", "rag", "fine-tuned-rag", "raft")
PASSAGES = 2  # that its readers are given, as they were measured
LEAST_SHARED = 0.6  # of a question's rare words, in a passage that they are given
_LABEL = "laboratory.json"  # beside a knowledge base of the laboratory


@dataclass(frozen=True)
class Label:
    """What a knowledge base of the laboratory is about."""

    domain: str
    language: str

    def write(self, directory: Path) -> None:
        """Put it beside the knowledge base."""
        write_text_atomically(directory / _LABEL, json.dumps(dataclasses.asdict(self)) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Label | None:
        """The label of a knowledge base; None if it is not the laboratory's.

        Raises
        ------
        StoreError
            If it can't be read.
        """
        path = directory / _LABEL
        try:
            return cls(**json.loads(path.read_text("utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(
                f"{path} is damaged ({error}): make the knowledge base again."
            ) from error


def add_laboratory_options(parser: argparse.ArgumentParser) -> None:
    """Options of the verbs that answer from the laboratory's knowledge bases."""
    parser.add_argument(
        "--language",
        choices=("en", "es"),
        help="of the documents of --domain (default: en)",
    )
    parser.add_argument(
        "--arm",
        choices=ARMS,
        help="with --domain: which of the five arms answers (default: raft, or rag where no "
        "reader was fine-tuned to read the domain)",
    )
    parser.add_argument(
        "--least-shared",
        type=number_within(0, 10, "share"),
        metavar="SHARE",
        help="with --domain: read no passage that shares less of the question's rare words; a "
        "passage of average length that has a word of its own once shares 0.4 by it; 0 reads "
        f"whatever is found (default: {LEAST_SHARED})",
    )
    parser.add_argument(
        "--refuse-from",
        type=number_within(0, 1, "probability"),
        metavar="P",
        help="with --domain: refuse where the reader gives that a probability of P or more, which "
        "`minirag calibrate --reader` weighs (default: where nothing else is likelier)",
    )


def asked_of(args: argparse.Namespace) -> Label | None:
    """Which of the laboratory's knowledge bases the options mean; None: other documents."""
    if args.domain is not None:
        return Label(args.domain, args.language or "en")
    label = None if args.kb is None else Label.read(args.kb)
    given = (args.arm, args.language, args.least_shared, args.refuse_from)
    if label is None and any(value is not None for value in given):
        raise UsageError(
            "--arm, --language, --least-shared and --refuse-from go with the laboratory's "
            "documents: give --domain, or --kb with a directory that `minirag kb new` made."
        )
    if label is not None and args.language not in (None, label.language):
        raise UsageError(
            f"{args.kb} holds documents in the language {label.language!r}, and "
            f"{args.language!r} is asked for: leave --language out."
        )
    return label


def open_laboratory(
    args: argparse.Namespace, label: Label
) -> tuple[ReadingPipeline, KnowledgeBase]:
    """An arm over a knowledge base of the laboratory."""
    from minirag.combination.live import ARM_OF, answering, live_documents, reader_directory
    from minirag.rag.pipeline import Settings
    from minirag.rag.reading import TrainedReader
    from minirag.training.weights import shipped_or_other

    for option, given in (
        ("--quote", args.quote),
        ("--markers", args.markers),
        ("--temperature", args.temperature > 0),
    ):
        if given:
            raise UsageError(
                f"{option} is for chat models; the laboratory's readers copy their answers from "
                "the passages as they were trained to: leave it out."
            )
    if args.arm is not None and ARM_OF[args.arm].evidence == "none":
        for option, unread in (
            ("--retriever", args.retriever),
            ("-k", args.k),
            ("--threshold", args.threshold),
            ("--least-shared", args.least_shared),
        ):
            if unread is not None:
                raise UsageError(
                    f"{option} is about passages, and the arm {args.arm} answers from memory: "
                    "leave it out, or take an arm that reads (rag, fine-tuned-rag, raft)."
                )
    if args.least_shared is not None and args.retriever == "dense":
        raise UsageError(
            "--least-shared is about words, and --retriever dense does not count them: give "
            "another retriever, or leave it out."
        )
    threshold = -1.0 if args.threshold is None else args.threshold  # the reader itself refuses
    settings = Settings(
        k=PASSAGES if args.k is None else args.k,
        threshold=threshold,
        least_shared=LEAST_SHARED if args.least_shared is None else args.least_shared,
        refuse_from=args.refuse_from,
    )
    arm = args.arm or "raft"
    try:
        place = reader_directory(
            ARM_OF[arm].reader,
            label.domain,
            None if args.reader is None else Path(shipped_or_other(args.reader)),
        )
    except ModelUnavailable:
        if args.arm is not None or args.reader is not None:
            raise
        arm, place = "rag", reader_directory("base", label.domain)
        print(
            f"note: no reader was fine-tuned to read {label.domain}: {place.name} reads as it was "
            "pretrained.",
            file=sys.stderr,
        )
    reader = TrainedReader.load(place)
    if args.kb is not None:
        base = open_base(args.kb, args.encoder, args.precision)
    else:
        from minirag.combination.collection import ENCODER

        encoder = load_encoder(args.encoder or ENCODER, args.precision)
        documents = live_documents(label.domain, label.language)
        name = f"laboratory {label.domain} {label.language}"
        base, _ = cached_under(name, documents, encoder, None, show_bars(args))
    pipeline = answering(arm, reader, base, settings=settings, retriever=args.retriever or "hybrid")
    return pipeline, base


def relearning(directory: Path) -> Training | None:
    """What it cost to train a model on what a knowledge base said; None where none was trained."""
    label = Label.read(directory)
    if label is None:
        return None
    from minirag.combination.live import reader_name, training_of
    from minirag.training.weights import weights_root

    return training_of(weights_root() / reader_name("closed-book", label.domain))
