"""What a step learns from: masked labels, parts of a batch, and frozen layers computed once."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import small_bases
import torch
from torch import Tensor

from minirag.corpus.dice import Dice
from minirag.corpus.exercises import ExerciseMix, stream
from minirag.corpus.questions import ReadingExercise
from minirag.errors import TrainingError, UsageError
from minirag.finetuning import frozen_cache
from minirag.finetuning.batches import Epochs, encode, with_rehearsal
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.finetune import finetune
from minirag.finetuning.freezing import freeze, training_mode, untie, weights_named
from minirag.finetuning.frozen_cache import FrozenCache, frozen_depth
from minirag.finetuning.objective import Part, part_loss, share_out
from minirag.text.reading_format import END, reading_example
from minirag.training.batches import Batch
from minirag.training.loop import Optimization, Parts, make_optimizer, training_steps
from minirag.training.run import reading_loss
from minirag.transformer.machine import Machine
from minirag.transformer.models import Decoder, EncoderDecoder

Any_ = Decoder | EncoderDecoder
MODELS: list[Callable[..., Any_]] = [small_bases.decoder, small_bases.encoder_decoder]


def _louder(model: Any_) -> Any_:
    with torch.no_grad():  # larger than at birth, so that tokens differ in their loss
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


def _batch(model: Any_, exercises: list[ReadingExercise]):
    form, sequences, _ = encode(model, small_bases.tokenizer(), exercises, Dice(1))
    return form.batch(sequences)


def test_only_answers_count_and_their_end() -> None:
    """Against the answers cut out of the text by hand, whatever stands around them."""
    model, tokenizer = _louder(small_bases.decoder()), small_bases.tokenizer()
    exercises = small_bases.exercises(5)
    losses = []
    for e in exercises:
        text = reading_example(e.passages, [(q.text, q.answer) for q in e.questions])
        ids = tokenizer.encode(text, special=False)
        log_p = model.logits(model(torch.tensor([ids])))[0].log_softmax(-1)
        answer, end, inside = tokenizer.id_of("<|answer|>"), tokenizer.id_of(END), False
        for place in range(len(ids) - 1):
            inside = (inside or ids[place] == answer) and ids[place] != end
            if inside:
                losses.append(-log_p[place, ids[place + 1]].item())
    batch = _batch(model, exercises)
    part = Part(batch, share_out([batch], 0.0)[0])
    assert part_loss(model, part).item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)


@pytest.mark.parametrize("rest_weight", [0.0, 0.3, 1.0])
def test_the_loss_is_the_one_of_pretraining(rest_weight: float) -> None:
    exercises = small_bases.exercises(6)
    model = _louder(small_bases.decoder())
    batch = _batch(model, exercises)
    loss = part_loss(model, Part(batch, share_out([batch], rest_weight)[0]))
    torch.testing.assert_close(loss, reading_loss(model, batch, rest_weight))
    other = _louder(small_bases.encoder_decoder())
    pairs = _batch(other, exercises)
    loss = part_loss(other, Part(pairs, share_out([pairs], rest_weight)[0]))
    torch.testing.assert_close(loss, reading_loss(other, pairs, rest_weight))


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("rest_weight", [0.0, 0.3])
def test_gradients_of_the_parts_add_up_to_the_big_batchs(make, rest_weight: float) -> None:
    """In float64, with parts of very different numbers of target tokens, over several steps."""
    exercises = small_bases.exercises(8)
    cut = [exercises[:1], exercises[1:6], exercises[6:]]
    models = [_louder(make()).double() for _ in "ab"]
    parts = [_batch(models[0], some) for some in cut]
    assert len({int(b.targets.ge(0).sum()) for b in parts}) == 3
    whole = _batch(models[0], exercises)
    big = Part(whole, share_out([whole], rest_weight)[0].double())
    small = Parts(
        Part(b, s.double()) for b, s in zip(parts, share_out(parts, rest_weight), strict=True)
    )
    gradients = []
    for model, batch in zip(models, ([big], small), strict=True):
        for part in batch:
            part_loss(model, part).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert max(float(g.abs().max()) for g in gradients[0]) > 1e-3
    how = Optimization(rate=1e-3)
    runs = [
        training_steps(m, [b, b, b], part_loss, make_optimizer(m, how), lambda _: 1.0, max_norm=0.1)
        for m, b in zip(models, (big, small), strict=True)
    ]
    for one, other in zip(*runs, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-6)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-6)


def test_a_batch_of_masked_labels_is_refused() -> None:
    texts = list(itertools.islice(stream(1, ExerciseMix(text=1.0, closed_book=0.0)), 3))
    batch = _batch(small_bases.decoder(), texts)
    assert share_out([batch], 1.0)[0].sum() == pytest.approx(1.0)
    with pytest.raises(TrainingError, match="every label of a batch is masked"):
        share_out([batch], 0.0)
    asking = _batch(small_bases.decoder(), small_bases.exercises(1))
    shares = share_out([batch, asking], 0.0)  # one part of a batch may be silent
    assert shares[0].sum() == 0
    assert shares[1].sum() == pytest.approx(1.0)


# ------------------------------------------------------------------------------------------ epochs


def test_every_sequence_once_an_epoch_and_the_same_again() -> None:
    model = small_bases.decoder()
    form, sequences, _ = encode(model, small_bases.tokenizer(), small_bases.exercises(30), Dice(1))

    def epochs(seed: int) -> Epochs:
        return Epochs(form, sequences, seed=seed, tokens_per_batch=1500, accumulate=2)

    ours = epochs(3)
    for epoch in range(3):
        steps = ours.places(epoch)
        assert sorted(i for s in steps for g in s for i in g) == list(range(len(sequences)))
        assert all(len(step) == 2 for step in steps[:-1])
        assert steps == epochs(3).places(epoch)
        assert steps != epochs(4).places(epoch)
    assert ours.places(0) != ours.places(1)
    ends = ours.steps_in(2)
    assert ends == [len(ours.places(0)), len(ours.places(0)) + len(ours.places(1))]

    def first_ids(first_step: int, n: int) -> list[Tensor]:
        batches = itertools.islice(ours.batches(first_step), n)
        return [(b if isinstance(b, Part) else b[0]).batch.ids for b in batches]

    whole = first_ids(0, ends[1])
    for start in (1, ends[0] - 1, ends[0], ends[0] + 1):  # taken up anywhere
        for one, other in zip(first_ids(start, ends[1] - start), whole[start:], strict=True):
            assert torch.equal(one, other)


def test_rehearsal_makes_up_its_share_of_the_tokens() -> None:
    model = small_bases.decoder()
    form, domain, _ = encode(model, small_bases.tokenizer(), small_bases.exercises(20), Dice(1))
    _, general, _ = encode(model, small_bases.tokenizer(), small_bases.exercises(60, 9), Dice(1))
    mixed = with_rehearsal(form, domain, iter(general), 0.25)
    assert mixed[: len(domain)] == domain
    tokens = [form.length(s) for s in mixed]
    assert sum(tokens[len(domain) :]) / sum(tokens) == pytest.approx(0.25, abs=0.03)
    assert with_rehearsal(form, domain, iter([]), 0.0) == domain


def test_what_fits_nowhere_is_said() -> None:
    model = small_bases.decoder(max_length=8)
    with pytest.raises(TrainingError, match="none of 3 exercises fits into the 8 tokens"):
        encode(model, small_bases.tokenizer(), small_bases.exercises(3), Dice(1))


# ------------------------------------------------------------------------------------------- cache


def _epochs(model: Any_, exercises: list[ReadingExercise], length: int | None = None) -> Epochs:
    form, sequences, _ = encode(model, small_bases.tokenizer(), exercises, Dice(1))
    if length is not None:  # a fixed length: no padding anywhere
        sequences = [s[: length + 1] for s in sequences if len(s) > length]
    return Epochs(form, sequences, seed=2, tokens_per_batch=600, accumulate=1, rest_weight=0.5)


def _losses(model: Any_, epochs: Epochs, cached: bool, dropout: float = 0.0) -> list[float]:
    model = copy.deepcopy(model)
    training_mode(model)
    if cached:
        epochs.cache = FrozenCache(
            model, epochs.form, epochs.sequences,
            tokens_per_batch=1000, autocast=small_bases.CPU.autocast,
        )  # fmt: skip
    torch.manual_seed(0)
    n = 2 * len(epochs.places(0))
    steps = training_steps(
        model, itertools.islice(epochs.batches(), n), part_loss,
        make_optimizer(model, Optimization(rate=1e-2)), lambda _: 1.0,
        training_mode=training_mode,
    )  # fmt: skip
    losses = [step.loss for step in steps]
    epochs.cache = None
    return losses


@pytest.mark.parametrize("parts", ["embeddings", "embeddings,0", "embeddings,0-1", "all-but-head"])
def test_cached_losses_are_the_same_to_the_bit_at_fixed_length(parts: str) -> None:
    model = small_bases.decoder(dropout=0.2)  # off below, on above: the draws are the same
    untie(model)
    freeze(model, weights_named(model, parts))
    epochs = _epochs(model, small_bases.exercises(24), length=96)
    assert len(epochs.places(0)) > 2
    if parts == "embeddings":
        assert frozen_depth(model) == 0
        with pytest.raises(UsageError, match="nothing to compute once"):
            _losses(model, epochs, cached=True)
        return
    plain = _losses(model, epochs, cached=False)
    assert _losses(model, epochs, cached=True) == plain
    assert plain[-1] < plain[0]


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (small_bases.decoder, "embeddings,0-1"),
        (small_bases.encoder_decoder, "embeddings,0-1"),
        (small_bases.encoder_decoder, "embeddings,0-2"),  # the whole encoder
    ],
)
def test_cached_losses_at_any_length(make, parts: str) -> None:
    model = _louder(make())
    untie(model)
    freeze(model, weights_named(model, parts))
    epochs = _epochs(model, small_bases.exercises(20))
    plain, cached = _losses(model, epochs, False), _losses(model, epochs, True)
    assert cached == pytest.approx(plain, abs=1e-6)
    assert len(set(plain)) == len(plain) > 4


def test_the_upper_layers_alone_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_bases.decoder()
    untie(model)
    freeze(model, weights_named(model, "embeddings,0-1"))
    epochs = _epochs(model, small_bases.exercises(6))
    epochs.cache = FrozenCache(
        model, epochs.form, epochs.sequences,
        tokens_per_batch=600, autocast=small_bases.CPU.autocast,
    )  # fmt: skip
    ran = []
    for i, block in enumerate(model.tower.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    part = next(epochs.batches())
    assert isinstance(part, Part)
    part_loss(model, part)
    assert ran == [2]
    tokens = sum(len(s) - 1 for s in epochs.sequences)
    assert epochs.cache.n_bytes == tokens * 16 * 4


def test_a_cache_larger_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_cache, "MOST_BYTES", 1 << 12)
    config = FineTuneConfig(
        epochs=1, freeze="embeddings,0", untie_head=True, cache_frozen=True, rate=1e-3
    )
    with pytest.raises(UsageError, match=r"states of [\d,]+ tokens take .* GiB"):
        finetune(small_bases.base(), small_bases.data(), config, machine=small_bases.CPU)
    with pytest.raises(UsageError, match="give --gradual or --cache, not both"):
        FineTuneConfig(gradual=True, cache_frozen=True)


def test_the_cache_keeps_the_precision_of_training() -> None:
    """Under bf16 autocast the residual stream is bf16: the kept states are, too."""
    model = small_bases.decoder()
    untie(model)
    freeze(model, weights_named(model, "embeddings,0"))
    epochs = _epochs(model, small_bases.exercises(4))
    bf16 = Machine(torch.device("cpu"), bf16=True)
    cache = FrozenCache(
        model, epochs.form, epochs.sequences, tokens_per_batch=600, autocast=bf16.autocast
    )
    batch = epochs.form.batch([epochs.sequences[0]])
    assert isinstance(batch, Batch)
    part = Part(batch, share_out([batch], 0.5)[0])
    cached = Part(batch, part.shares, cache.of([0], batch.ids.size(1)))
    assert cached.cached is not None
    assert cached.cached.states.dtype == torch.bfloat16
    with bf16.autocast():
        assert part_loss(model, part).item() == part_loss(model, cached).item()
