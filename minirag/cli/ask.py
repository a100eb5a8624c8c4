"""``minirag ask``: a question, an answer from the documents, and where it stands in them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirag.cli import laboratory
from minirag.cli.answer_texts import FRAMES, Frame
from minirag.cli.bases import (
    READER,
    add_encoder_options,
    add_retriever_option,
    cached_base,
    counted,
    import_torch,
    load_encoder,
    open_base,
    print_report,
    show_bars,
    threshold_for,
)
from minirag.cli.laboratory import DOMAINS, add_laboratory_options, asked_of, open_laboratory
from minirag.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from minirag.rag.citations import Citation
    from minirag.rag.pipeline import Abstention, Answer, Answering
    from minirag.rag.reader import Reader
    from minirag.retrieval.knowledge_base import KnowledgeBase
    from minirag.retrieval.retriever import Hit
    from minirag.text.documents import Passage
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


def threshold(text: str) -> float:
    """A cosine, or another likeness of that scale, as it is typed."""
    with contextlib.suppress(ValueError):
        if -1 <= float(text) <= 1:  # not a number fails, too
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no likeness: give a number from -1 to 1.")


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
    add_encoder_options(parser)
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
            _print_explanation(result, readings or [])
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


# -- for people ------------------------------------------------------------------------------------


# Documents and models may hold control characters, which a terminal would obey.
_CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


def plain(text: str) -> str:
    """The text without control characters."""
    return text.translate(_CONTROL)


def print_piece(piece: str) -> None:
    """A part of the answer, as soon as it is written."""
    print(plain(piece), end="", flush=True)


def print_wrapped(text: str, indent: str = "", max_lines: int | None = None) -> None:
    """As wide as the terminal, and no wider than one reads with ease."""
    width = min(shutil.get_terminal_size().columns, 100)
    flat = plain(" ".join(text.split()))
    print(
        textwrap.fill(
            flat,
            width,
            initial_indent=indent,
            subsequent_indent=indent,
            max_lines=max_lines,
            placeholder=" ...",
        )
    )


def place_of(passage: Passage) -> str:
    """Where a passage stands: its document and headings."""
    if not passage.heading:
        return plain(passage.document_id)
    return plain(f"{passage.document_id}  {passage.heading}")


def print_result(
    pipeline: Answering,
    base: KnowledgeBase,
    result: Answer | Abstention,
    ready: float | None = None,
    frame: Frame = FRAMES["en"],
) -> None:
    """The answer's end (it was streamed), its sources, and how long it took."""
    from minirag.rag.pipeline import Answer, nearness
    from minirag.rag.reading import ReadingPipeline

    if not isinstance(result, Answer):
        print_wrapped(frame.abstention(result))
        if result.hits:
            print(f"\n{frame.nearest}")
            print_hits(result.hits, frame)
        return
    print("\n" if result.text else f"{frame.nothing}\n")
    if result.invalid_citations:
        numbers = ", ".join(f"[{n}]" for n in result.invalid_citations)
        print(f"warning: the model cited {numbers}, which it was not given.", file=sys.stderr)
    if result.generation.stopped_by == "length":
        n = len(result.generation.ids)
        print(f"warning: cut off after {n} tokens: see --max-new-tokens.", file=sys.stderr)
    if result.generation.stopped_by == "repeat":
        print("note: ended where the model began to repeat itself.", file=sys.stderr)
    if result.prompt.dropped:
        print(
            f"warning: {len(result.prompt.dropped)} of the {len(result.hits)} passages did not fit "
            f"into the {result.prompt.context} tokens that {pipeline.reader.name} reads.",
            file=sys.stderr,
        )
    if result.citations:
        print(frame.sources)
        for citation in result.citations:
            print(f"[{citation.number}] {place_of(citation.passage)}")
            if citation.quoted:
                start, end = (citation.passage.start + place for place in citation.quoted)
                how = frame.quoted.format(start=start, end=end)
            else:
                by = frame.by_the_model if citation.marked else frame.by_words
                how = frame.holds.format(share=citation.support, by=by)
            near = nearness(result.hits[citation.number - 1])
            print(f"    {frame.similarity} {near:.2f}, {how}")
            print_wrapped(_around(citation), indent="    ", max_lines=3)
        if isinstance(pipeline, ReadingPipeline):  # few and short: see what it chose among
            print(frame.read)
            print_hits(result.read, frame)
    elif not result.hits:
        print(frame.from_memory)
    else:
        if result.text:
            print(frame.unsupported)
        print(frame.retrieved)
        print_hits(result.hits, frame)
    seconds = result.timings
    started = "" if ready is None else frame.started.format(seconds=ready)
    took = frame.took.format(retrieve=seconds.retrieve, read=seconds.read)
    print(f"\n{pipeline.reader.name}, {base.encoder.name}; {started}{took}")


