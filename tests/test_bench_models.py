"""Speed beside the peers: both sides do the same by turns, and the ratio says which is faster."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small_bases
import torch
from test_training_pretrain import TINY

from minirag.cli import bench_models, bench_train
from minirag.cli.bench_models import ROUNDS, Comparison
from minirag.errors import UsageError
from minirag.training.batches import NO_TARGET, Batch
from minirag.training.recipes import GPT_BASE
from minirag.transformer import checkpoints
from minirag.transformer.generation import Sampling, generate
from minirag.transformer.models import Decoder, Encoder

EAGER, SDPA = "transformers Llama, eager", "transformers Llama, sdpa"


class Clock:
    """A clock that stands still while nobody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    own = Clock()
    for bench in (bench_models, bench_train):
        monkeypatch.setattr(bench, "time", own)
    return own


# ------------------------------------------------------------------------------------- comparisons


def test_a_ratio_is_their_time_by_ours_the_median_of_the_turns() -> None:
    comparison = Comparison("x", [1, 2], [2, 6], "equal")
    assert comparison.ratio == 2.5  # of 2 and 3: minirag is faster
    assert Comparison("x", [4], [1], "").ratio == 0.25
    assert comparison.line().split() == ["x", "1.500", "4.000", "2.50x", "equal"]
    assert comparison.to_json() == {
        "what": "x",
        "ours_seconds": [1, 2],
        "theirs_seconds": [2, 6],
        "ratio": 2.5,
        "agreement": "equal",
    }


def test_both_sides_are_timed_by_turns_once_they_are_warm(clock: Clock) -> None:
    turns: list[str] = []

    def side(who: str, seconds: float) -> Any:
        def work() -> str:
            clock.now += seconds if who in turns else 99.0  # the first time fills caches
            turns.append(who)
            return who

        return work

    comparison = bench_models.compare(
        "x", side("ours", 2.0), side("theirs", 5.0), lambda a, b: f"{a} as {b}"
    )
    assert turns == ["ours", "theirs"] * (1 + ROUNDS)
    assert comparison == Comparison("x", [2.0] * ROUNDS, [5.0] * ROUNDS, "ours as theirs")


def test_both_sides_encode_the_same_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str, torch.dtype]] = []
    asked: list[tuple[str, list[str]]] = []

    class Side:
        def __init__(self, who: str, value: float) -> None:
            self.who, self.value = who, value

        def encode(self, texts: list[str], **how: object) -> Any:
            asked.append((self.who, texts))
            return np.full((len(texts), 2), self.value)

        def to(self, dtype: torch.dtype) -> Side:
            made.append((self.who, "encoder", dtype))
            return self

        def eval(self) -> Side:
            return self

    library = SimpleNamespace(SentenceTransformer=lambda place, device: Side("theirs", 1.5))
    monkeypatch.setattr(bench_models, "peer", lambda name: library)
    monkeypatch.setattr(bench_models, "locate", lambda name: SimpleNamespace(directory=name))
    monkeypatch.setattr(
        bench_models.BiEncoder, "load", lambda place, dtype: Side("ours", 1.0).to(dtype)
    )
    many, one = bench_models.bench_encode("encoder", torch.bfloat16, seed=4)
    assert made == [(who, "encoder", torch.bfloat16) for who in ("ours", "theirs")]
    texts = bench_models.mixed_sentences(512, 4)
    assert len(set(texts)) == 512
    together = [("ours", texts), ("theirs", texts)]
    alone = [("ours", texts[:1])] * 20 + [("theirs", texts[:1])] * 20
    assert asked == together * (1 + ROUNDS) + alone * (1 + ROUNDS)
    assert (many.agreement, one.agreement) == ("largest difference 5e-01",) * 2


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[list[int]], int]]:
    """Who was to go on from which prompt, by how many tokens; the peer writes as our model does."""
    asked: list[tuple[str, list[list[int]], int]] = []

    def ours(model: Decoder, prompts: list[list[int]], sampling: Sampling) -> Any:
        assert sampling.ignore_end
        asked.append(("ours", prompts, sampling.max_new_tokens))
        return generate(model, prompts, sampling)

    class Theirs:
        def __init__(self, directory: Path, dtype: torch.dtype) -> None:
            self.model = checkpoints.load(directory, dtype)

        def eval(self) -> Theirs:
            return self

        def generate(self, prompt: Any, *, max_new_tokens: int, **how: Any) -> Any:
            assert (how["min_new_tokens"], how["do_sample"]) == (max_new_tokens, False)
            asked.append(("theirs", prompt.tolist(), max_new_tokens))
            sampling = Sampling(max_new_tokens=max_new_tokens, ignore_end=True)
            written = generate(self.model, prompt.tolist(), sampling)[0].ids
            return torch.tensor([prompt[0].tolist() + written])

    library = SimpleNamespace(AutoModelForCausalLM=SimpleNamespace(from_pretrained=Theirs))
    monkeypatch.setattr(bench_models, "peer", lambda name: library)
    monkeypatch.setattr(bench_models, "generate", ours)
    return asked


