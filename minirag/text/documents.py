"""What the package reads and cites: a document, and a passage cut out of one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """One text with a name.

    Attributes
    ----------
    id : str
        Unique in its collection. For a file in a folder: its path below that folder, with ``/``.
    text : str
        The text exactly as decoded; all offsets count its characters (code points).
    title : str
        First heading, or the file's name; may be empty.
    source : str
        Path of the file it was read from, or empty.
    """

    id: str
    text: str
    title: str = ""
    source: str = ""


@dataclass(frozen=True)
class Passage:
    """A stretch of one document, small enough to be encoded, retrieved and cited.

    Attributes
    ----------
    id : str
        ``"{document_id}#{start}-{end}"``.
    document_id : str
        The :class:`Document` it was cut out of.
    start, end : int
        Characters of the document's text: ``text == document.text[start:end]``.
    text : str
        The stretch itself, unchanged.
    heading : str
        The headings it stands under, ``"Title > Section > Subsection"``; may be empty.
    """

    id: str
    document_id: str
    start: int
    end: int
    text: str
    heading: str

    @classmethod
    def cut(cls, document: Document, start: int, end: int, heading: str = "") -> Passage:
        """Cut ``document.text[start:end]`` out as a passage."""
        text = document.text[start:end]
        return cls(f"{document.id}#{start}-{end}", document.id, start, end, text, heading)
