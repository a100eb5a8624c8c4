"""The laboratory's readers in a pipeline: what they read, what is cited, when they refuse."""

import dataclasses

import pytest
import small_bases
import tiny_models
from fake_encoder import HashEncoder
from tiny_retriever import save_base

from minirag.corpus.questions import Question, ReadingExercise
from minirag.errors import CheckpointError, ModelUnavailable, UsageError
from minirag.rag import reading
from minirag.rag.conversation import Conversation
from minirag.rag.explain import attention_read
from minirag.rag.names import names_of
from minirag.rag.pipeline import Abstention, Answer, Settings, Unmentioned
from minirag.rag.reader import Reader
from minirag.rag.reading import ReadingPipeline, Refusal, TrainedReader, where_it_stands
from minirag.rag.rewriting import RuleRewriter
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.text.documents import Document, Passage
from minirag.text.reading_format import END, UNKNOWN, reading_prompt, reading_sources
from minirag.training.evaluate_reading import answer_exercises, encoded_prompts
from minirag.transformer import checkpoints
from minirag.transformer.generation import Generation

DOCUMENTS = [
    Document("a", "Fufidum is stored between 2 and 8 °C. Adults take 45 mg.", "Fufidum"),
    Document("b", "Febedum is stored in the dark. Adults take 5 mg.", "Febedum"),
    Document("c", "Vepetitis is treated with fufidum.", "Vepetitis"),
]
QUESTION = "How is fufidum stored?"


def reader(kind: str = "decoder") -> TrainedReader:
    make = small_bases.decoder if kind == "decoder" else small_bases.encoder_decoder
    return TrainedReader(make(seed=3), small_bases.tokenizer(), "small", "f")


@pytest.fixture
def base() -> KnowledgeBase:
    base = KnowledgeBase(HashEncoder())
    base.add(DOCUMENTS)
    return base


@pytest.fixture
def says(monkeypatch):
    """Let the reader write these texts, one after the other; "" is a refusal."""

    def install(*texts: str) -> list[list[list[int]]]:
        left, read = list(texts), []

        def write(model, prompts, sampling):
            read.extend(prompts)
            text = left.pop(0)
            ids = small_bases.tokenizer().encode(f" {text}" if text else UNKNOWN, special=False)
            return [Generation(ids, [1.0] * len(ids), "end")]

        monkeypatch.setattr(reading, "write_answers", write)
        return read

    return install


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_an_answer_is_the_one_of_the_evaluation(base, kind) -> None:
    own = reader(kind)
    pipeline = ReadingPipeline(base.live("hybrid"), own, Settings(k=2))
    result = pipeline.ask(QUESTION)
    found = tuple(hit.passage.text for hit in base.hybrid().search(QUESTION, 2))
    exercise = ReadingExercise(found, (Question(QUESTION, None, None, "x"),), "en", "reading")
    (expected,) = answer_exercises(own.model, own.tokenizer, [exercise])
    assert (result.text if isinstance(result, Answer) else None) == expected.answer
    assert [hit.passage.text for hit in result.hits] == list(found)


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_the_prompt_is_in_the_reading_format(base, says, kind) -> None:
    (read,) = (says("in the dark"),)
    own = reader(kind)
    result = ReadingPipeline(base.live("dense"), own, Settings(k=3)).ask(QUESTION)
    texts = [passage.text for passage in result.prompt.passages]
    parts = [reading_prompt(texts, QUESTION)]
    if kind == "encoder-decoder":
        parts = [*reading_sources(texts, [QUESTION]), reading_prompt([], QUESTION)]
    assert read == [own.tokenizer.encode_batch(parts, special=False)]
    assert result.prompt.text == "".join(parts)
    assert result.prompt.used == sum(map(len, read[0]))
    spans = [own.tokenizer.decode(result.prompt.ids[a:b]).strip() for a, b in result.prompt.spans]
    assert spans == (texts if kind == "decoder" else [])
    assert result.prompt.reserved == (48 if kind == "decoder" else 0)


