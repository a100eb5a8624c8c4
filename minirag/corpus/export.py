"""A world as plain files, for other tools: documents as Markdown, questions as JSON lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minirag.corpus.slices import SliceQuestion, slice_questions, training_questions
from minirag.corpus.world import World, WorldDocument
from minirag.errors import DiskError


def as_markdown(document: WorldDocument) -> str:
    """Return a document as Markdown: its title as a heading, its date, its text."""
    return f"# {document.title}\n\n*{document.date.isoformat()}*\n\n{document.text}\n"


def as_json(thing: Any) -> str:
    """Return a dataclass as one line of JSON, dates as ISO text."""
    return json.dumps(dataclasses.asdict(thing), ensure_ascii=False, default=str)


def export_world(world: World, language: str, directory: Path, *, n_questions: int = 400) -> int:
    """Write a world's documents and questions into a directory.

    ``before/ID.md`` are the documents until the cut-off, ``after/ID.md`` those after it,
    ``training.jsonl`` the questions about what a fine-tuning may see, ``questions.jsonl`` those of
    the six slices. The same world gives the same bytes on any machine.

    Returns
    -------
    int
        How many files were written.

    Raises
    ------
    DiskError
        If a file can't be written.
    """
    files: dict[str, str] = {}
    for moment in ("before", "after"):
        for document in world.documents(language, moment=moment):
            files[f"{moment}/{document.id}.md"] = as_markdown(document)
    slices = slice_questions(world, language, n_questions).values()
    files["questions.jsonl"] = _lines(question for questions in slices for question in questions)
    files["training.jsonl"] = _lines(training_questions(world, language))
    try:
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode("utf-8"))  # bytes: the same line ends everywhere
    except OSError as error:
        raise DiskError(
            f"could not write the world into {directory}: {error.strerror or error}. "
            "Free some space or choose another place."
        ) from error
    return len(files)


def _lines(questions: Iterable[SliceQuestion]) -> str:
    return "".join(as_json(question) + "\n" for question in questions)
