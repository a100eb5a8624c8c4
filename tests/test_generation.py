"""Writing on: the cache changes nothing, the batch changes nothing, the seed decides."""

from __future__ import annotations

import collections

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minirag.errors import UsageError
from minirag.text.tokenizer import Tokenizer
from minirag.transformer import attention
from minirag.transformer.config import TransformerConfig
from minirag.transformer.generation import (
    Generation,
    Sampling,
    choose,
    generate,
    generate_from,
    stream,
)
from minirag.transformer.models import Decoder, EncoderDecoder

V = 61


def _model(kind: str, **options: object) -> Decoder | EncoderDecoder:
    config = TransformerConfig(
        kind=kind,  # type: ignore[arg-type]
        vocab_size=V,
        d_model=24,
        n_layers=2,
        n_heads=4,
        n_kv_heads=2,
        d_ff=40,
        max_length=48,
        decoder_start_id=1,
        **options,  # type: ignore[arg-type]
    )
    model = (Decoder if kind == "decoder" else EncoderDecoder)(config, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(12)  # far from uniform, so that a wrong state shows
    return model.eval()


PROMPTS = [[5], [9, 8, 7, 6, 5, 4, 3], list(range(10, 27)), [30, 2]]


def _uncached(model: Decoder | EncoderDecoder, prompt: list[int], n: int) -> list[int]:
    """The definition: the whole text through the model again for every token."""
    new: list[int] = []
    with torch.inference_mode():
        for _ in range(n):
            if isinstance(model, Decoder):
                states = model(torch.tensor([prompt + new]))
            else:
                memory = model.encode(torch.tensor([prompt]))
                states = model(torch.tensor([[1, *new]]), memory)
            new.append(int(model.logits(states)[0, -1].argmax()))
    return new


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_cached_batch_equals_uncached_one_by_one(kind: str, positions: str) -> None:
    model = _model(kind, positions=positions)
    results = generate(model, PROMPTS, Sampling(max_new_tokens=15))
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.ids == _uncached(model, prompt, 15)
        assert result.stopped_by == "length"


def test_a_kernel_may_lay_its_output_out_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some keep the tokens outermost: heads that share keys have no view of that."""
    model, fused = _model("decoder"), torch.nn.functional.scaled_dot_product_attention

    def tokens_first(*given: object, **options: object) -> torch.Tensor:
        return fused(*given, **options).transpose(1, 2).contiguous().transpose(1, 2)

    expected = [result.ids for result in generate(model, PROMPTS, Sampling(max_new_tokens=5))]
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", tokens_first)
    monkeypatch.setattr(attention, "fused_is_faster", lambda q: True)
    found = [result.ids for result in generate(model, PROMPTS, Sampling(max_new_tokens=5))]
    assert found == expected


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_sampled_batch_equals_its_members_one_by_one(kind: str) -> None:
    model = _model(kind)
    sampling = Sampling(max_new_tokens=12, temperature=1.3, top_k=20, top_p=0.9, seed=7)
    together = generate(model, PROMPTS, sampling)
    for prompt, result in zip(PROMPTS, together, strict=True):
        alone = generate(model, [prompt], sampling)[0]
        assert result.ids == alone.ids
        assert result.probabilities == pytest.approx(alone.probabilities, abs=1e-4)
    other = generate(model, PROMPTS, Sampling(max_new_tokens=12, temperature=1.3, seed=8))
    assert [r.ids for r in other] != [r.ids for r in together]


def test_probabilities_are_the_models_own() -> None:
    model = _model("decoder")
    result = generate(model, [PROMPTS[1]], Sampling(max_new_tokens=5, temperature=0.7, seed=1))[0]
    with torch.inference_mode():
        ids = torch.tensor([PROMPTS[1] + result.ids])
        every = model.logits(model(ids)).softmax(-1)[0]
    start = len(PROMPTS[1]) - 1
    expected = [float(every[start + i, token]) for i, token in enumerate(result.ids)]
    assert result.probabilities == pytest.approx(expected, abs=1e-4)


def test_end_token_ends_one_row_and_not_the_others() -> None:
    model = _model("decoder")
    free = generate(model, PROMPTS, Sampling(max_new_tokens=15))
    end = free[2].ids[4]
    ending = _model("decoder", eos_ids=(end,))
    for before, after in zip(
        free, generate(ending, PROMPTS, Sampling(max_new_tokens=15)), strict=True
    ):
        cut = before.ids.index(end) if end in before.ids else 15
        assert after.ids == before.ids[:cut]
        assert after.stopped_by == ("end" if end in before.ids else "length")


@pytest.mark.parametrize("temperature", [0.0, 1.3])
@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_rows_that_have_ended_leave_the_batch_and_change_nothing(
    kind: str, temperature: float
) -> None:
    prompts = [[*p, extra] for p in PROMPTS for extra in (3, 4, 5)]
    sampling = Sampling(max_new_tokens=20, temperature=temperature, seed=2)
    free = generate(_model(kind), prompts, sampling)
    ends = {ids[place] for ids, place in zip((r.ids for r in free), (1, 3, 9), strict=False)}
    model = _model(kind, eos_ids=tuple(ends))
    sizes: list[int] = []
    tower = model.decoder if kind == "encoder-decoder" else model.tower
    tower.register_forward_hook(lambda _, given, out: sizes.append(len(out)))
    together = generate(model, prompts, sampling)
    in_batch = list(sizes)
    for prompt, result in zip(prompts, together, strict=True):
        alone = generate(model, [prompt], sampling)[0]
        assert (result.ids, result.stopped_by) == (alone.ids, alone.stopped_by)
        assert result.probabilities == pytest.approx(alone.probabilities, abs=1e-4)
    written = [len(r.ids) + (r.stopped_by == "end") for r in together]
    assert len(in_batch) == max(written)
    assert sorted(in_batch, reverse=True) == in_batch
    assert len(set(in_batch)) > 1  # it did shrink ...
    for step, size in enumerate(in_batch):  # ... to less than twice as many as were written on
        live = sum(n > step for n in written)
        assert live <= size < max(2 * live, 2)


def test_the_context_is_a_limit_not_a_crash() -> None:
    model = _model("decoder")
    result = generate(model, [list(range(40))], Sampling(max_new_tokens=30))[0]
    assert len(result.ids) == 9  # 40 + 8 fill the 48 places; the ninth need not be read back
    assert result.ids == _uncached(model, list(range(40)), 9)
    with pytest.raises(UsageError, match="49 tokens, the model reads 48"):
        generate(model, [list(range(49))])


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_near_the_limit_a_batch_still_gives_what_its_members_give(kind: str) -> None:
    model = _model(kind)
    prompts = [[5], list(range(40)), [9, 8, 7], list(range(1, 48)), list(range(3, 43)), [5]]
    sampling = Sampling(max_new_tokens=30)
    together = generate(model, prompts, sampling)
    for prompt, result in zip(prompts, together, strict=True):
        assert result.ids == generate(model, [prompt], sampling)[0].ids
    room = [30, 9, 30, 2, 9, 30] if kind == "decoder" else [30] * 6
    assert [len(result.ids) for result in together] == room


def test_prompts_with_room_for_all_tokens_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = _model("decoder"), []
    forward = model.forward

    def counting(ids: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(len(ids))
        return forward(ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "forward", counting)
    generate(model, [[5], list(range(40)), [9, 8, 7]], Sampling(max_new_tokens=9))
    assert sizes == [3] * 9


def test_no_prompts_no_tokens() -> None:
    model = _model("decoder")
    assert generate(model, []) == []
    assert generate(model, [[4]], Sampling(max_new_tokens=0))[0].ids == []
    with pytest.raises(UsageError, match="empty"):
        generate(model, [[4], []])


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": -1},
        {"temperature": -0.1},
        {"temperature": 1e-40},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"stop": ("",)},
        {"repeat": -1},
    ],
)
def test_sampling_that_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Sampling(**wrong)  # type: ignore[arg-type]


def _oracle_distribution(p: list[float], top_k: int | None, top_p: float | None) -> list[float]:
    """Top-k and top-p by hand: sort, cut, divide by what is left."""
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))
    if top_k is not None:
        order = order[:top_k]
    total = sum(p[i] for i in order)
    kept, mass = [], 0.0
    for i in order:
        if top_p is not None and mass >= top_p:
            break
        kept.append(i)
        mass += p[i] / total
    total = sum(p[i] for i in kept)
    return [p[i] / total if i in kept else 0.0 for i in range(len(p))]


@pytest.mark.parametrize(("top_k", "top_p"), [(None, None), (3, None), (None, 0.7), (4, 0.6)])
def test_draws_follow_the_distribution(top_k: int | None, top_p: float | None) -> None:
    p = [0.05, 0.3, 0.1, 0.25, 0.2, 0.1]
    n = 4000
    sampling = Sampling(temperature=1.0, top_k=top_k, top_p=top_p)
    logits = torch.tensor(p).log().expand(n, -1)
    drawn = choose(logits, sampling, [torch.Generator().manual_seed(s) for s in range(n)])
    counts = collections.Counter(drawn.tolist())
    for token, expected in enumerate(_oracle_distribution(p, top_k, top_p)):
        # five standard deviations of a binomial share
        assert abs(counts[token] / n - expected) <= 5 * (expected * (1 - expected) / n) ** 0.5


def test_low_temperature_is_greedy() -> None:
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(s) for s in range(5)]
    cold = choose(logits, Sampling(temperature=1e-4), generators)
    assert torch.equal(cold, logits.argmax(-1))


def test_what_is_drawn_lies_where_the_logits_lie() -> None:
    # Fake tensors check devices as a GPU does; those on "meta" do it without one.
    fake = pytest.importorskip("torch._subclasses.fake_tensor")
    generators = [torch.Generator().manual_seed(s) for s in range(2)]
    with fake.FakeTensorMode():
        logits = torch.empty(2, 5, device="meta")
        for sampling in (Sampling(), Sampling(temperature=0.7, top_k=3, top_p=0.9)):
            chosen = choose(logits, sampling, generators)
            assert chosen.device == logits.device
            assert logits.gather(1, chosen[:, None]).shape == (2, 1)


TEXTS = [
    "the red fox runs over the hill",
    "año nuevo, mañana será otro día",
    "números 1 2 3 🦊 fin",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(iter(TEXTS * 3), 320, ["<end>"])


def test_stop_texts_that_would_never_be_found_are_refused(tokenizer: Tokenizer) -> None:
    sampling = Sampling(max_new_tokens=4, stop=("fox", "over <end>"))
    with pytest.raises(UsageError, match="'over <end>' holds a special token"):
        generate(_model("decoder"), [[5]], sampling, tokenizer)
    with pytest.raises(UsageError, match="special token"):
        next(stream(_model("decoder"), [5], tokenizer, sampling))
    with pytest.raises(UsageError, match="no tokenizer"):
        generate(_model("decoder"), [[5]], sampling)
    model = _model("encoder-decoder")
    assert isinstance(model, EncoderDecoder)
    with torch.inference_mode(), pytest.raises(UsageError, match="no tokenizer"):
        generate_from(model, model.encode(torch.tensor([[5, 6]])), None, sampling)


class _Scripted(Decoder):
    """A decoder that writes a given text: what streaming and stopping are tested against."""

    def __init__(self, script: list[int], vocab_size: int, end: int) -> None:
        super().__init__(
            TransformerConfig(
                kind="decoder",
                vocab_size=vocab_size,
                d_model=8,
                n_layers=1,
                n_heads=2,
                d_ff=8,
                max_length=512,
                eos_ids=(end,),
            )
        )
        self.script = [*script, end]
        self.step = -1

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        self.step += 1
        out = torch.zeros(states.size(0), 1, self.config.vocab_size)
        out[:, :, self.script[self.step]] = 9.0
        return out


def _scripted(tokenizer: Tokenizer, text: str) -> _Scripted:
    end = tokenizer.id_of("<end>")
    assert end is not None
    return _Scripted(tokenizer.encode(text, special=False), tokenizer.vocab_size, end)


def _until_stop(tokenizer: Tokenizer, text: str, stop: list[str]) -> str | None:
    """The text before a stop; None without one. Tokens come one by one: what is whole first ends.

    With the stops "ñ" and "aña", "aña" ends with its "ñ" if that is a token, and "a" remains.
    """
    ids = tokenizer.encode(text, special=False)
    for n in range(1, len(ids) + 1):
        written = tokenizer.decode(ids[:n])
        found = [written.find(s) for s in stop if s in written]
        if found:
            return written[: min(found)]
    return None


@given(
    text=st.text(alphabet="ab ñé🦊.\n", min_size=1, max_size=30),
    stop=st.lists(st.text(alphabet="ab .ñ", min_size=1, max_size=3), max_size=2),
)
@example(text="aña", stop=["ñ", "aña"])
@settings(max_examples=80, deadline=None)
def test_streamed_pieces_are_the_text_up_to_the_stop(
    tokenizer: Tokenizer, text: str, stop: list[str]
) -> None:
    sampling = Sampling(max_new_tokens=200, stop=tuple(stop))
    result = Generation()
    pieces = list(stream(_scripted(tokenizer, text), [0], tokenizer, sampling, result))
    whole = generate(_scripted(tokenizer, text), [[0]], sampling, tokenizer)[0]
    before = _until_stop(tokenizer, text, stop)
    assert "".join(pieces) == (text if before is None else before)
    assert whole.text == result.text == "".join(pieces)
    assert result.ids == whole.ids
    assert result.stopped_by == whole.stopped_by == ("end" if before is None else "stop")
    assert whole.text.startswith(tokenizer.decode(whole.ids).rstrip("�"))
    assert not any("�" in piece for piece in pieces)


@given(text=st.text(alphabet="ab ñ🦊.", max_size=60), repeat=st.integers(1, 6))
@settings(max_examples=120, deadline=None)
def test_ends_where_it_begins_to_repeat_itself(
    tokenizer: Tokenizer, text: str, repeat: int
) -> None:
    ids = tokenizer.encode(text, special=False)
    expected = next(
        (
            ids[: n - repeat]
            for n in range(2 * repeat, len(ids) + 1)
            if any(ids[i : i + repeat] == ids[n - repeat : n] for i in range(n - 2 * repeat + 1))
        ),
        None,
    )
    sampling, result = Sampling(max_new_tokens=200, repeat=repeat), Generation()
    pieces = list(stream(_scripted(tokenizer, text), [0], tokenizer, sampling, result))
    whole = generate(_scripted(tokenizer, text), [[0]], sampling, tokenizer)[0]
    assert whole.ids == result.ids == (ids if expected is None else expected)
    assert len(whole.probabilities) == len(whole.ids)
    assert whole.stopped_by == result.stopped_by == ("end" if expected is None else "repeat")
    assert whole.text == result.text == "".join(pieces) == tokenizer.decode(whole.ids)


def test_a_model_that_goes_in_circles_is_stopped() -> None:
    model = _model("decoder")
    free = generate(model, [[5]], Sampling(max_new_tokens=40))[0]
    ended = generate(model, [[5]], Sampling(max_new_tokens=40, repeat=4))[0]
    assert ended.ids == free.ids[: len(ended.ids)]
    fours = [tuple(ended.ids[i : i + 4]) for i in range(len(ended.ids) - 3)]
    assert len(set(fours)) == len(fours)


# ------------------------------------------------------------------------------------- the gate


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_a_gate_decides_on_the_first_token_alone(kind: str) -> None:
    model = _model(kind)
    free = generate(model, PROMPTS, Sampling(max_new_tokens=4))
    token = free[0].ids[0]  # what the first prompt begins with
    shares = [
        g.probabilities[0]
        for g in generate(model, PROMPTS, Sampling(max_new_tokens=1, gate=(token, 0.0)))
    ]
    assert shares[0] == pytest.approx(free[0].probabilities[0])
    for least in (0.0, *(0.99 * share for share in shares), 1.0):  # no tie, which rounding breaks
        sampling = Sampling(max_new_tokens=4, gate=(token, least))
        gated = generate(model, PROMPTS, sampling)
        assert [g.ids[0] == token for g in gated] == [share >= least for share in shares]
        for prompt, one, free_one in zip(PROMPTS, gated, free, strict=True):
            assert generate(model, [prompt], sampling)[0].ids == one.ids  # alone as in the batch
            if one.ids[0] == free_one.ids[0]:
                assert one.ids == free_one.ids  # what follows is as free as before
                assert one.probabilities == pytest.approx(free_one.probabilities)


def test_a_closed_gate_leaves_the_second_likeliest_and_draws_among_the_others() -> None:
    model, token = _model("decoder"), 7
    closed, opened = (token, 1.0), (token, 0.0)
    logits = model.logits(model(torch.tensor([PROMPTS[1]]))[:, -1])[0]
    logits[token] = -torch.inf
    (greedy,) = generate(model, [PROMPTS[1]], Sampling(max_new_tokens=1, gate=closed))
    assert greedy.ids == [int(logits.argmax())]
    for seed in range(20):
        drawing = {"max_new_tokens": 1, "temperature": 3.0, "seed": seed}
        assert generate(model, PROMPTS, Sampling(gate=closed, **drawing))[2].ids != [token]
        assert generate(model, PROMPTS, Sampling(gate=opened, **drawing))[2].ids == [token]


@pytest.mark.parametrize("least", [-0.1, 1.1, float("nan")])
def test_a_gate_needs_a_probability(least: float) -> None:
    with pytest.raises(UsageError, match="the gate's probability is"):
        Sampling(gate=(3, least))
