"""The contrastive loss, against loops and against sentence-transformers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minirag.corpus.dice import Dice
from minirag.corpus.retrieval import Page, PageQuestion, RetrievalMix, draw_family
from minirag.retrieval.contrast import false_negatives, info_nce


def _vectors(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator), dim=-1).requires_grad_()


def _by_loops(q, p, golden, ignored, temperature, symmetric):
    """The definition, a number at a time."""
    Q, N = len(q), len(p)
    score = [[math.exp(float(q[i] @ p[j]) / temperature) for j in range(N)] for i in range(Q)]
    there = sum(
        -math.log(score[i][golden[i]] / sum(score[i][j] for j in range(N) if not ignored[i][j]))
        for i in range(Q)
    )
    if not symmetric:
        return there / Q
    back = 0.0
    for i in range(Q):
        own = golden[i]
        rivals = [
            score[j][own] for j in range(Q) if j == i or (golden[j] != own and not ignored[j][own])
        ]
        back -= math.log(score[i][own] / sum(rivals))
    return (there + back) / (2 * Q)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_is_its_definition(symmetric: bool) -> None:
    q, p = _vectors(7, 5, seed=1), _vectors(11, 5, seed=2)
    golden = torch.tensor([0, 0, 1, 4, 3, 3, 9])  # some share a passage; others are hard negatives
    ignored = torch.rand(7, 11, generator=torch.Generator().manual_seed(3)) < 0.3
    ignored[torch.arange(7), golden] = False
    loss = info_nce(q, p, golden, ignored, temperature=0.07, symmetric=symmetric)
    with torch.no_grad():
        expected = _by_loops(q, p, golden.tolist(), ignored.tolist(), 0.07, symmetric)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_ignored_passages_get_no_gradient() -> None:
    q, p = _vectors(3, 4, seed=1), _vectors(5, 4, seed=2)
    ignored = torch.zeros(3, 5, dtype=torch.bool)
    ignored[:, 4] = True
    info_nce(q, p, torch.tensor([0, 1, 2]), ignored, temperature=0.1, symmetric=True).backward()
    assert p.grad is not None
    assert p.grad[4].abs().sum() == 0
    assert p.grad[3].abs().sum() > 0  # the hard negative is pushed away


def test_under_autocast_cosines_keep_their_digits() -> None:
    q, p = _vectors(6, 64, seed=1), _vectors(6, 64, seed=2)
    golden, ignored = torch.arange(6), torch.zeros(6, 6, dtype=torch.bool)
    exact = info_nce(q, p, golden, ignored, temperature=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert info_nce(q, p, golden, ignored, temperature=0.02).item() == exact.item()


class _Given(nn.Module):
    """Stands where sentence-transformers expects a model: what it is given is embedded already."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features


def _their_losses():
    return pytest.importorskip("sentence_transformers.losses", reason="needs the extra 'peers'")


@pytest.mark.parametrize("n_hard", [0, 1, 2])
def test_equal_to_sentence_transformers(n_hard: int) -> None:
    B, generator = 9, torch.Generator().manual_seed(4)
    # Not of length 1 yet: theirs normalises by itself.
    raw = [torch.randn(B, 16, generator=generator).requires_grad_() for _ in range(2 + n_hard)]
    theirs = _their_losses().MultipleNegativesRankingLoss(_Given(), scale=1 / 0.05)
    expected = theirs([{"sentence_embedding": vectors} for vectors in raw], torch.empty(0))
    q, *columns = (F.normalize(vectors, dim=-1) for vectors in raw)
    ignored = torch.zeros(B, B * (1 + n_hard), dtype=torch.bool)
    loss = info_nce(q, torch.cat(columns), torch.arange(B), ignored, temperature=0.05)
    torch.testing.assert_close(loss, expected)
    for ours, other in zip(
        torch.autograd.grad(loss, raw), torch.autograd.grad(expected, raw), strict=True
    ):
        torch.testing.assert_close(ours, other)
        assert other.abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
def test_symmetric_equal_to_sentence_transformers() -> None:
    B = 9
    q, p = _vectors(B, 16, seed=4), _vectors(B, 16, seed=5)
    theirs = _their_losses().MultipleNegativesSymmetricRankingLoss(_Given(), scale=1 / 0.05)
    expected = theirs([{"sentence_embedding": q}, {"sentence_embedding": p}], torch.empty(0))
    ignored = torch.zeros(B, B, dtype=torch.bool)
    loss = info_nce(q, p, torch.arange(B), ignored, temperature=0.05, symmetric=True)
    torch.testing.assert_close(loss, expected)


def test_what_answers_too_is_a_false_negative() -> None:
    pages = [
        Page("Tor is 9 km long.", "en", frozenset({"Tor/length"})),
        Page("Tor mide 9 km.", "es", frozenset({"Tor/length", "Tor/width"})),
        Page("Tor is 9 km long.", "en", frozenset({"another draw"})),  # the same text
        Page("Tor flows into the Bel.", "en", frozenset({"Tor/mouth"})),
    ]
    questions = [
        PageQuestion("How long is Tor?", "en", "Tor/length", ("9 km",)),
        PageQuestion("How wide is Tor?", "en", "Tor/width", ("1 km",)),
        PageQuestion("Where does Tor end?", "en", "Tor/mouth", ("Bel",)),
    ]
    assert false_negatives(questions, pages, [0, 1, 3]).tolist() == [
        [False, True, True, False],
        [False, False, False, False],
        [False, False, False, False],
    ]


def test_false_negatives_are_their_definition_on_drawn_pages() -> None:
    dice = Dice(3, "false negatives")
    mix = RetrievalMix(well_known=0.9, pages=(1.0,), nonce=0.0, everyday=0.0)
    families = [draw_family(dice, mix, str(i)) for i in range(150)]  # many about the same things
    pages = [family.pages[0] for family in families]
    asked = [(row, q) for row, family in enumerate(families) for q in family.questions[0]]
    own = [row for row, _ in asked]
    found = false_negatives([q for _, q in asked], pages, own)
    expected = [
        [
            column != row and (q.asks in page.states or page.text == pages[row].text)
            for column, page in enumerate(pages)
        ]
        for row, q in asked
    ]
    assert found.tolist() == expected
    assert found.sum() > 50
