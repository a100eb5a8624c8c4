"""A live FAQ: an answer that a person wrote, given word for word to whoever asks for it.

Frequent questions deserve checked answers. The question asked is compared with the stored questions
(question to question, not question to passage); if the nearest is near enough, its answer is given
as it stands, and nothing is generated. If not, that is said: an answer to another question is worse
than none. Entries can be added, changed and removed while it is asked; nothing is trained.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from minirag.errors import DataError, UsageError
from minirag.files import write_text_atomically
from minirag.rag.faq_threshold import default_threshold
from minirag.rag.likeness import ByVectors, ByWords, Likeness
from minirag.retrieval.retriever import TextEncoder
from minirag.text.jsonl import read_json_lines

_FIELDS = ("id", "question", "answer")


@dataclass(frozen=True)
class FaqEntry:
    """A stored question and its answer."""

    id: str
    question: str
    answer: str

    def __post_init__(self) -> None:
        for name in _FIELDS:
            if not getattr(self, name).strip():
                raise UsageError(f"the {name} of a FAQ entry is empty: write one.")


@dataclass(frozen=True)
class FaqReply:
    """What a question found."""

    question: str
    nearest: FaqEntry | None  # None: there are no entries
    likeness: float  # of the nearest; 0 without entries
    threshold: float

    @property
    def entry(self) -> FaqEntry | None:
        """The entry that answers; None if the nearest is not near enough."""
        return self.nearest if self.likeness >= self.threshold else None

    @property
    def text(self) -> str:
        """The entry's answer word for word, or a sentence that there is none."""
        if self.entry is not None:
            return self.entry.answer
        if self.nearest is None:
            return "The FAQ holds no entries yet."
        return (
            f"The FAQ doesn't answer this: the nearest question is {self.nearest.question!r}, "
            f"alike to {self.likeness:.2f}, and below {self.threshold:.2f} it is taken for "
            "another question."
        )


@dataclass(frozen=True)
class _State:
    entries: dict[str, FaqEntry]
    likeness: Likeness


