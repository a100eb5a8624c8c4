"""What went otherwise than a user would expect, collected to be shown once and whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["skipped", "altered", "truncated"]


@dataclass(frozen=True)
class Note:
    """One thing worth saying.

    Attributes
    ----------
    name : str
        The file, line or document it is about.
    what : str
        What happened, to be read after the name: ``"is empty, and was left out"``.
    kind : {"skipped", "altered", "truncated"}
        Left out; kept, but not as it stood; kept, but an encoder will not see all of it.
    """

    name: str
    what: str
    kind: Kind

    def __str__(self) -> str:
        return f"{self.name} {self.what}"


@dataclass
class Report:
    """Notes in the order in which they came."""

    notes: list[Note] = field(default_factory=list)

    def add(self, name: str, what: str, kind: Kind) -> None:
        """Collect one note."""
        self.notes.append(Note(name, what, kind))

    def count(self, kind: Kind) -> int:
        """How many notes are of one kind."""
        return sum(note.kind == kind for note in self.notes)

    def lines(self, limit: int = 10) -> list[str]:
        """The first ``limit`` notes as sentences, and one more line that counts the rest."""
        lines = [f"{note}." for note in self.notes[:limit]]
        if len(self.notes) > limit:
            lines.append(f"... and {len(self.notes) - limit} more of the kind.")
        return lines