def test_a_refusal_is_an_abstention_after_reading(base, says) -> None:
    says("", "")
    pipeline = ReadingPipeline(base.live("hybrid"), reader(), Settings(k=2))
    result = pipeline.ask(QUESTION)
    assert isinstance(result, Refusal)
    assert isinstance(result, Abstention)
    assert result.abstained
    assert len(result.hits) == 2
    assert result.best_score == pytest.approx(max(hit.similarity for hit in result.hits))
    assert "refuses to answer" in result.text
    alone = ReadingPipeline(None, reader(), Settings()).ask(QUESTION)
    assert isinstance(alone, Refusal)
    assert (alone.hits, alone.best_score) == ([], None)
    assert "doesn't know" in alone.text


def test_below_a_threshold_nothing_is_read(base, says) -> None:
    read = says("5 mg")
    result = ReadingPipeline(base.live("dense"), reader(), Settings(threshold=1.1)).ask(QUESTION)
    assert type(result) is Abstention
    assert read == []
    empty = KnowledgeBase(HashEncoder())
    result = ReadingPipeline(empty.live("dense"), reader(), Settings()).ask(QUESTION)
    assert (type(result), result.best_score) == (Abstention, None)


def test_what_shares_too_few_rare_words_is_not_read(base, says) -> None:
    read = says("in the dark")
    found = base.hybrid().search(QUESTION, 3)
    shared = sorted(hit.shared for hit in found)
    assert shared[0] < shared[1] <= shared[2]
    settings = Settings(k=3, least_shared=shared[1])
    result = ReadingPipeline(base.live("hybrid"), reader(), settings).ask(QUESTION)
    kept = [hit for hit in found if hit.shared >= shared[1]]
    assert (result.hits, result.read) == (kept, kept)
    assert [found.index(hit) for hit in kept] == sorted(found.index(hit) for hit in kept)
    assert len(read) == 1

    settings = Settings(k=3, least_shared=shared[2] + 0.01)
    result = ReadingPipeline(base.live("hybrid"), reader(), settings).ask(QUESTION)
    assert isinstance(result, Unmentioned)
    assert (result.abstained, result.hits) == (True, found)
    assert (result.shared, result.least) == (shared[2], shared[2] + 0.01)
    assert result.best_score == max(hit.similarity for hit in found)
    assert f"({shared[2]:.2f}), and below {shared[2] + 0.01:.2f}" in result.text
    assert len(read) == 1  # nothing more

    says("in the dark")  # vectors count no words: everything is read
    result = ReadingPipeline(base.live("dense"), reader(), settings).ask(QUESTION)
    assert len(result.read) == 3


def test_the_next_answer_reads_what_was_changed(base, says) -> None:
    read = says("between 2 and 8 °C", "at -20 °C")
    pipeline = ReadingPipeline(base.live("hybrid"), reader(), Settings(k=3))
    pieces: list[str] = []
    first = pipeline.ask(QUESTION, pieces.append)
    assert pieces == [first.text] == ["between 2 and 8 °C"]
    assert [c.passage.document_id for c in first.citations] == ["a"]
    base.change(Document("a", "Fufidum is stored at -20 °C.", "Fufidum"))
    second = pipeline.ask(QUESTION)
    (citation,) = second.citations
    start, end = citation.quoted
    assert citation.passage.text[start:end] == "at -20 °C"
    decoded = [small_bases.tokenizer().decode(parts[0]) for parts in read]
    assert ["-20" in text for text in decoded] == [False, True]


def test_where_an_answer_stands() -> None:
    passages = [Passage.cut(d, 0, len(d.text), d.title) for d in DOCUMENTS]
    scores = [0.3, 0.2, 0.1]
    (five,) = where_it_stands("5 mg", passages, scores)  # not in "45 mg"
    assert (five.number, five.quoted, five.score) == (2, (43, 47), 0.2)
    assert passages[1].text[43:47] == "5 mg"
    both = where_it_stands("is stored", passages, scores)
    assert [c.number for c in both] == [1, 2]
    (words,) = where_it_stands("treated by Fufidum with care", passages[2:], scores[2:])
    assert (words.number, words.quoted) == (1, None)
    assert where_it_stands("Zubirol", passages, scores) == []
    (marks,) = where_it_stands("(5 mg)?", [Passage("x", "x", 0, 9, "a (5 mg)? b", "")], [1.0])
    assert marks.quoted == (2, 9)


