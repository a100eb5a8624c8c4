"""A classifier of texts: a pretrained encoder, its states pooled, and one linear layer on top.

The layer is all that is new. Trained alone (``--freeze all-but-head``) it is a probe: it can tell
apart what pretraining laid out. Trained with the layers below it (Devlin et al. 2019) these learn
to lay out what the task asks for.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from minirag.errors import CheckpointError, UsageError
from minirag.files import write_atomically, write_text_atomically
from minirag.finetuning.base import check_vocabulary, locate_base
from minirag.finetuning.frozen_cache import finish_encoder
from minirag.finetuning.objective import LabelledBatch, Part
from minirag.text.reading_format import framing_tokenizer
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import WIDTH_STEP, cut_into_batches, pad_right
from minirag.transformer import checkpoints
from minirag.transformer.attention import Linear
from minirag.transformer.models import Encoder, Model
from minirag.transformer.pooling import (
    Pooling,
    TruncationWarning,
    cut_to,
    pool,
    pooling_of,
    without_head,
)

CLASSIFIER, CLASSES = "classifier.json", "classes.safetensors"

_TOKENS = 4096  # of a batch that is only looked at


# -------------------------------------------------------------------------------------- the model


class ClassHead(nn.Module):
    """One score for every class: (B, D) -> (B, C)."""

    def __init__(self, d_model: int, n_classes: int, dropout: float, seed: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = Linear(d_model, n_classes)
        # So small that at first all classes are about as likely: nothing has to be unlearned.
        nn.init.normal_(self.linear.weight, std=0.02, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.linear.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = self.linear(self.dropout(pooled))
        return scores


class ClassifierModel(Model):
    """An encoder with a head that scores classes.

    Parameters
    ----------
    encoder : Encoder
        Without a head of its own; its tower becomes a part of this model.
    pooling : {"mean", "cls", "last"}
        What makes one vector of a text's states.
    """

    def __init__(
        self, encoder: Encoder, n_classes: int, pooling: Pooling, dropout: float, seed: int
    ) -> None:
        super().__init__(encoder.config, "encoder")
        self.tower, self.pooling = encoder.tower, pooling
        self.head = ClassHead(encoder.config.d_model, n_classes, dropout, seed)

    def forward(self, ids: Tensor, keep: Tensor) -> Tensor:
        """Ids (B, T), real tokens where ``keep`` (B, T), to states (B, T, D)."""
        states: Tensor = self.tower(ids, keep, causal=False)
        return states

    def logits(self, states: Tensor, keep: Tensor) -> Tensor:
        """States (B, T, D) to a score for every class (B, C)."""
        # Many states are added up: in full precision, whatever they were computed in.
        states = states.to(torch.promote_types(states.dtype, torch.float32))
        scores: Tensor = self.head(pool(states, keep, self.pooling))
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def encoder(self) -> Encoder:
        """The encoder alone, with the same weights."""
        with torch.device("meta"):
            bare = Encoder(self.config)
        bare.tower = self.tower
        return bare


def class_loss(model: ClassifierModel, part: Part) -> Tensor:
    """What a part adds to the loss of its step: cross-entropy, each text with its share."""
    batch = part.batch
    assert isinstance(batch, LabelledBatch)
    if part.cached is None:
        states = model(batch.ids, batch.keep)
    else:
        states = finish_encoder(model, part.cached, batch.keep)
    losses = F.cross_entropy(model.logits(states, batch.keep), batch.targets, reduction="none")
    return (losses * part.shares).sum()


# -------------------------------------------------------------------------------- texts as batches


@dataclass(frozen=True)
class LabelledTokens:
    """A text as the model reads it, and the number of its class."""

    ids: list[int]
    label: int


@dataclass(frozen=True)
class ClassLayout:
    """How texts with classes become batches."""

    tokenizer: Tokenizer
    max_tokens: int  # special tokens included; what goes beyond is cut off

    @classmethod
    def fitting(cls, tokenizer: Tokenizer, model: Model, max_tokens: int) -> ClassLayout:
        """As many tokens as wanted, but no more than the model reads with what fills a batch up."""
        longest = model.config.max_length
        return cls(tokenizer, min(max_tokens, max(longest - longest % WIDTH_STEP, 1)))

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Token ids of texts, and how many texts were cut."""
        encoded = self.tokenizer.encode_batch(texts)
        n_cut = sum(len(ids) > self.max_tokens for ids in encoded)
        return [cut_to(self.max_tokens, ids, self.tokenizer.n_special) for ids in encoded], n_cut

    def length(self, sequence: LabelledTokens) -> int:
        """Tokens that a text takes."""
        return len(sequence.ids)

    def batch(self, sequences: Sequence[LabelledTokens]) -> LabelledBatch:
        """Texts side by side."""
        ids, keep = pad_right([s.ids for s in sequences], self.tokenizer.pad_id or 0)
        return LabelledBatch(ids, keep, torch.tensor([s.label for s in sequences]))


