"""Batches for contrastive learning, and the hard negatives mined for them."""

from __future__ import annotations

import itertools

import pytest
import torch

from minirag.corpus.dice import Dice
from minirag.corpus.retrieval import RetrievalMix, draw_family
from minirag.errors import TrainingError
from minirag.retrieval.bi_encoder import DualEncoder, Texts
from minirag.retrieval.contrast_batches import (
    ContrastBatch,
    ContrastBatches,
    Pool,
    make_batch,
    make_pool,
)
from minirag.retrieval.mining import may_answer, mine
from minirag.text.reading_format import framing_tokenizer
from minirag.transformer.models import Encoder
from tests.tiny_retriever import laboratory_tokenizer, tiny_config

MIX = RetrievalMix(well_known=0.3)
TOKENIZER = framing_tokenizer(laboratory_tokenizer())
MAX_TOKENS = 48


def _pool(n: int = 12, seed: int = 1) -> Pool:
    dice = Dice(seed, "pool")
    return make_pool([draw_family(dice, MIX, str(i)) for i in range(n)], TOKENIZER, MAX_TOKENS)


def _rows(texts: Texts) -> list[list[int]]:
    """The token ids of a batch's texts, in order and without padding."""
    rows: dict[int, list[int]] = {}
    for group in texts.groups:
        for row, ids, keep in zip(group.rows.tolist(), group.ids, group.keep, strict=True):
            rows[row] = ids[keep].tolist()
    return [rows[row] for row in range(len(rows))]


def _no_mining(pool: Pool, n: int) -> list[list[int]]:
    raise AssertionError("nothing was to be mined")


def _seventh(pool: Pool, n: int) -> list[list[int]]:
    """Stands for mining: one page for each, far from its family."""
    return [[(page + 7) % len(pool.pages)] for page in range(len(pool.pages))]


def _batches(**changes: object) -> ContrastBatches:
    values: dict[str, object] = {
        "seed": 5,
        "batch": 8,
        "negatives": 1,
        "max_tokens": MAX_TOKENS,
        "mine": lambda pool, n: [
            [(page + 7) % len(pool.pages)][:n] for page in range(len(pool.pages))
        ],
        "families": 12,
        **changes,
    }
    return ContrastBatches(lambda dice, name: draw_family(dice, MIX, name), TOKENIZER, **values)  # type: ignore[arg-type]


def test_a_pool_holds_the_families_texts() -> None:
    dice = Dice(1, "pool")
    families = [draw_family(dice, MIX, str(i)) for i in range(12)]
    pool = _pool()
    assert pool.pages == [page for family in families for page in family.pages]
    row = 0
    for family in families:
        members = set(range(row, row + len(family.pages)))
        for place, asked in enumerate(family.questions):
            assert pool.questions[row] == list(asked)
            assert set(pool.relatives[row]) == members - {row}
            whole = TOKENIZER.encode(family.pages[place].text)
            short = whole if len(whole) <= MAX_TOKENS else [*whole[: MAX_TOKENS - 1], whole[-1]]
            assert pool.page_tokens[row] == short
            assert pool.question_tokens[row] == [TOKENIZER.encode(q.text) for q in asked]
            row += 1


def test_a_batch_has_each_page_once_and_knows_whose_is_which() -> None:
    pool = _pool()
    golden, negatives = [4, 0, 9], [[5, 0], [4], []]  # 0 and 4 are golden and negative both
    batch = make_batch(pool, golden, negatives, 0)
    assert _rows(batch.passages) == [pool.page_tokens[page] for page in (4, 0, 9, 5)]
    asked = [(page, place) for page in golden for place in range(len(pool.questions[page]))]
    assert _rows(batch.questions) == [pool.question_tokens[page][place] for page, place in asked]
    assert batch.golden.tolist() == [[4, 0, 9, 5].index(page) for page, _ in asked]
    for row, (page, place) in enumerate(asked):
        question = pool.questions[page][place]
        for column, other in enumerate((4, 0, 9, 5)):
            expected = other != page and question.answered_by(pool.pages[other])
            assert bool(batch.ignored[row, column]) == expected
    assert batch.n_tokens == sum(map(len, [*_rows(batch.passages), *_rows(batch.questions)]))
    with pytest.raises(TrainingError, match="nothing to tell apart"):
        make_batch(pool, [3], [[]], 0)


def _goldens(batch: ContrastBatch) -> list[list[int]]:
    rows = _rows(batch.passages)
    return [rows[place] for place in dict.fromkeys(batch.golden.tolist())]


def test_every_page_is_golden_once_a_pool() -> None:
    batches = _batches(negatives=0, mine=_no_mining)
    seen = []
    for batch in batches:
        if batches.position.pool:
            break
        assert len(_goldens(batch)) == 8 == len(_rows(batch.passages))
        seen += _goldens(batch)
    assert len(seen) >= 24
    assert len({tuple(tokens) for tokens in seen}) == len(seen)


