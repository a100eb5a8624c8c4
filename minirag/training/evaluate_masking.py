"""How much meaning an encoder holds: gaps filled on unseen text, and a linear probe on top.

A probe (Alain and Bengio 2017) is the simplest classifier there is, trained on a frozen model's
features: what it can tell apart is laid out there already. The same probe on a model of random
weights says how much of that is in the words themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minirag.corpus import passages
from minirag.corpus.dice import Dice
from minirag.corpus.exercises import KINDS_OF_TEXT, reading_set
from minirag.corpus.facts import Domain
from minirag.corpus.general import GENERAL
from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.phrasings import load
from minirag.corpus.world import DOMAINS
from minirag.intervals import Interval, wilson_interval
from minirag.text.reading_format import reading_example
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import NO_TARGET, pad_right
from minirag.training.evaluate_reading import Score
from minirag.training.masking import MaskingForm
from minirag.transformer.models import Encoder

_AT_ONCE = 32
_TEXTS_A_CLASS = 10  # that a probe is trained on
_TEXTS_ASKED = 1020  # at least, that it is tested on: other entities, held-out phrasings
_NOTHING_REFUSED = Interval(0.0, 0.0, 0.0)


@torch.inference_mode()
def masked_accuracy(
    model: Encoder, tokenizer: Tokenizer, seed: int, n: int, languages: Sequence[str] = LANGUAGES
) -> list[Score]:
    """Share of hidden tokens that are told, in texts of unseen entities and phrasings.

    Names and numbers are drawn from open sets, so that no model can tell all.
    """
    scores = []
    for language in languages:
        form = MaskingForm(tokenizer)
        exercises = reading_set(seed, language, n, 1)
        sequences = form.sequences(exercises, Dice(seed, "masking", language))
        right = told = 0
        for start in range(0, len(sequences), _AT_ONCE):
            batch = form.batch(sequences[start : start + _AT_ONCE]).to(model.device)
            chosen = batch.targets != NO_TARGET
            guess = model.logits(model(batch.ids, batch.keep)[chosen]).argmax(dim=-1)
            right += int((guess == batch.targets[chosen]).sum())
            told += int(chosen.sum())
        scores.append(
            Score(f"{language}/hidden tokens", told, wilson_interval(right, told), _NOTHING_REFUSED)
        )
    return scores


# ------------------------------------------------------------------------------------------ probe


@dataclass(frozen=True)
class Labelled:
    """Texts, and for each the number of its class."""

    texts: list[str]
    labels: list[int]


def labelled_texts(what: str, seed: int, n: int, *, held_out: bool) -> Labelled:
    """``n`` passages of each class, about entities that no training drew.

    Parameters
    ----------
    what : {"kind", "language", "domain"}
        Classes: kinds of entity of the general domain; languages; general, medicine and law.
    held_out : bool
        Use only phrasings that no training ever uses.
    """
    dice = Dice(seed, "probe", what, int(held_out))
    classes: list[tuple[Domain, str | None, str | None]]  # domain, kind, language; None: any
    if what == "kind":
        classes = [(GENERAL, kind, None) for kind in KINDS_OF_TEXT if kind != "traveller"]
    elif what == "language":
        classes = [(GENERAL, None, language) for language in LANGUAGES]
    else:
        classes = [(DOMAINS[name], None, None) for name in ("general", "medicine", "law")]
    out = Labelled([], [])
    for label, (domain, kind, language) in enumerate(classes):
        for _ in range(n):
            drawn = kind or dice.pick([k for k in domain.documented() if k != "traveller"])
            phrasings = load(domain.name, language or dice.pick(LANGUAGES))
            entity = domain.new_entity(dice, drawn, min(3, len(domain.kinds[drawn])))
            text = passages.entry(dice, entity, phrasings, held_out=held_out)
            out.texts.append(text)
            out.labels.append(label)
    return out


@torch.inference_mode()
def features(model: Encoder, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """The mean of each text's states (n, D)."""
    model.eval()
    encoded = tokenizer.encode_batch([reading_example([t], []) for t in texts], special=False)
    rows = []
    for start in range(0, len(encoded), _AT_ONCE):
        most = model.config.max_length
        group = [ids[:most] for ids in encoded[start : start + _AT_ONCE]]
        ids, keep = (t.to(model.device) for t in pad_right(group, model.config.pad_id or 0, most))
        states = model(ids, keep).float()  # (B, T, D)
        weight = keep[:, :, None].float()
        rows.append((states * weight).sum(dim=1) / weight.sum(dim=1))
    return torch.cat(rows).cpu()


def fit_probe(x: Tensor, labels: Tensor, decay: float = 1e-2) -> tuple[Tensor, Tensor]:
    """Logistic regression of labels (n,) on features x (n, D): weights (C, D) and biases (C,)."""
    n_classes = int(labels.max()) + 1
    weight = torch.zeros(n_classes, x.size(1), requires_grad=True)
    bias = torch.zeros(n_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, labels) + decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def probe_accuracy(
    model: Encoder, tokenizer: Tokenizer, given: Labelled, asked: Labelled
) -> Interval:
    """Accuracy on ``asked`` of a probe trained on the features of ``given``."""
    x, y = (features(model, tokenizer, part.texts) for part in (given, asked))
    mean, spread = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
    weight, bias = fit_probe((x - mean) / spread, torch.tensor(given.labels))
    guess = (((y - mean) / spread) @ weight.T + bias).argmax(dim=1)
    right = int((guess == torch.tensor(asked.labels)).sum())
    return wilson_interval(right, len(asked.labels))


def probe_scores(model: Encoder, tokenizer: Tokenizer, seed: int) -> list[Score]:
    """The probe on the model, and on one of the same shape with random weights."""
    random = Encoder(model.config, seed=seed).to(model.device).eval()
    scores = []
    for what in ("kind", "language", "domain"):
        given = labelled_texts(what, seed, _TEXTS_A_CLASS, held_out=False)
        per_class = -(-_TEXTS_ASKED // len(set(given.labels)))
        asked = labelled_texts(what, seed + 1, per_class, held_out=True)
        for name, probed in ((what, model), (f"{what}, random weights", random)):
            accuracy = probe_accuracy(probed, tokenizer, given, asked)
            scores.append(Score(f"probe/{name}", len(asked.texts), accuracy, _NOTHING_REFUSED))
    return scores