@torch.inference_mode()
def score_texts(
    model: ClassifierModel,
    layout: ClassLayout,
    texts: Sequence[LabelledTokens],
    progress: bool = False,
) -> Tensor:
    """The logits (n, C) of texts, in their order; the model is in evaluation mode afterwards."""
    model.eval()
    groups = cut_into_batches(range(len(texts)), lambda row: len(texts[row].ids), _TOKENS)
    logits = torch.empty(len(texts), model.head.linear.out_features)
    for rows in tqdm(groups, "classifying", unit="batch", disable=not progress, leave=False):
        batch = layout.batch([texts[row] for row in rows]).to(model.device)
        logits[rows] = model.logits(model(batch.ids, batch.keep), batch.keep).float().cpu()
    return logits


# ------------------------------------------------------------------------------- what it begins as


@dataclass(frozen=True)
class EncoderBase:
    """What a classifier starts from. It is left as it is: what is trained is a copy."""

    name: str
    model: Encoder  # without a head
    tokenizer: Tokenizer  # puts the frame around texts that the encoder was trained with
    pooling: Pooling  # how its own files say to pool; "mean" if they are silent

    def __post_init__(self) -> None:
        check_vocabulary(self.name, self.model, self.tokenizer)

    @classmethod
    def load(cls, name: str) -> EncoderBase:
        """A shipped or a public encoder by its name, or any in the hub's layout by its directory.

        Raises
        ------
        ModelUnavailable
            If there is neither.
        CheckpointError
            If model and tokenizer don't belong together.
        UsageError
            If it is no encoder.
        """
        files = locate_base(name)
        model = checkpoints.load(files.directory)
        if not isinstance(model, Encoder):
            raise UsageError(
                f"{name} is a {model.config.kind}: it writes. A classifier begins from an encoder, "
                "which reads a text in both directions: give bert-base or all-MiniLM-L6-v2."
            )
        tokenizer = framing_tokenizer(Tokenizer.load(files.directory))
        return cls(files.name, without_head(model).eval(), tokenizer, pooling_of(files.directory))


# -------------------------------------------------------------------------- the finished classifier