def test_passages_that_do_not_fit_are_left_out(base, says) -> None:
    says("x")
    own = reader()
    n = len(own.tokenizer.encode(reading_prompt([DOCUMENTS[0].text], QUESTION), special=False))
    model = small_bases.decoder(max_length=n + 48)
    short = dataclasses.replace(own, model=model)
    result = ReadingPipeline(base.live("lexical"), short, Settings(k=2)).ask(QUESTION)
    assert [p.document_id for p in result.prompt.passages] == ["a"]
    assert [p.document_id for p in result.prompt.dropped] == ["c"]
    assert result.prompt.used + result.prompt.reserved == n + 48


def test_each_passage_is_measured_once(base, says, monkeypatch) -> None:
    """Many passages, few of which fit: encoding all of them for each one left out took minutes."""
    says("x")
    passages = [Passage.cut(Document(f"{n}", "A word. " * 40), 0, 320, "") for n in range(300)]
    n_read = 0

    def counted(model, tokenizer, asked):
        nonlocal n_read
        n_read += sum(len(texts) for texts, _ in asked)
        return encoded_prompts(model, tokenizer, asked)

    monkeypatch.setattr(reading, "encoded_prompts", counted)
    prompt, _ = reading._prompt(reader(), QUESTION, passages)
    assert 1 < len(prompt.passages) < 30
    assert n_read == 2 * len(prompt.passages) + 1  # each once, the first too long, and all together


def test_questions_that_can_not_be_asked(base) -> None:
    pipeline = ReadingPipeline(base.live("dense"), reader(), Settings())
    with pytest.raises(UsageError, match="the question is empty"):
        pipeline.ask("  ")
    with pytest.raises(UsageError, match="small reads 1952 beside the answer: ask a shorter"):
        pipeline.ask("why " * 2000)


def test_a_conversation_takes_it(base, says) -> None:
    says("between 2 and 8 °C", "in the dark")
    pipeline = ReadingPipeline(base.live("hybrid"), reader(), Settings(k=2))
    talk = Conversation(pipeline, RuleRewriter(names_of(base)))
    talk.ask(QUESTION)
    turn = talk.ask("And febedum?")
    assert turn.searched == "How is febedum stored?"
    assert [c.passage.document_id for c in turn.result.citations] == ["b"]


def test_what_a_decoder_read_can_be_looked_at(base, says) -> None:
    says("in the dark")
    own = reader()
    result = ReadingPipeline(base.live("dense"), own, Settings(k=2)).ask(QUESTION)
    readings = attention_read(Reader(own.model, own.tokenizer, "small", "f"), result)
    assert len(readings) == len(result.generation.ids)
    for token in readings:
        assert sum(token.passages) == pytest.approx(1, abs=1e-4)


def test_loading(tmp_path) -> None:
    place = tmp_path / "small"
    checkpoints.save(small_bases.decoder(seed=3), place)
    small_bases.tokenizer().save(place)
    loaded = TrainedReader.load(place)
    assert (loaded.name, loaded.context) == ("small", 2000)
    assert loaded.tokenizer.encode(END) == small_bases.tokenizer().encode(END)
    with pytest.raises(CheckpointError, match="is an encoder: it gives vectors"):
        TrainedReader.load(save_base(tmp_path / "encoder"))
    with pytest.raises(CheckpointError, match="does not know the laboratory's reading format"):
        TrainedReader.load(tiny_models.save_reader(tmp_path / "chat"))
    with pytest.raises(ModelUnavailable):
        TrainedReader.load(tmp_path / "none")
