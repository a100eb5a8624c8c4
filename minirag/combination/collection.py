"""The laboratory's collections: documents whose truth is known, as knowledge bases to be asked.

Two kinds: a world's documents (medicine, law) with the entries on general knowledge beside them,
and the dated news of the invented country.
"""

from __future__ import annotations

from minirag.corpus.news import news
from minirag.corpus.slices import general_documents
from minirag.corpus.world import World
from minirag.retrieval.encoder import BiEncoder
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.retrieval.retriever import TextEncoder
from minirag.text.documents import Document

ENCODER = "retriever"  # of weights/: made for these documents, in both languages


def collection(
    world: World,
    language: str,
    encoder: TextEncoder | None = None,
    *,
    moment: str = "after",
    both_versions: bool = False,
    general: bool = True,
    progress: bool = False,
) -> KnowledgeBase:
    """Make the knowledge base of a world, in one language.

    Parameters
    ----------
    encoder : TextEncoder, optional
        Default: the shipped retriever.
    moment, both_versions, general
        See :func:`collection_documents`.

    Returns
    -------
    KnowledgeBase
        Its ids are those that :class:`minirag.corpus.slices.SliceQuestion` names as documents.
    """
    base = KnowledgeBase(BiEncoder.load(ENCODER) if encoder is None else encoder)
    documents = collection_documents(
        world, language, moment=moment, both_versions=both_versions, general=general
    )
    base.add(documents, progress=progress)
    return base


def collection_documents(
    world: World,
    language: str,
    *,
    moment: str = "after",
    both_versions: bool = False,
    general: bool = True,
) -> list[Document]:
    """The documents of a world's collection, oldest first, then those of general knowledge.

    Parameters
    ----------
    moment : {"before", "after"}
        Before the cut-off (nothing revised, nothing new) or after it.
    both_versions : bool
        Keep superseded versions, with "-v1" behind their ids, beside their revisions.
    general : bool
        With an entry about each well-known entity of the general world.
    """
    documents = world.documents(language, moment=moment, both_versions=both_versions)
    if general:
        documents += general_documents(language)
    return [Document(d.id, d.text, d.title) for d in documents]


def news_documents(seed: int, language: str, n: int = 200) -> list[Document]:
    """What holds after ``n`` pieces of news: those that no later one has superseded, oldest first.

    A knowledge base follows the feed by ``base.update_from(news_documents(seed, language, n))``
    with growing ``n``: what is out of date goes in the moment in which the news comes.
    """
    items = news(seed, language, n)
    superseded = {item.supersedes for item in items}
    return [
        Document(item.id, item.text, item.headline) for item in items if item.id not in superseded
    ]


def texts_of(base: KnowledgeBase) -> dict[str, str]:
    """The documents' texts by id, as :func:`minirag.combination.compare.run_arms` wants them."""
    return {document.id: document.text for document in base.documents}