def test_both_sides_write_as_many_tokens_to_the_same_prompt(
    asked: list[tuple[str, list[list[int]], int]], tmp_path: Path
) -> None:
    checkpoints.save(small_bases.decoder(n_layers=1), tmp_path)
    some, one = bench_models.bench_generate(str(tmp_path), torch.float32, n_prompt=5, n_new=3)
    prompts = asked[0][1]
    assert [len(prompt) for prompt in prompts] == [5]
    assert asked == [
        (who, prompts, n) for n in (3, 1) for _ in range(1 + ROUNDS) for who in ("ours", "theirs")
    ]
    assert (some.what, one.what) == ("prompt of 5, 3 new", "prompt of 5, 1 new")
    assert some.agreement == "first 3 of 3 tokens equal"
    assert one.agreement == "first 1 of 1 tokens equal"


def test_what_can_not_be_compared_is_told(asked: list[Any], tmp_path: Path) -> None:
    checkpoints.save(Encoder(small_bases.config("encoder", n_layers=1)), tmp_path)
    with pytest.raises(UsageError, match="is no decoder: there is nothing to generate with"):
        bench_models.bench_generate(str(tmp_path), torch.float32)
    assert asked == []


def test_a_peer_that_is_missing_is_told() -> None:
    with pytest.raises(UsageError, match=r"nobodys_library is not installed: .*peers"):
        bench_models.peer("nobodys_library")


# ---------------------------------------------------------------------------------------- training


@pytest.mark.parametrize(("eager", "sdpa"), [(5.0, 1.0), (1.0, 5.0)])
def test_a_ratio_is_to_the_faster_peer_on_the_same_tokens(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, eager: float, sdpa: float
) -> None:
    seconds = {"minirag": 2.0, "eager": eager, "sdpa": sdpa}  # of each step
    seen: list[tuple[str, list[list[int]]]] = []
    plain = bench_train._plain_loss

    def llama(recipe: Any, vocab_size: int, attention: str, seed: int) -> Decoder:
        model = small_bases.decoder(n_layers=1, vocab_size=vocab_size)
        model.name = attention
        return model

    def loss(model: Any, batch: Any) -> Any:
        who = getattr(model, "name", "minirag")
        warm = len(seen) >= 6  # two steps of each
        seen.append((who, batch.targets.tolist()))
        clock.now += seconds[who] if warm else 99.0
        return plain(model, batch)

    monkeypatch.setattr(bench_train, "this_machine", lambda precision: small_bases.CPU)
    monkeypatch.setattr(bench_train, "train_tokenizer", lambda recipe: small_bases.tokenizer())
    monkeypatch.setattr(bench_train, "_llama", llama)
    monkeypatch.setattr(bench_train, "_plain_loss", loss)
    monkeypatch.setattr(bench_train, "_llama_loss", loss)
    result = bench_train.bench_train(steps=5, recipe=TINY)

    assert [who for who, _ in seen] == ["minirag", "eager", "sdpa"] * 5
    batches = [targets for _, targets in seen[::3]]
    assert all(a != b for a, b in itertools.pairwise(batches))
    assert [targets for _, targets in seen] == [b for b in batches for _ in range(3)]
    tokens = statistics.median(
        sum(target >= 0 for row in batch for target in row) for batch in batches[2:]
    )
    assert result["tokens_per_second"] == {
        "minirag": round(tokens / 2),
        EAGER: round(tokens / eager),
        SDPA: round(tokens / sdpa),
    }
    assert result["ratio_to_faster_peer"] == 0.5


@pytest.fixture
def _transformers() -> None:
    pytest.importorskip(
        "transformers.models.llama.modeling_llama", reason="needs the extra 'peers'"
    )


@pytest.mark.usefixtures("_transformers")
def test_the_peer_is_as_large_as_ours_within_a_percent() -> None:
    ours = Decoder(GPT_BASE.config(small_bases.tokenizer()))
    theirs = bench_train._llama(GPT_BASE, small_bases.tokenizer().vocab_size, "sdpa", 0)
    assert theirs.num_parameters() == pytest.approx(ours.n_parameters, rel=0.01)


@pytest.mark.usefixtures("_transformers")
def test_the_peers_loss_is_counted_as_ours_is() -> None:
    theirs = bench_train._llama(TINY, 320, "sdpa", 0)
    ids = torch.randint(0, 320, (3, 9), generator=torch.Generator().manual_seed(1))
    targets = ids.roll(-1, dims=1)
    targets[0, 5:] = NO_TARGET
    batch = Batch(ids, targets, targets > 0)

    class AsOurs:
        def __call__(self, ids: torch.Tensor) -> torch.Tensor:
            return theirs(input_ids=ids).logits

        def logits(self, states: torch.Tensor) -> torch.Tensor:
            return states

    with torch.no_grad():
        expected = bench_train._plain_loss(AsOurs(), batch)  # type: ignore[arg-type]
        assert float(bench_train._llama_loss(theirs, batch)) == pytest.approx(float(expected))
