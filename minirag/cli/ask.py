"""``minirag ask``: a question, an answer from the documents, and where it stands in them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirag.cli import laboratory
from minirag.cli.answer_texts import FRAMES, Frame
from minirag.cli.answers import answer_as_json, print_explanation, print_piece, print_result
from minirag.cli.bases import (
    ENCODER,
    READER,
    RETRIEVER,
    add_encoder_options,
    add_retriever_option,
    cached_base,
    import_torch,
    load_encoder,
    number_within,
    open_base,
    print_report,
    show_bars,
    threshold_for,
)
from minirag.cli.laboratory import DOMAINS, add_laboratory_options, asked_of, open_laboratory
from minirag.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from minirag.rag.pipeline import Abstention, Answer, Answering
    from minirag.rag.reader import Reader
    from minirag.retrieval.knowledge_base import KnowledgeBase
    from minirag.transformer.machine import Precision

PASSAGES = 4  # that a chat model is given: `Settings`' own, whose module imports torch

_DESCRIPTION = """\
Find the passages nearest to a question, let a language model answer from them,
and show which of them stand behind the answer. Where no passage is near
enough, it says so instead of guessing.

examples:
  minirag ask "How do I freeze the first row?" --kb kb
  minirag ask "How do I freeze the first row?" --docs handbook  # indexes first
  minirag ask "How do I freeze the first row?" --kb kb --explain
  minirag ask "What file extension does a backup copy have?" --kb kb --quote
  minirag ask "..." --domain medicine  # the laboratory's documents and readers
"""


# A cosine, or another likeness of that scale.
threshold = number_within(-1, 1, "likeness")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``ask`` to the command line."""
    parser = subparsers.add_parser(
        "ask",
        help="ask a question and get an answer with its sources",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("question", metavar="QUESTION")
    add_answer_options(parser)
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show scores, prompt, token budget, each token's probability and what it read",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def add_answer_options(parser: argparse.ArgumentParser) -> None:
    """Options of every verb that answers from documents."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--kb", type=Path, help="a knowledge base that `minirag index` made")
    where.add_argument("--docs", type=Path, help="a folder of text; its index is cached")
    where.add_argument(
        "--domain",
        choices=DOMAINS,
        help="the laboratory's invented documents, read by our own readers; made on first use",
    )
    add_laboratory_options(parser)
    parser.add_argument(
        "-k",
        type=int,
        metavar="N",
        help=f"passages to retrieve (default: {PASSAGES}; for the laboratory's readers "
        f"{laboratory.PASSAGES})",
    )
    parser.add_argument(
        "--threshold",
        type=threshold,
        metavar="SCORE",
        help="least cosine of the best passage; -1 never abstains (default: as calibrated; the "
        "laboratory's readers need none, they refuse by themselves)",
    )
    parser.add_argument(
        "--reader",
        metavar="MODEL",
        help=f"writes the answer (default: {READER}; with --domain the arm's)",
    )
    add_retriever_option(parser)
    add_encoder_options(
        parser, f"of a knowledge base its own; with --domain: {RETRIEVER}; else {ENCODER}"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=96, metavar="N", help="longest answer (default: 96)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="above 0, answers vary (default: 0, the likeliest)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of a temperature above 0 (default: 0)"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--quote",
        action="store_true",
        help="answer with a few words of the documents, chosen by the model and never invented; "
        "best for questions about a name, a number, a place",
    )
    how.add_argument(
        "--markers",
        action="store_true",
        help="number the passages and ask for markers like [1], which are checked; for larger "
        "readers, small ones can't",
    )


def run(args: argparse.Namespace) -> int:
    """Answer and print."""
    began = time.perf_counter()
    import_torch()
    if not args.question.strip():
        raise UsageError("the question is empty: ask something, in quotation marks.")
    pipeline, base = open_pipeline(args)
    explained = _decoder_of(pipeline) if args.explain else None
    ready = time.perf_counter() - began
    result = pipeline.ask(args.question, None if args.json else print_piece)
    readings = None if explained is None else _readings(explained, result)
    if args.json:
        print(
            json.dumps(answer_as_json(pipeline, base, result, readings, ready), ensure_ascii=False)
        )
    else:
        print_result(pipeline, base, result, ready, frame_of(args))
        if args.explain:
            print_explanation(result, readings or [])
    return 0


def open_pipeline(args: argparse.Namespace) -> tuple[Answering, KnowledgeBase]:
    """The pipeline that the options ask for, over the knowledge base as it is at each question."""
    label = asked_of(args)
    if label is not None:
        return open_laboratory(args, label)
    return _open_chat_model(args)


def frame_of(args: argparse.Namespace) -> Frame:
    """What is printed around the answers, in the language of the documents asked."""
    label = asked_of(args)
    return FRAMES["en" if label is None else label.language]


def _open_chat_model(args: argparse.Namespace) -> tuple[Answering, KnowledgeBase]:
    from minirag.rag.pipeline import WRITING, Pipeline, Settings
    from minirag.rag.prompt import MARKED, SENTENCE
    from minirag.text.report import Report

    if args.max_new_tokens < 1:
        raise UsageError(f"--max-new-tokens is {args.max_new_tokens}: give 1 or more.")
    sampling = dataclasses.replace(
        WRITING,
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        seed=args.seed,
    )
    instruction = MARKED if args.markers else SENTENCE
    settings = Settings(
        k=PASSAGES if args.k is None else args.k,
        instruction=instruction,
        sampling=sampling,
        quote=args.quote,
    )  # a wrong one is told before models are loaded
    report = Report()
    if args.kb is not None:
        base = open_base(args.kb, args.encoder, args.precision)
    else:
        encoder = load_encoder(args.encoder, args.precision)
        base, _ = cached_base(args.docs, encoder, report, progress=show_bars(args))
    kind = args.retriever or "dense"
    least = threshold_for(base.encoder.name, args.threshold)
    pipeline = Pipeline(
        base.live(kind),
        chat_reader(args.reader or READER, args.precision),
        dataclasses.replace(settings, threshold=least),
    )
    print_report(report)
    return pipeline, base


def chat_reader(name: str, precision: Precision) -> Reader:
    """A reader that was trained on conversations, which is what it will be given.

    Raises
    ------
    CheckpointError
        If it was not: the laboratory's, or a plain language model.
    """
    from minirag.rag.reader import Reader

    reader = Reader.load(name, precision=precision)
    if reader.tokenizer.chat_template is None:
        raise CheckpointError(
            f"{reader.name} was not trained on conversations (it has no chat template): give a "
            f"chat model such as {READER}, or ask the laboratory's readers with --domain."
        )
    return reader


def _decoder_of(pipeline: Answering) -> Reader:
    """The reader, if one can look into it."""
    from minirag.rag.reader import Reader
    from minirag.transformer.models import Decoder

    reader = pipeline.reader
    if not isinstance(reader.model, Decoder):
        raise UsageError(
            f"--explain shows what a decoder's attention read; {reader.name} is an "
            f"{reader.model.config.kind}: leave it out."
        )
    return Reader(reader.model, reader.tokenizer, reader.name, reader.fingerprint)


def _readings(reader: Reader, result: Answer | Abstention) -> list[Any]:
    from minirag.rag.explain import attention_read
    from minirag.rag.pipeline import Answer

    return attention_read(reader, result) if isinstance(result, Answer) else []
