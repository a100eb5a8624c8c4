"""The laboratory's live knowledge: documents that are changed while they are asked.

An update costs milliseconds and the next answer reflects it; what a model has learned stays in its
weights until it is trained again. In Python::

    from minirag.combination.collection import collection
    from minirag.combination.live import answering, learned_world, reader_directory
    from minirag.rag.reading import TrainedReader
    from minirag.text.documents import Document

    base = collection(learned_world("medicine"), "en")
    reader = TrainedReader.load(reader_directory("raft", "medicine"))
    pipeline = answering("raft", reader, base)
    print(pipeline.ask("Which medicine does the Pofider guideline put first?").text)
    base.upsert([Document("pofider", "The Pofider guideline begins with zubirol.", "Pofider")])
    print(pipeline.ask("Which medicine does the Pofider guideline put first?").text)

On the command line: ``minirag ask --domain medicine``, and ``minirag kb new`` for a knowledge base
of one's own that ``kb add``, ``kb change`` and ``kb remove`` keep current.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from minirag.combination.arms import ARMS, Arm, ReaderName
from minirag.combination.collection import collection_documents, news_documents
from minirag.combination.compare import LEAST_SHARED, PASSAGES
from minirag.corpus.grammar import check_language
from minirag.corpus.world import World
from minirag.errors import CheckpointError, ModelUnavailable, UsageError
from minirag.finetuning.config import LaboratoryData
from minirag.finetuning.laboratory import world_of
from minirag.finetuning.run import RESULT
from minirag.rag.pipeline import Settings
from minirag.rag.reading import ReadingPipeline, TrainedReader
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.text.documents import Document
from minirag.training.weights import weights_root
from minirag.transformer.checkpoints import CONFIG

DOMAINS = ("medicine", "law", "news")
BASE = "gpt-base"  # whose fine-tuned readers answer

# How an arm is called on the command line.
ARM_OF: dict[str, Arm] = dict(
    zip(("base", "fine-tuned", "rag", "fine-tuned-rag", "raft"), ARMS, strict=True)
)


# ------------------------------------------------------------------------------------ the documents


def learned_world(domain: str, fine_tuned: Path | None = None) -> World:
    """The very world whose facts a fine-tuned reader has learned.

    Parameters
    ----------
    fine_tuned : Path, optional
        The reader's directory; default: the shipped closed-book reader's. Without its report it is
        the world that a fine-tuning takes unless told otherwise.
    """
    training = training_of(fine_tuned or weights_root() / reader_name("closed-book", domain))
    known = None if training is None else training.laboratory
    return world_of(known or LaboratoryData(domain=domain, way="closed-book"))


def live_documents(domain: str, language: str, *, moment: str = "after") -> list[Document]:
    """What a domain's knowledge base holds at first.

    Parameters
    ----------
    domain : {"medicine", "law", "news"}
    moment : {"before", "after"}
        Before the cut-off: as the fine-tuned readers learned it; news come after it.

    Raises
    ------
    UsageError
        If there is no such domain, language or moment.
    """
    check_language(language)
    if domain not in DOMAINS:
        raise UsageError(f"the domain is {domain!r}: give one of {', '.join(DOMAINS)}.")
    if domain == "news":
        return news_documents(LaboratoryData().world_seed, language)
    return collection_documents(learned_world(domain), language, moment=moment)


# -------------------------------------------------------------------------------------- the readers


def reader_name(reader: ReaderName, domain: str, base: str = BASE) -> str:
    """How a shipped reader is called: ``gpt-base-medicine-raft``."""
    return base if reader == "base" else f"{base}-{domain}-{reader}"


def reader_directory(
    reader: ReaderName, domain: str, given: Path | None = None, *, base: str = BASE
) -> Path:
    """Where a reader lies: as given, else in ``weights/``.

    Raises
    ------
    ModelUnavailable
        If there is none.
    """
    directory = given or weights_root() / reader_name(reader, domain, base)
    if not (directory / CONFIG).is_file():
        if domain == "news" and reader != "base":
            raise ModelUnavailable(
                f"there is no reader in {directory}: none can be fine-tuned to the news, which "
                "come when its training is over. Take an arm that the base answers (base, rag), or "
                "give the directory of another reader."
            )
        make = f"minirag finetune --base {base} --domain {domain} --way {reader} --out DIR"
        if reader == "base":
            make = f"minirag pretrain {base} --out DIR"
        raise ModelUnavailable(
            f"there is no reader in {directory}: make one with `{make}`, "
            "or give the directory of another."
        )
    return directory


@dataclass(frozen=True)
class Training:
    """What a fine-tuned reader's report says of how it came about."""

    name: str
    seconds: float  # of training steps
    laboratory: LaboratoryData | None  # None: its data was not the laboratory's


def training_of(directory: Path) -> Training | None:
    """The report beside a fine-tuned reader; None if there is none.

    Raises
    ------
    CheckpointError
        If it can't be read.
    """
    path = directory / RESULT
    try:
        values = json.loads(path.read_text("utf-8"))
        what = values.get("laboratory")
        return Training(
            directory.name,
            float(values["seconds"]),
            None if what is None else LaboratoryData.from_json(what),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no report of a fine-tuning ({error}): fine-tune again, or delete it."
        ) from error


# -------------------------------------------------------------------------------------- the answers


def answering(
    arm: str | Arm,
    reader: TrainedReader,
    base: KnowledgeBase | None,
    *,
    settings: Settings | None = None,
    retriever: str = "hybrid",
) -> ReadingPipeline:
    """An arm that can be asked; each question sees the documents of its moment.

    Parameters
    ----------
    arm : str or Arm
        By its name in :data:`ARM_OF`, or itself.
    base : KnowledgeBase, optional
        Not needed by the arms that answer closed book.

    Raises
    ------
    UsageError
        If there is no such arm or retriever, or the arm needs documents and there are none.
    """
    if isinstance(arm, str):
        if arm not in ARM_OF:
            raise UsageError(f"the arm is {arm!r}: give one of {', '.join(ARM_OF)}.")
        arm = ARM_OF[arm]
    settings = settings or Settings(k=PASSAGES, least_shared=LEAST_SHARED)
    if arm.evidence == "none":
        return ReadingPipeline(None, reader, settings)
    if arm.evidence != "retrieved" or base is None:
        raise UsageError(
            f"the arm {arm.name!r} was given no knowledge base to search: give one, or take an arm "
            "that answers from memory (base, fine-tuned)."
        )
    return ReadingPipeline(base.live(retriever), reader, settings)
