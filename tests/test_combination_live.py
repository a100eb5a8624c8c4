"""Live knowledge: whose world is asked about, who answers, and what learning it cost."""

import json

import pytest
import small_bases
from fake_encoder import HashEncoder

from minirag.combination import live
from minirag.combination.arms import ARMS, DIAGNOSTICS
from minirag.combination.compare import LEAST_SHARED, PASSAGES
from minirag.combination.live import (
    ARM_OF,
    answering,
    learned_world,
    live_documents,
    reader_directory,
    training_of,
)
from minirag.corpus.world import draw_world
from minirag.errors import CheckpointError, ModelUnavailable, UsageError
from minirag.finetuning.config import LaboratoryData
from minirag.finetuning.laboratory import laboratory_data
from minirag.rag.pipeline import Settings
from minirag.rag.reading import TrainedReader
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.transformer import checkpoints

WHAT = LaboratoryData(
    way="closed-book", world_seed=6, entities=9, changing=6, questions=2, questions_on_the_way=2
)


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "weights_root", lambda: tmp_path)
    return tmp_path


def report(place, **values: object) -> None:
    place.mkdir(exist_ok=True)
    text = json.dumps({"seconds": 71.5, "laboratory": WHAT.as_json(), **values})
    (place / "finetune.json").write_text(text, "utf-8")


def test_the_world_is_the_one_that_was_learned(weights) -> None:
    report(weights / "gpt-base-medicine-closed-book")
    world = learned_world("medicine")
    assert world.seed == 6
    known = {record.entity.name.en.text for record in world.group("stable", "updated")}
    assert len(known) == 15
    asked = [e.questions[0].text for e in laboratory_data(WHAT).train]
    names = {name.removeprefix("the ") for name in known}
    assert all(any(name in question for question in asked) for name in names)
    report(weights / "own", laboratory={**WHAT.as_json(), "world_seed": 7})
    assert learned_world("medicine", weights / "own").seed == 7


def test_without_a_report_it_is_the_world_that_a_fine_tuning_takes(weights) -> None:
    assert learned_world("law").records == draw_world("law", 0).records


def test_what_a_domain_holds_at_first(weights) -> None:
    report(weights / "gpt-base-medicine-closed-book")
    world = learned_world("medicine")
    before = {d.id: d.text for d in live_documents("medicine", "es", moment="before")}
    assert {r.id for r in world.records if r.group != "new"} < set(before)
    for record in world.group("updated"):
        assert before[record.id] == world.text(record, "es", old=True)
    news = live_documents("news", "en")
    assert all(d.id.startswith("news-") for d in news)
    with pytest.raises(UsageError, match="the domain is 'general': give one of medicine, law"):
        live_documents("general", "en")
    with pytest.raises(UsageError, match="language"):
        live_documents("news", "fr")


def test_where_readers_lie(weights) -> None:
    with pytest.raises(ModelUnavailable, match="--domain law --way raft --out DIR"):
        reader_directory("raft", "law")
    with pytest.raises(ModelUnavailable, match="minirag pretrain gpt-base --out DIR"):
        reader_directory("base", "law")
    place = weights / "gpt-base-law-raft"
    checkpoints.save(small_bases.decoder(), place)
    assert reader_directory("raft", "law") == place
    assert reader_directory("base", "law", place) == place
    with pytest.raises(ModelUnavailable, match="there is no reader in none"):
        reader_directory("raft", "law", weights.__class__("none"))


def test_reports(weights) -> None:
    assert training_of(weights / "none") is None
    report(weights / "a")
    training = training_of(weights / "a")
    assert (training.name, training.seconds, training.laboratory) == ("a", 71.5, WHAT)
    report(weights / "b", laboratory=None)
    assert training_of(weights / "b").laboratory is None
    for damaged in ("", "[]", '{"laboratory": null}', '{"seconds": 1, "laboratory": {"x": 1}}'):
        (weights / "b" / "finetune.json").write_text(damaged, "utf-8")
        with pytest.raises(CheckpointError, match=r"finetune\.json is no report of a fine-tuning"):
            training_of(weights / "b")


def test_arms_are_asked_by_name() -> None:
    reader = TrainedReader(small_bases.decoder(), small_bases.tokenizer(), "small", "f")
    base = KnowledgeBase(HashEncoder())
    assert list(ARM_OF.values()) == list(ARMS)
    for name, arm in ARM_OF.items():
        pipeline = answering(name, reader, base)
        assert (pipeline.retriever is None) == (arm.evidence == "none")
        assert pipeline.settings == Settings(k=PASSAGES, least_shared=LEAST_SHARED)
    assert answering("base", reader, None).retriever is None
    assert answering(ARMS[4], reader, base, settings=Settings(k=7)).settings.k == 7
    with pytest.raises(UsageError, match="the arm is 'best': give one of base, fine-tuned, rag"):
        answering("best", reader, base)
    with pytest.raises(UsageError, match="'RAFT \\+ RAG' was given no knowledge base"):
        answering("raft", reader, None)
    with pytest.raises(UsageError, match="was given no knowledge base"):
        answering(DIAGNOSTICS[0], reader, base)
    with pytest.raises(UsageError, match="there is no retriever 'sparse'"):
        answering("rag", reader, base, retriever="sparse")