class Classifier:
    """A finished classifier: texts in, the names of their classes out.

    Attributes
    ----------
    labels : tuple of str
        The names of the classes, in the order of their numbers.
    """

    def __init__(
        self,
        model: ClassifierModel,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        max_tokens: int,
    ) -> None:
        self.model, self.labels = model.eval(), tuple(labels)
        self.layout = ClassLayout.fitting(tokenizer, model, max_tokens)

    def probabilities(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """How likely each class is (n, C), in the order of the texts and of ``labels``.

        A text that is longer than the classifier reads is cut, with a warning.
        """
        encoded, n_cut = self.layout.encode(texts)
        if n_cut:
            warnings.warn(
                f"{n_cut} of {len(texts)} texts have more than the {self.layout.max_tokens} tokens "
                "that the classifier reads; their ends were cut off.",
                TruncationWarning,
                stacklevel=2,
            )
        rows = [LabelledTokens(ids, 0) for ids in encoded]
        logits = score_texts(self.model, self.layout, rows, progress)
        out: NDArray[np.float32] = logits.softmax(dim=-1).numpy()
        return out

    def predict(self, texts: Sequence[str], *, progress: bool = False) -> list[str]:
        """The likeliest class of each text."""
        best = self.probabilities(texts, progress=progress).argmax(axis=1)
        return [self.labels[number] for number in best]

    def save(self, directory: Path) -> None:
        """Write the encoder in the hub's layout, and the classes beside it.

        Raises
        ------
        DiskError
            If writing fails.
        """
        checkpoints.save(self.model.encoder(), directory)
        self.layout.tokenizer.save(directory)
        head = {name: p.detach().cpu() for name, p in self.model.head.named_parameters()}
        write_atomically(directory / CLASSES, lambda part: save_file(head, part))
        about = {
            "labels": self.labels,
            "pooling": self.model.pooling,
            "max_tokens": self.layout.max_tokens,
            "dropout": self.model.head.dropout.p,
        }
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        write_text_atomically(directory / CLASSIFIER, text)

    @classmethod
    def load(cls, directory: Path | str) -> Classifier:
        """Take up what :meth:`save` wrote.

        Raises
        ------
        CheckpointError
            If the directory holds no classifier, or its files don't belong together.
        """
        directory = Path(directory)
        about = _read_about(directory)
        encoder = checkpoints.load(directory)
        if not isinstance(encoder, Encoder):
            raise CheckpointError(f"{directory} holds a {encoder.config.kind}, not an encoder.")
        labels = about["labels"]
        model = ClassifierModel(encoder, len(labels), about["pooling"], about["dropout"], seed=0)
        tensors = checkpoints.read_tensors(directory / CLASSES)
        head = dict(model.head.named_parameters())
        if strange := sorted(tensors.keys() - head):
            raise CheckpointError(
                f"{directory / CLASSES} holds {strange[0]}, which is no part of a classifier's "
                f"head ({', '.join(head)}): save the classifier again."
            )
        with torch.no_grad():
            for name, parameter in head.items():
                saved = tensors.get(name)
                if saved is None or saved.shape != parameter.shape:
                    raise CheckpointError(
                        f"{directory / CLASSES}: {name} should have shape "
                        f"{tuple(parameter.shape)} for {len(labels)} classes, and has "
                        f"{None if saved is None else tuple(saved.shape)}."
                    )
                parameter.copy_(saved)
        return cls(model, Tokenizer.load(directory), labels, about["max_tokens"])


def _read_about(directory: Path) -> dict[str, Any]:
    path = directory / CLASSIFIER
    try:
        about = json.loads(path.read_text("utf-8"))
        values = {
            "labels": [str(label) for label in about["labels"]],
            "pooling": about["pooling"],
            "max_tokens": int(about["max_tokens"]),
            "dropout": float(about["dropout"]),
        }
    except FileNotFoundError:
        raise CheckpointError(
            f"{directory} holds no classifier: there is no {CLASSIFIER} in it. Make one: minirag "
            "finetune --task sentiment."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} can't be read: {error!r}.") from error
    ways = get_args(Pooling)
    for what, fits, expected in (
        ("labels", isinstance(about["labels"], list) and about["labels"], "a list of classes"),
        ("pooling", values["pooling"] in ways, f"one of {', '.join(ways)}"),
        ("max_tokens", values["max_tokens"] >= 1, "1 or more"),
        ("dropout", 0 <= values["dropout"] < 1, "a share from 0 to below 1"),
    ):
        if not fits:
            raise CheckpointError(
                f"{path}: {what} should be {expected} and is {about[what]!r}: save the classifier "
                "again."
            )
    return values