class Faq:
    """Questions with answers, kept current while they are asked.

    Any thread may ask while another one updates: a question sees the entries before or after an
    update, never between. Updates are all or nothing: they check first and change after.

    Parameters
    ----------
    encoder : TextEncoder, optional
        Compares by vectors; without one, words are compared.
    threshold : float, optional
        Least likeness at which two questions are taken for the same. Default: as measured for the
        encoder or for words, see :mod:`minirag.rag.faq_threshold`.

    Raises
    ------
    UsageError
        If nothing was measured for the encoder, and no threshold is given.
    """

    def __init__(
        self, encoder: TextEncoder | None = None, *, threshold: float | None = None
    ) -> None:
        likeness: Likeness = ByWords() if encoder is None else ByVectors.empty(encoder)
        if threshold is None:
            threshold = default_threshold(likeness.name)
        if threshold is None:
            raise UsageError(
                f"no FAQ threshold was measured for {likeness.name}: give one, or measure it with "
                f"`minirag evaluate --faq medicine --encoder {likeness.name}`."
            )
        self.threshold = threshold
        self._writing = threading.Lock()
        self._state = _State({}, likeness)  # replaced in one assignment, never changed

    @property
    def entries(self) -> list[FaqEntry]:
        """All entries, in the order in which they came."""
        return list(self._state.entries.values())

    def __len__(self) -> int:
        return len(self._state.entries)

    def __contains__(self, id: str) -> bool:
        return id in self._state.entries

    # -- asking ------------------------------------------------------------------------------------

    def ask(self, question: str) -> FaqReply:
        """The answer of the entry whose question is nearest, if it is near enough.

        Raises
        ------
        UsageError
            If the question is empty.
        """
        return self.ask_many([question])[0]

    def ask_many(self, questions: Sequence[str]) -> list[FaqReply]:
        """:meth:`ask` for several questions, of one and the same state."""
        if any(not question.strip() for question in questions):
            raise UsageError("the question is empty: ask something, in quotation marks.")
        state = self._state
        replies = []
        for question, found in zip(questions, state.likeness.nearest_many(questions), strict=True):
            id, likeness = found or ("", 0.0)
            replies.append(FaqReply(question, state.entries.get(id), likeness, self.threshold))
        return replies

    # -- changing ----------------------------------------------------------------------------------

    def add(self, entries: Iterable[FaqEntry]) -> None:
        """Add entries whose ids and questions are not there yet; else UsageError, and none is."""
        new = list(entries)
        with self._writing:
            for entry in new:
                if entry.id in self:
                    raise UsageError(f"there is an entry {entry.id!r} already: change it instead.")
            self._update([], new)

    def change(self, entry: FaqEntry) -> None:
        """Replace the entry of the same id, which must be there; it keeps its place."""
        with self._writing:
            self.entry(entry.id)
            self._update([], [entry])

    def remove(self, ids: str | Iterable[str]) -> None:
        """Remove entries; if one is not there, none is removed and UsageError raised."""
        gone = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
        with self._writing:
            for id in gone:
                self.entry(id)
            self._update(gone, [])

    def update_from(self, entries: Iterable[FaqEntry]) -> None:
        """Hold exactly these entries from now on; what is as before is not encoded again."""
        new = list(entries)
        with self._writing:
            self._update(sorted(self._state.entries.keys() - {entry.id for entry in new}), new)

    def entry(self, id: str) -> FaqEntry:
        """The entry of this id; UsageError if there is none."""
        entry = self._state.entries.get(id)
        if entry is None:
            raise UsageError(f"there is no entry {id!r} in the FAQ.")
        return entry

    def _update(self, drop: Sequence[str], put: Sequence[FaqEntry]) -> None:
        before = self._state.entries
        entries = {id: entry for id, entry in before.items() if id not in drop}
        entries.update((entry.id, entry) for entry in put)
        _check_distinct([entry.id for entry in put], "id")
        _check_distinct([_bare(entry.question) for entry in entries.values()], "question")
        asked = {
            entry.id: entry.question
            for entry in put
            if entry.id not in before or before[entry.id].question != entry.question
        }
        self._state = _State(entries, self._state.likeness.changed(drop, asked))

    # -- saving ------------------------------------------------------------------------------------

    def save(self, path: Path | str) -> None:
        """Write the entries as JSON lines, all or nothing; DiskError if that fails."""
        lines = [json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in self.entries]
        write_text_atomically(Path(path), "".join(lines))

    @classmethod
    def load(
        cls,
        path: Path | str,
        encoder: TextEncoder | None = None,
        *,
        threshold: float | None = None,
    ) -> Faq:
        """Read what :meth:`save` or a person wrote; see :func:`read_entries`."""
        faq = cls(encoder, threshold=threshold)
        faq.update_from(read_entries(Path(path)))
        return faq


def read_entries(path: Path) -> list[FaqEntry]:
    """Read ``{"id": ..., "question": ..., "answer": ...}``, one a line.

    Raises
    ------
    DataError
        If a line is not as described, or says what another one says; its number is named.
    """
    entries: list[FaqEntry] = []
    for line in read_json_lines(path):
        if line.value is None or line.problem:
            raise DataError(f"{path}:{line.number}: the line {line.problem}.")
        for name in _FIELDS:
            value = line.value.get(name)
            if not isinstance(value, str) or not value.strip():
                raise DataError(f'{path}:{line.number}: the "{name}" is missing.')
        if others := sorted(line.value.keys() - set(_FIELDS)):
            raise DataError(
                f'{path}:{line.number}: "{others[0]}" is nothing that an entry has: '
                "it has id, question and answer."
            )
        entries.append(FaqEntry(*(line.value[name] for name in _FIELDS)))
    try:
        _check_distinct([entry.id for entry in entries], "id")
        _check_distinct([_bare(entry.question) for entry in entries], "question")
    except UsageError as error:
        raise DataError(f"{path}: {error}") from None
    return entries


def _bare(question: str) -> str:
    return " ".join(question.lower().split())


def _check_distinct(values: Sequence[str], what: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise UsageError(f"two FAQ entries have the {what} {value!r}: keep one of them.")
        seen.add(value)
