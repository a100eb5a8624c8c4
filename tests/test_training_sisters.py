"""What BERT- and BART-like models learn from: gaps, damaged texts, passages read apart."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training_pretrain import CPU, QUIET, TINY

from minirag.corpus.dice import Dice
from minirag.corpus.exercises import ExerciseMix, reading_set, stream
from minirag.errors import TrainingError, UsageError
from minirag.intervals import wilson_interval
from minirag.text.reading_format import (
    ANSWER,
    END,
    MASK,
    PAD,
    SPECIAL_TOKENS,
    reading_example,
    reading_sources,
)
from minirag.text.tokenizer import Tokenizer
from minirag.training import evaluate_masking
from minirag.training import report as reporting
from minirag.training import run as running
from minirag.training.batches import NO_TARGET, ExerciseBatches, pad_right
from minirag.training.card import card, card_agrees
from minirag.training.evaluate_masking import (
    Labelled,
    features,
    fit_probe,
    labelled_texts,
    masked_accuracy,
    probe_accuracy,
    probe_scores,
)
from minirag.training.evaluate_reading import (
    answer_exercises,
    encoded_prompts,
    reading_tests,
    write_answers,
)
from minirag.training.masking import CHOSEN, MaskingForm, begins_word, mask_words, masked_loss
from minirag.training.pairs import (
    HIDDEN,
    DenoisingForm,
    ReadingPairForm,
    fused_memory,
    hide_spans,
)
from minirag.training.pretrain import pretrain
from minirag.training.recipes import RECIPES, Stage
from minirag.training.run import form_of, reading_loss
from minirag.training.warm_start import begin_with
from minirag.training.weights import locate_weights
from minirag.transformer.checkpoints import load
from minirag.transformer.config import TransformerConfig
from minirag.transformer.generation import Sampling, generate
from minirag.transformer.models import Decoder, Encoder, EncoderDecoder

_TEXTS = ["Mount Tor is 911 metres high.", "¿Qué altura tiene el monte Tor?", "Zaslo Glunno"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = [*_TEXTS, *(p for e in itertools.islice(stream(1), 40) for p in e.passages)]
    own = Tokenizer.train(texts, 420, SPECIAL_TOKENS, pad_token=PAD, eos_token=END)
    return own.with_special(MASK)


def _config(kind: str, tokenizer: Tokenizer, **options: object) -> TransformerConfig:
    return TransformerConfig(
        kind=kind,  # type: ignore[arg-type]
        vocab_size=tokenizer.vocab_size,
        d_model=16,
        n_layers=2,
        n_heads=2,
        d_ff=24,
        max_length=512,
        pad_id=tokenizer.pad_id,
        eos_ids=(tokenizer.eos_id or 0,),
        decoder_start_id=4 if kind == "encoder-decoder" else None,
        **options,  # type: ignore[arg-type]
    )


def _louder(model):
    with torch.no_grad():  # larger than at birth, so that tokens differ in their loss
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model.eval()


def test_the_sisters_share_their_vocabulary(tokenizer: Tokenizer) -> None:
    plain = Tokenizer.train(_TEXTS, 300, SPECIAL_TOKENS, pad_token=PAD, eos_token=END)
    more = plain.with_special(MASK)
    assert more.vocab_size == plain.vocab_size + 1
    assert more.id_of(MASK) == plain.vocab_size
    assert plain.id_of(MASK) is None
    for text in _TEXTS:
        assert more.encode(text) == plain.encode(text)
    assert more.encode(f"a{MASK}b")[1] == more.id_of(MASK)
    assert (more.pad_id, more.eos_id) == (plain.pad_id, plain.eos_id)


@pytest.mark.parametrize(
    ("kind", "n_decoder_layers", "n_writes"),
    [("decoder", 0, 2 * 3), ("encoder-decoder", 2, 2 * (3 + 2))],
)
def test_the_first_weights_are_as_wide_as_is_said(
    tokenizer: Tokenizer, kind: str, n_decoder_layers: int, n_writes: int
) -> None:
    """The spread is 0.64 / sqrt(D), and what writes to the stream is narrower by its writes."""
    config = dataclasses.replace(
        _config(kind, tokenizer, n_decoder_layers=n_decoder_layers),
        d_model=192, n_heads=3, n_layers=3, d_ff=192,
    )  # fmt: skip
    reads, writes = 0.64 / 192**0.5, 0.64 / 192**0.5 / n_writes**0.5
    seen = set()
    for name, weight in running.MODELS[kind](config, 1).named_parameters():
        module = name.removesuffix(".weight").rpartition(".")[2]
        if weight.dim() == 2:
            expected = writes if module in ("output", "down") else reads
            assert weight.std().item() == pytest.approx(expected, rel=0.03), name
            seen.add(module)
    assert seen == {"token", "query", "key", "value", "output", "up", "down"}


# ---------------------------------------------------------------------------------------- masking


def test_words_are_what_stands_between_spaces_and_marks(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(reading_example(["Mount Zaslo, 91.5%: ¿año?"], []), special=False)
    kinds = begins_word(tokenizer)[ids]
    pieces = [tokenizer.decode([i], skip_special=False) for i in ids]
    words: list[str] = []
    for piece, kind in zip(pieces, kinds, strict=True):
        if kind == 0 and words:
            words[-1] += piece
        else:
            words.append(piece)
    assert [w for w in words if w.startswith("<|")] == ["<|passage|>", "<|end|>"]
    assert " Mount" in words
    assert " Zaslo" in words  # however many pieces
    assert "," in words


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_whole_words_are_hidden_and_told(tokenizer: Tokenizer, seed: int) -> None:
    (exercise,) = itertools.islice(stream(seed, ExerciseMix(text=1, closed_book=0)), 1)
    ids = np.array(tokenizer.encode(reading_example(exercise.passages, []), special=False))
    begins = begins_word(tokenizer)
    masked = mask_words(ids, begins, tokenizer, Dice(seed))
    chosen = masked.targets != NO_TARGET
    assert (masked.targets[chosen] == ids[chosen]).all()
    assert (masked.ids[~chosen] == ids[~chosen]).all()
    special = begins[ids] == -1
    assert not (chosen & special).any()
    goes_on = np.flatnonzero(begins[ids] == 0)
    for place in goes_on[goes_on > 0]:
        if not special[place - 1]:
            assert chosen[place] == chosen[place - 1]  # a word is chosen whole
    again = mask_words(ids, begins, tokenizer, Dice(seed))
    assert (again.ids == masked.ids).all()


def test_shares_of_masking(tokenizer: Tokenizer) -> None:
    begins, dice = begins_word(tokenizer), Dice(3)
    words = chosen = hidden = kept = 0
    for exercise in itertools.islice(stream(5, ExerciseMix(text=1, closed_book=0)), 150):
        ids = np.array(tokenizer.encode(exercise.passages[0], special=False))
        masked = mask_words(ids, begins, tokenizer, dice)
        first = begins[ids] == 1  # one token for each word
        words += int(first.sum())
        at = first & (masked.targets != NO_TARGET)
        chosen += int(at.sum())
        hidden += int((masked.ids[at] == tokenizer.id_of(MASK)).sum())
        kept += int((masked.ids[at] == ids[at]).sum())
    assert chosen / words == pytest.approx(CHOSEN, abs=0.015)
    assert hidden / chosen == pytest.approx(0.8, abs=0.05)
    assert kept / chosen == pytest.approx(0.1, abs=0.04)


def test_masked_loss_is_the_mean_over_the_chosen_whatever_the_padding(tokenizer) -> None:
    model = _louder(Encoder(_config("encoder", tokenizer)))
    form = MaskingForm(tokenizer)
    sequences = form.sequences(list(itertools.islice(stream(2), 6)), Dice(1))
    losses = []
    for sequence in sequences:  # one by one: no padding
        ids = torch.from_numpy(sequence.ids)[None]
        log_p = model.logits(model(ids))[0].log_softmax(-1).detach()
        places = np.flatnonzero(sequence.targets != NO_TARGET).tolist()
        losses += [-float(log_p[i, sequence.targets[i]]) for i in places]
    loss = masked_loss(model, form.batch(sequences))
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    nothing = dataclasses.replace(sequences[0], targets=np.full_like(sequences[0].ids, NO_TARGET))
    assert masked_loss(model, form.batch([nothing])).item() == 0.0


def test_masked_accuracy_of_a_model_that_knows_nothing(tokenizer) -> None:
    scores = masked_accuracy(_louder(Encoder(_config("encoder", tokenizer))), tokenizer, 1, 20)
    assert [s.name for s in scores] == ["en/hidden tokens", "es/hidden tokens"]
    for s in scores:
        assert s.n > 50
        assert 0 <= s.right.value < 0.2


class _Telling:
    """Says of every hidden token which it is, or the one ``beside`` it in the vocabulary."""

    device = torch.device("cpu")

    def __init__(self, tokenizer: Tokenizer, beside: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_tokens, self.beside = tokenizer.vocab_size, beside
        batch = MaskingForm.batch

        def noted(form, sequences):
            made = batch(form, sequences)
            self.targets = made.targets
            return made

        monkeypatch.setattr(MaskingForm, "batch", noted)

    def __call__(self, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        said = (self.targets.clamp(min=0) + self.beside) % self.n_tokens
        return torch.nn.functional.one_hot(said, self.n_tokens)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        return states


@pytest.mark.parametrize(("beside", "right"), [(0, 1.0), (1, 0.0)])
def test_masked_accuracy_counts_what_is_told(tokenizer, monkeypatch, beside, right) -> None:
    model, form = _Telling(tokenizer, beside, monkeypatch), MaskingForm(tokenizer)
    scores = masked_accuracy(model, tokenizer, 1, 40)  # more than one batch of texts
    for s, language in zip(scores, ("en", "es"), strict=True):
        exercises = reading_set(1, language, 40, 1)
        texts = form.sequences(exercises, Dice(1, "masking", language))
        assert s.n == sum(int((text.targets != NO_TARGET).sum()) for text in texts)
        assert s.right.value == right


def test_a_probe_finds_what_is_linear_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=generator)
    linear = (x[:, 1] > 0).long()
    weight, bias = fit_probe(x, linear)
    assert ((x @ weight.T + bias).argmax(1) == linear).float().mean() > 0.97
    coin = torch.randint(0, 2, (300,), generator=generator)
    weight, bias = fit_probe(x, coin)
    fresh = torch.randn(300, 5, generator=generator)
    guess = (fresh @ weight.T + bias).argmax(1)
    assert abs((guess == coin).float().mean() - 0.5) < 0.1


@pytest.mark.parametrize(("informed", "low", "high"), [(True, 1.0, 1.0), (False, 0.25, 0.42)])
def test_a_probe_is_as_right_as_its_features_let_it_be(
    tokenizer, monkeypatch, informed: bool, low: float, high: float
) -> None:
    """Three classes that three of the features tell apart, or none: then a third is luck."""
    generator = torch.Generator().manual_seed(0)
    labels = [i % 3 for i in range(360)]
    x = torch.randn(360, 20, generator=generator)
    if informed:
        x[:, :3] += 9 * torch.nn.functional.one_hot(torch.tensor(labels))
    x = 5 + 0.1 * x  # neither around zero nor about one wide
    monkeypatch.setattr(evaluate_masking, "features", lambda *args: x[[int(t) for t in args[2]]])
    given, asked = (
        Labelled([str(i) for i in places], [labels[i] for i in places])
        for places in (range(60), range(60, 360))
    )
    model = Encoder(_config("encoder", tokenizer))
    assert low <= probe_accuracy(model, tokenizer, given, asked).value <= high


def test_a_probe_is_asked_about_texts_that_it_was_not_given(tokenizer, monkeypatch) -> None:
    """Of another seed, so about other entities; and in phrasings that are held out."""
    trained, probed = Encoder(_config("encoder", tokenizer)), []

    def draw(what: str, seed: int, n: int, *, held_out: bool) -> Labelled:
        return Labelled([f"{n} of {what}, seed {seed}, held out: {held_out}"], [0, 1])

    def probe(model, tokenizer, given: Labelled, asked: Labelled):
        probed.append((model is trained, *given.texts, *asked.texts))
        return wilson_interval(1, 1)

    monkeypatch.setattr(evaluate_masking, "labelled_texts", draw)
    monkeypatch.setattr(evaluate_masking, "probe_accuracy", probe)
    scores = probe_scores(trained, tokenizer, 7)
    for what, ours in itertools.product(("kind", "language", "domain"), (True, False)):
        assert scores.pop(0).name == f"probe/{what}{'' if ours else ', random weights'}"
        assert probed.pop(0) == (
            ours,
            f"10 of {what}, seed 7, held out: False",
            f"510 of {what}, seed 8, held out: True",
        )
    assert not scores + probed


@pytest.mark.parametrize(("what", "classes"), [("kind", 17), ("language", 2), ("domain", 3)])
def test_labelled_texts(what, classes) -> None:
    given, again = (labelled_texts(what, 4, 3, held_out=False) for _ in range(2))
    assert given == again
    assert given.labels == [label for label in range(classes) for _ in range(3)]
    assert len(given.texts) == len(given.labels)
    other = labelled_texts(what, 5, 3, held_out=True)
    assert not set(given.texts) & set(other.texts)


# -------------------------------------------------------------------------------------- denoising


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_hidden_spans_leave_the_rest_as_it_was(tokenizer: Tokenizer, seed: int) -> None:
    (exercise,) = itertools.islice(stream(seed, ExerciseMix(text=1, closed_book=0)), 1)
    ids = np.array(tokenizer.encode(reading_example(exercise.passages, []), special=False))
    damaged = hide_spans(ids, begins_word(tokenizer), tokenizer, Dice(seed)).tolist()
    mask = tokenizer.id_of(MASK)
    assert (mask, mask) not in set(itertools.pairwise(damaged))
    # What is left stands in the text in its order, stretch by stretch.
    at, whole = 0, ids.tolist()
    for is_mask, stretch in itertools.groupby(damaged, lambda token: token == mask):
        if not is_mask:
            left = list(stretch)
            while whole[at : at + len(left)] != left:
                at += 1
                assert at < len(whole)
            at += len(left)
    specials = [t for t in whole if begins_word(tokenizer)[t] == -1]
    assert [t for t in damaged if t in specials] == specials


def test_share_of_what_is_hidden(tokenizer: Tokenizer) -> None:
    begins, dice, words, left = begins_word(tokenizer), Dice(8), 0, 0
    for exercise in itertools.islice(stream(5, ExerciseMix(text=1, closed_book=0)), 200):
        ids = np.array(tokenizer.encode(exercise.passages[0], special=False))
        words += int((begins[ids] == 1).sum())
        left += int((begins[hide_spans(ids, begins, tokenizer, dice)] == 1).sum())
    # Spans overlap now and then, so a little less is hidden than they have words.
    assert 1 - left / words == pytest.approx(1 - np.exp(-HIDDEN), abs=0.03)


def test_denoising_writes_the_text_as_it_was(tokenizer: Tokenizer) -> None:
    form = DenoisingForm(tokenizer)
    exercises = reading_set(3, "en", 12, 1, held_out=False)
    pairs = form.sequences(exercises, Dice(1))
    assert len(pairs) == 12
    for exercise, pair in zip(exercises, pairs, strict=True):
        question = exercise.questions[0]
        text = reading_example(exercise.passages, [(question.text, question.answer)])
        assert tokenizer.decode(pair.written.tolist(), skip_special=False) == text
        assert len(pair.sources) == 1
        read = tokenizer.decode(pair.sources[0].tolist(), skip_special=False).replace(MASK, " ")
        assert set(re.findall(r"\w+", read)) <= set(re.findall(r"\w+", text))


# ----------------------------------------------------------------------------------- reading apart


def test_every_passage_is_read_alone(tokenizer: Tokenizer) -> None:
    assert reading_sources(["A b.", "C d."], ["Q?", "R?"]) == [
        "<|passage|> A b.",
        "<|passage|> C d.",
    ]
    assert reading_sources([], ["Q?", "R?"]) == ["<|question|> Q?<|question|> R?"]
    exercises = reading_set(1, "es", 2, 3)
    asked = [e.questions[0] for e in exercises]
    both = dataclasses.replace(exercises[0], questions=tuple(asked))
    (pair,) = ReadingPairForm(tokenizer).sequences([both], Dice(0))
    assert len(pair.sources) == 3
    written = tokenizer.decode(pair.written.tolist(), skip_special=False)
    assert written == reading_example([], [(q.text, q.answer) for q in asked])
    # Where it is asked, the decoder is given the very beginning that it learned to go on from.
    model = EncoderDecoder(_config("encoder-decoder", tokenizer))
    (parts,) = encoded_prompts(model, tokenizer, [(both.passages, asked[0].text)])
    assert len(parts) == 4
    assert parts[-1] == pair.written[: len(parts[-1])].tolist()
    (alone,) = ReadingPairForm(tokenizer).sequences([exercises[0]], Dice(0))
    assert parts[:-1] == [source.tolist() for source in alone.sources]


def test_fusion_is_each_part_alone_laid_end_to_end(tokenizer: Tokenizer) -> None:
    model = _louder(EncoderDecoder(_config("encoder-decoder", tokenizer)))
    exercises = [*reading_set(1, "en", 2, 3), *reading_set(2, "es", 2, 1)]
    form = ReadingPairForm(tokenizer)
    pairs = form.sequences(exercises, Dice(0))
    batch = form.batch(pairs)
    memory, keep = fused_memory(model, batch.sources, batch.keep, batch.parts)
    for row, pair in enumerate(pairs):
        alone = [model.encode(torch.from_numpy(part)[None])[0] for part in pair.sources]
        expected = torch.cat(alone)
        assert int(keep[row].sum()) == len(expected)
        torch.testing.assert_close(memory[row, : len(expected)], expected, atol=1e-5, rtol=1e-4)


def test_a_text_close_to_the_context_is_not_filled_up_beyond_it(tokenizer: Tokenizer) -> None:
    """A context of 100 tokens, and what 98 take in a batch would be 112."""
    ids, keep = pad_right([[5] * 98, [6] * 3], 0, most=100)
    assert ids.shape == (2, 100)
    assert keep.sum(dim=1).tolist() == [98, 3]
    assert pad_right([[5] * 98], 0)[0].shape == (1, 112)
    assert pad_right([[5] * 101], 0, most=100)[0].shape == (1, 101)  # whole: the model will object
    config = dataclasses.replace(_config("encoder-decoder", tokenizer), max_length=100)
    both = _louder(EncoderDecoder(config))
    source = [10 + i % 300 for i in range(98)]
    sampling = Sampling(max_new_tokens=5)
    start = [both.config.decoder_start_id]
    written = write_answers(both, [[source, start], [source[:30], start]], sampling)
    alone = generate(both, [source], sampling)[0]
    assert written[0].ids == alone.ids
    encoder = Encoder(dataclasses.replace(_config("encoder", tokenizer), max_length=100))
    assert features(encoder, tokenizer, ["The mill stands. " * 40, "A mill."]).shape == (2, 16)


def test_what_is_read_apart_has_to_fit_part_by_part(tokenizer: Tokenizer) -> None:
    """All exercises with four passages are kept, though together they are beyond the context."""
    form = ReadingPairForm(tokenizer)
    mix = ExerciseMix(passages=(0.0, 0.0, 0.0, 1.0), facts=(2, 3), closed_book=0.0, text=0.0)
    batches = ExerciseBatches(
        lambda _: form, lambda _: mix, seed=1, tokens_per_batch=4000, max_length=256, pool_size=12
    )
    kept = [pair for group in batches._pool(form) for pair in group]
    assert len(kept) == 12
    assert {len(pair.sources) for pair in kept} == {4}
    assert min(map(form.length, kept)) > 256 >= max(map(form.longest, kept))


@pytest.mark.parametrize("rest_weight", [0.0, 0.3])
def test_the_loss_is_that_of_the_answers_and_of_the_rest(tokenizer: Tokenizer, rest_weight) -> None:
    """Against each exercise alone, and the answers found in it by hand."""
    model = _louder(EncoderDecoder(_config("encoder-decoder", tokenizer)))
    for form, n in ((ReadingPairForm(tokenizer), 3), (DenoisingForm(tokenizer), 1)):
        exercises = [*reading_set(1, "en", 2, n), *reading_set(2, "es", 1, 1)]
        pairs = form.sequences(exercises, Dice(0))
        answers, rest = [], []
        for pair in pairs:
            memory = torch.cat(
                [model.encode(torch.from_numpy(part)[None]) for part in pair.sources], dim=1
            )
            written = pair.written.tolist()
            log_p = model.logits(model(torch.tensor([written[:-1]]), memory))[0].log_softmax(-1)
            inside = False
            for i, token in enumerate(written[1:]):
                inside = (inside or written[i] == tokenizer.id_of(ANSWER)) and (
                    written[i] != tokenizer.eos_id
                )
                (answers if inside else rest).append(-float(log_p[i, token].detach()))
        expected = np.mean(answers) + rest_weight * np.mean(rest)
        loss = reading_loss(model, form.batch(pairs), rest_weight)
        assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_an_answer_goes_on_from_its_question(tokenizer: Tokenizer) -> None:
    """Token by token against the whole forward pass; questions of unlike lengths in a batch."""
    model = _louder(EncoderDecoder(_config("encoder-decoder", tokenizer)))
    exercises = [*reading_set(1, "en", 2, 2), *reading_set(2, "es", 2, 1)]
    asked = [(e.passages, e.questions[0].text) for e in exercises]
    prompts = encoded_prompts(model, tokenizer, asked)
    assert len({len(parts[-1]) for parts in prompts}) > 1
    sampling = Sampling(max_new_tokens=6, ignore_end=True)
    for parts, written in zip(prompts, write_answers(model, prompts, sampling), strict=True):
        memory = torch.cat([model.encode(torch.tensor([part])) for part in parts[:-1]], dim=1)
        ids = list(parts[-1])
        for _ in range(6):
            ids.append(int(model.logits(model(torch.tensor([ids]), memory))[0, -1].argmax()))
        assert written.ids == ids[len(parts[-1]) :]


def test_answers_in_a_batch_are_those_one_by_one(tokenizer: Tokenizer) -> None:
    model = _louder(EncoderDecoder(_config("encoder-decoder", tokenizer)))
    exercises = [*reading_set(1, "en", 3, 2), *reading_set(2, "es", 3, 1)]
    together = answer_exercises(model, tokenizer, exercises)
    for exercise, answered in zip(exercises, together, strict=True):
        assert answer_exercises(model, tokenizer, [exercise]) == [answered]


# ------------------------------------------------------------------------- beginning with a reader


def test_both_towers_begin_as_the_reader(tokenizer: Tokenizer) -> None:
    reader = _louder(Decoder(_config("decoder", tokenizer, bias=True), seed=1))
    config = _config("encoder-decoder", tokenizer, bias=True, n_decoder_layers=1)
    more = dataclasses.replace(config, vocab_size=config.vocab_size + 1)
    model = EncoderDecoder(more, seed=2)
    last = model.encoder.embeddings.token.weight[-1].clone()
    begin_with(model, reader)
    assert torch.equal(model.encoder.embeddings.token.weight[-1], last)
    ids = torch.tensor([tokenizer.encode(_TEXTS[0])])
    # Read from left to right alone, the encoder says what the reader says.
    torch.testing.assert_close(model.encoder(ids, None, causal=True), reader(ids))
    block, read = model.decoder.blocks[0], reader.tower.blocks[0]
    for name in ("query", "key", "value", "output"):
        own, cross = getattr(block.attention, name), getattr(block.cross, name)
        assert torch.equal(own.weight, getattr(read.attention, name).weight)
        assert torch.equal(cross.weight, own.weight)
        assert cross.weight.data_ptr() != own.weight.data_ptr()  # and learns on its own


def test_a_reader_of_another_shape_is_no_beginning(tokenizer: Tokenizer) -> None:
    reader = Decoder(_config("decoder", tokenizer))
    config = _config("encoder-decoder", tokenizer)
    for other, said in (
        (dataclasses.replace(config, d_ff=32), "another shape: d_ff differs"),
        (dataclasses.replace(config, d_ff=32, n_heads=1), "n_heads, d_ff differ"),
        (dataclasses.replace(config, n_decoder_layers=3), "up to 3 blocks and"),
        (dataclasses.replace(config, vocab_size=300), "and 300 tokens"),
    ):
        with pytest.raises(UsageError, match=said):
            begin_with(EncoderDecoder(other), reader)


# ------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize(
    ("kind", "tasks"), [("encoder", ["masking"]), ("encoder-decoder", ["denoising", "reading"])]
)
def test_a_run_is_bit_equal_after_a_kill(tmp_path, monkeypatch, tokenizer, kind, tasks) -> None:
    monkeypatch.setattr(running, "train_tokenizer", lambda recipe: tokenizer)
    mix = ExerciseMix(passages=(0.5, 0.5), facts=(2, 2))
    recipe = dataclasses.replace(
        TINY,
        kind=kind,
        n_decoder_layers=1,
        stages=tuple(Stage(mix, i * 0.4, task=task) for i, task in enumerate(tasks)),
    )
    watching = dataclasses.replace(QUIET, checkpoint_every=3, validate_every=3, questions=4)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(recipe, whole, seed=2, machine=CPU, watching=watching)

    class Killed(Exception):
        pass

    steps = running.Pretraining.steps

    def killed_after(self, after):
        def until(step):
            after(step)
            if step.number == 3:
                raise Killed

        steps(self, until)

    monkeypatch.setattr(running.Pretraining, "steps", killed_after)
    with pytest.raises(Killed):
        pretrain(recipe, parts, seed=2, machine=CPU, watching=watching)
    monkeypatch.setattr(running.Pretraining, "steps", steps)
    pretrain(recipe, parts, seed=2, machine=CPU, watching=watching, resume=True)
    first, second = ((d / "model.safetensors").read_bytes() for d in (whole, parts))
    assert first == second
    curves = [json.loads((d / "curve.json").read_text("utf-8")) for d in (whole, parts)]
    assert curves[0]["first_losses"] == curves[1]["first_losses"]
    assert len(curves[0]["validations"]) == 2
    assert load(whole).config.kind == kind


@pytest.mark.parametrize(
    ("kind", "task", "says"),
    [
        ("encoder", "masking", ["mean over the hidden tokens", "2 layers of width 32"]),
        ("encoder-decoder", "reading", ["2 layers that read, 1 that write", "| refused |"]),
    ],
)
def test_a_sisters_card_speaks_of_its_kind(
    tmp_path, monkeypatch, tokenizer, kind, task, says
) -> None:
    monkeypatch.setattr(running, "train_tokenizer", lambda recipe: tokenizer)
    tests = reading_tests(5, 2)[:1]
    tests[0] = dataclasses.replace(tests[0], exercises=tests[0].exercises[:2])
    monkeypatch.setattr(reporting, "reading_tests", lambda *_: tests)
    monkeypatch.setattr(reporting, "probe_scores", lambda *_: [])
    recipe = dataclasses.replace(
        TINY,
        kind=kind,
        n_decoder_layers=int(kind == "encoder-decoder"),
        steps=2,
        stages=(Stage(ExerciseMix(), task=task),),
    )
    watching = dataclasses.replace(QUIET, report_questions=2)
    pretrain(recipe, tmp_path, machine=CPU, watching=watching)
    assert card_agrees(tmp_path)
    text = card(tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text("utf-8"))["scores"]
    assert scores
    for score in scores:
        assert f"| {score['name']} | {score['n']} | **{score['right'][0]:.3f}**" in text
    for phrase in says:
        assert phrase in text
    assert ("refused" in text.partition("## Scores")[2]) == (kind != "encoder")


def test_a_task_must_suit_the_model(tokenizer: Tokenizer) -> None:
    decoder = Decoder(_config("decoder", tokenizer))
    encoder = Encoder(_config("encoder", tokenizer))
    both = EncoderDecoder(_config("encoder-decoder", tokenizer))
    for task, model in (
        ("masking", decoder), ("denoising", decoder), ("reading", encoder),
        ("denoising", encoder), ("masking", both),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=f"{task} is no task"):
            form_of(task, model, tokenizer)


def test_nothing_to_predict_and_no_mask_are_said(tokenizer: Tokenizer) -> None:
    plain = Tokenizer.train(_TEXTS, 300, SPECIAL_TOKENS, pad_token=PAD, eos_token=END)
    for form in (MaskingForm(tokenizer), ReadingPairForm(tokenizer)):
        with pytest.raises(TrainingError, match="nothing to predict"):
            form.batch([])
    exercises = reading_set(1, "en", 1)
    for form in (MaskingForm(plain), DenoisingForm(plain)):
        with pytest.raises(TrainingError, match="lacks"):
            form.sequences(exercises, Dice(1))


@pytest.mark.parametrize("name", ["bert-base", "bart-base"])
def test_the_recipes_take_steps(name) -> None:
    recipe = RECIPES[name].with_steps(2000)
    tokenizer = running.make_tokenizer(recipe)
    model = running.MODELS[recipe.kind](recipe.config(tokenizer), 0)
    assert 2e6 < model.n_parameters < 8e6
    assert [recipe.task_at(0), recipe.task_at(1999)] in (
        ["masking", "masking"], ["denoising", "reading"],
    )  # fmt: skip
    for step in (0, 1999):
        batches = ExerciseBatches(
            lambda _, at=step: form_of(recipe.task_at(at), model, tokenizer),
            lambda _, at=step: recipe.mix_at(at),
            seed=0, tokens_per_batch=600, max_length=recipe.max_length, pool_size=6,
        )  # fmt: skip
        loss = running.loss_of(model, next(iter(batches)), 0.3)
        means = 1.3 if name == "bart-base" else 1.0  # of answers + 0.3 of the rest, or one of all
        assert 4 < loss.item() / means < 9  # a model that knows nothing: ln 1,025 = 6.9
    if recipe.begins_with:
        begin_with(model, load(locate_weights(recipe.begins_with)))  # it is of the same shape