def _around(citation: Citation) -> str:
    """The passage; for a quote, from the sentence or line that holds it."""
    text = citation.passage.text
    if citation.quoted is None:
        return text
    before = text[: citation.quoted[0]]
    return text[max(before.rfind(". ") + 1, before.rfind("\n") + 1) :]


def print_hits(hits: list[Hit], frame: Frame = FRAMES["en"]) -> None:
    """How near they are, and where they stand, numbered."""
    for number, hit in enumerate(hits, start=1):
        print(f"[{number}] {described(hit, frame)}")


def described(hit: Hit, frame: Frame) -> str:
    """Its cosine with the question, which abstaining goes by, whatever ranked it; and its place."""
    from minirag.rag.pipeline import nearness

    return f"{frame.similarity} {nearness(hit):.2f}  {place_of(hit.passage)}"


def _print_explanation(result: Answer | Abstention, readings: list[Any]) -> None:
    from minirag.rag.pipeline import Answer

    print("\n== retrieved ==")
    print_hits(result.hits)
    if not isinstance(result, Answer):
        return
    prompt = result.prompt
    print("\n== token budget ==")
    print(
        f"the model reads {prompt.context}; prompt {prompt.used}, kept for the answer "
        f"{prompt.reserved}, free {prompt.context - prompt.used - prompt.reserved}; "
        f"{counted(len(prompt.passages), 'passage')} given, {len(prompt.dropped)} dropped"
    )
    print(f"\n== prompt ==\n{plain(prompt.text)}")
    print("== answer, token by token ==")
    heads = "".join(f"  [{n}] " for n in range(1, len(prompt.passages) + 1))
    print(f"{'token':<16}probability  attention on passages{heads}")
    for reading in readings:
        shares = "".join(f"{share:>6.0%}" for share in reading.passages)
        print(
            f"{reading.text!r:<16}{reading.probability:>11.3f}  "
            f"{1 - reading.elsewhere:>8.0%} of all, thereof{shares}"
        )
    print(f"ended by: {result.generation.stopped_by}")


# -- for programs ----------------------------------------------------------------------------------


def answer_as_json(
    pipeline: Answering,
    base: KnowledgeBase,
    result: Answer | Abstention,
    readings: list[Any] | None,
    ready: float | None = None,
) -> dict[str, object]:
    """An answer or an abstention as plain values."""
    from minirag.rag.pipeline import Answer

    values: dict[str, object] = {
        "question": result.question,
        "answer": result.text if isinstance(result, Answer) else None,
        "abstained": result.abstained,
        "citations": [],
        "retrieved": [hit_as_json(hit) for hit in result.hits],
        "threshold": pipeline.settings.threshold,
        "models": {
            "reader": {"name": pipeline.reader.name, "fingerprint": pipeline.reader.fingerprint},
            "encoder": {"name": base.encoder.name, "fingerprint": base.encoder.fingerprint},
        },
        "timings": {
            **({} if ready is None else {"load": round(ready, 4)}),
            "retrieve": round(result.timings.retrieve, 4),
            "first_token": round(result.timings.first_token, 4),
            "read": round(result.timings.read, 4),
        },
    }
    if not isinstance(result, Answer):
        return {**values, "reason": result.text}
    values["citations"] = [
        {
            "number": c.number,
            **_hit_json_of(c.passage, c.score),
            "support": round(c.support, 4),
            "marked": c.marked,
            "quoted": [c.passage.start + place for place in c.quoted] if c.quoted else None,
        }
        for c in result.citations
    ]
    values["invalid_citations"] = result.invalid_citations
    values["stopped_by"] = result.generation.stopped_by
    values["tokens"] = {
        "prompt": result.prompt.used,
        "answer": len(result.generation.ids),
        "context": result.prompt.context,
        "passages_dropped": len(result.prompt.dropped),
    }
    if readings is not None:
        values["prompt"] = result.prompt.text
        values["token_readings"] = [
            {
                "text": r.text,
                "probability": round(r.probability, 6),
                "passages": [round(share, 4) for share in r.passages],
                "elsewhere": round(r.elsewhere, 4),
            }
            for r in readings
        ]
    return values


def hit_as_json(hit: Hit) -> dict[str, object]:
    """A passage found, as plain values."""
    return {**_hit_json_of(hit.passage, hit.score), "similarity": _rounded(hit.similarity)}


def _rounded(similarity: float | None) -> float | None:
    return None if similarity is None else round(float(similarity), 6)


def _hit_json_of(passage: Passage, score: float) -> dict[str, object]:
    return {
        "document": passage.document_id,
        "heading": passage.heading,
        "start": passage.start,
        "end": passage.end,
        "text": passage.text,
        "score": round(float(score), 6),
    }