@pytest.mark.parametrize("negatives", [1, 3])
def test_negatives_are_relatives_until_they_are_mined(negatives: int) -> None:
    batches = _batches(negatives=negatives)
    for batch in batches:
        pool = make_pool(
            [
                draw_family(dice, MIX, f"{batches.position.pool}/{place}")
                for dice in [Dice(5, "retriever pool", batches.position.pool)]
                for place in range(12)
            ],
            TOKENIZER,
            MAX_TOKENS,
        )
        place_of = {tuple(tokens): place for place, tokens in enumerate(pool.page_tokens)}
        golden = [place_of[tuple(tokens)] for tokens in _goldens(batch)]
        found = {place_of[tuple(tokens)] for tokens in _rows(batch.passages)} - set(golden)
        allowed = {other for page in golden for other in pool.relatives[page]}
        if batches.position.pool == 0:
            assert found <= allowed
        else:
            mined = {(page + 7) % len(pool.pages) for page in golden}
            assert mined <= found | set(golden)
            assert found <= mined | allowed
            if negatives == 1:
                assert found <= mined
            break


def _same(one: ContrastBatch, other: ContrastBatch) -> bool:
    return (
        _rows(one.passages) == _rows(other.passages)
        and _rows(one.questions) == _rows(other.questions)
        and torch.equal(one.golden, other.golden)
        and torch.equal(one.ignored, other.ignored)
    )


def test_a_stream_can_be_taken_up_anywhere() -> None:
    whole = _batches()
    batches, positions = [], []
    for batch in itertools.islice(whole, 10):
        batches.append(batch)
        positions.append(whole.position)
    assert positions[-1].pool >= 2
    for stop, position in enumerate(positions[:-1]):
        again = list(itertools.islice(_batches(position=position), 9 - stop))
        assert all(_same(*pair) for pair in zip(again, batches[stop + 1 :], strict=True))


def test_what_was_mined_comes_back_with_the_position() -> None:
    whole = _batches()
    stream = iter(whole)
    while whole.position.pool == 0:
        next(stream)
    position = whole.position
    again = _batches(position=position, mine=_no_mining)  # the model has moved on since
    assert _same(next(iter(again)), next(stream))


def test_a_batch_larger_than_a_pool_is_refused() -> None:
    with pytest.raises(TrainingError, match="a batch 500: give a smaller batch"):
        next(iter(_batches(batch=500)))


# ---------------------------------------------------------------------------------------- mining


def _model(pooling: str = "mean") -> DualEncoder:
    config = tiny_config(head="none", dropout=0.2)
    return DualEncoder(Encoder(config, seed=3), Encoder(config, seed=4), pooling)  # type: ignore[arg-type]


def test_mined_pages_are_the_nearest_wrong_ones() -> None:
    pool, model = _pool(20), _model()
    found = mine(model, pool, 4)
    assert model.training  # as it was: dropout was off meanwhile, and is on again
    model.eval()

    def vector(tower: Encoder, tokens: list[int]) -> torch.Tensor:
        mean = tower(torch.tensor([tokens]))[0].mean(dim=0)
        return mean / mean.norm()

    with torch.no_grad():
        pages = [vector(model.passages, tokens) for tokens in pool.page_tokens]
        n_left_out = 0
        for page, (asked, tokens) in enumerate(
            zip(pool.questions, pool.question_tokens, strict=True)
        ):
            queries = [vector(model.questions, ids) for ids in tokens]
            wrong = {
                other: max(float(query @ pages[other]) for query in queries)
                for other in range(len(pages))
                if other != page and not any(may_answer(pool.pages[other], q) for q in asked)
            }
            n_left_out += len(pages) - 1 - len(wrong)
            assert len(found[page]) == 4
            assert set(found[page]) <= set(wrong)
            scores = [wrong[other] for other in found[page]]
            best = sorted(wrong.values(), reverse=True)[:4]
            assert scores == pytest.approx(best, abs=1e-5)
    assert n_left_out > 0


def test_mining_gives_what_there_is() -> None:
    pool = _pool(1)
    assert all(len(pages) <= 2 for pages in mine(_model(), pool, 5))


def test_a_page_may_answer_by_its_words_alone() -> None:
    pool = _pool(3)
    page, question = pool.pages[0], pool.questions[0][0]
    assert may_answer(page, question)
    other = pool.pages[-1]
    assert not question.answered_by(other)
    assert may_answer(other, type(question)("?", "en", "nobody/nothing", (other.text[5:15],)))
    assert not may_answer(other, type(question)("?", "en", "nobody/nothing", ("Zxqw",)))
