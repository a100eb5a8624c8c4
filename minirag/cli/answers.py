"""An answer, as people read it in a terminal, and as programs read it (``--json``)."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from minirag.cli.answer_texts import FRAMES, Frame
from minirag.cli.bases import counted

if TYPE_CHECKING:
    from minirag.rag.citations import Citation
    from minirag.rag.pipeline import Abstention, Answer, Answering
    from minirag.retrieval.knowledge_base import KnowledgeBase
    from minirag.retrieval.retriever import Hit
    from minirag.text.documents import Passage

# -- for people ------------------------------------------------------------------------------------


_BROKEN = 60  # characters; a shorter line ends where its writer ended it
# Documents and models may hold control characters, which a terminal would obey.
_CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


def plain(text: str) -> str:
    """The text without control characters."""
    return text.translate(_CONTROL)


def print_piece(piece: str) -> None:
    """A part of the answer, as soon as it is written."""
    print(plain(piece), end="", flush=True)


def text_width() -> int:
    """As wide as the terminal, and no wider than one reads with ease."""
    return min(shutil.get_terminal_size().columns, 100)


def print_wrapped(text: str, indent: str = "", max_lines: int | None = None) -> None:
    """A text in lines of :func:`text_width`, whatever its own spaces and lines."""
    flat = plain(" ".join(text.split()))
    print(
        textwrap.fill(
            flat,
            text_width(),
            initial_indent=indent,
            subsequent_indent=indent,
            max_lines=max_lines,
            placeholder=" ...",
        )
    )


def unbroken(text: str) -> list[str]:
    """The lines of a text, with those put together that an editor broke at its own width.

    A line goes on where the one before it is long and it begins with a letter or a digit, not with
    the sign of a list, a heading or a table, nor further in, as code does.
    """
    lines: list[str] = []
    long = False
    for line in text.splitlines():
        if long and re.match(r"(?!\d+[.)] )\w", line):
            lines[-1] += f" {line.rstrip()}"
        else:
            lines.append(line.rstrip())
        long = len(line) >= _BROKEN and bool(re.match(r"[\w(\"'¿¡*-]", line))
    return lines


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
    print()
    print_wrapped(f"{pipeline.reader.name}, {base.encoder.name}; {started}{took}")


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
    """What abstaining goes by, whatever ranked it: its cosine with the question, the rare words
    that they share; and its place.
    """
    from minirag.rag.pipeline import nearness

    words = "" if hit.shared is None else f", {frame.shared} {hit.shared:.2f}"
    return f"{frame.similarity} {nearness(hit):.2f}{words}  {place_of(hit.passage)}"


def print_explanation(result: Answer | Abstention, readings: list[Any]) -> None:
    """The glass box: what was retrieved, the prompt, and each token of the answer."""
    from minirag.rag.pipeline import Answer
    from minirag.rag.reading import Refusal

    print("\n== retrieved ==")
    print_hits(result.hits)
    if isinstance(result, Refusal):
        print(f"\n== refused ==\nprobability of a refusal: {result.probability:.3f}")
    if not isinstance(result, Answer):
        return
    prompt = result.prompt
    print("\n== token budget ==")
    print_wrapped(
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
    from minirag.rag.reading import Refusal

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
    if isinstance(result, Refusal):
        values["refusing"] = round(result.probability, 6)
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
    return {
        **_hit_json_of(hit.passage, hit.score),
        "similarity": _rounded(hit.similarity),
        "shared": _rounded(hit.shared),
    }


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
