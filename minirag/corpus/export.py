"""A world as plain files, for other tools: documents as Markdown, questions as JSON lines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from minirag.corpus.slices import SliceQuestion, slice_questions, training_questions
from minirag.corpus.world import World, WorldDocument
from minirag.errors import DiskError, UsageError


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
    UsageError
        If the directory holds anything else already: two worlds in one would be mixed silently.
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
    # Bytes, so that line ends are the same everywhere.
    contents = {name: text.encode("utf-8") for name, text in files.items()}
    try:
        _check_only(contents, directory)
        for name, content in contents.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise DiskError(
            f"could not write the world into {directory} ({error.strerror or error}): choose "
            "another place."
        ) from error
    return len(files)


def _check_only(contents: Mapping[str, bytes], directory: Path) -> None:
    """Refuse a directory that holds anything but some of these files."""
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and (name not in contents or path.read_bytes() != contents[name]):
            raise UsageError(
                f"{directory} holds something else already ({name}): give a new or an empty "
                "directory, or one that holds the same world."
            )


def _lines(questions: Iterable[SliceQuestion]) -> str:
    return "".join(as_json(question) + "\n" for question in questions)
