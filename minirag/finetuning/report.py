"""Step 4, the report: adaptation and forgetting in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from minirag.finetuning.config import FineTuneConfig, LaboratoryData
from minirag.finetuning.freezing import LayerCount
from minirag.finetuning.validation import Validation
from minirag.intervals import Interval
from minirag.training.curves import History
from minirag.transformer.models import Decoder, EncoderDecoder, Model


class Described(Protocol):
    """Something that a report can say in plain values."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""


V = TypeVar("V", bound=Described)  # what a validation finds


@dataclass(frozen=True)
class Report(Generic[V]):
    """What came of a fine-tuning, and at what cost."""

    base: str
    data: str
    laboratory: Described | None  # what the data was made by, if the laboratory made it
    config: FineTuneConfig
    model: Model  # the weights that were kept, as they are stored: adapters merged
    weights: list[LayerCount]  # what moved
    before: V  # the base, on the test set: nothing was chosen by it
    after: V
    history: History  # the losses, and what validation said on the way
    steps: int  # done
    kept_step: int  # after which the weights that were kept were there
    averaged: int  # steps, the last of them kept_step, whose weights' mean was kept; 0: no mean
    stopped: str  # why it ended, a sentence
    seconds: float  # in training steps and in computing frozen layers
    processor_seconds: float  # of all cores together, in training steps
    tokens: int  # that were learned from or read
    epoch_steps: int  # of the first epoch
    optimizer_bytes: int  # its averages of the weights that move
    cache_bytes: int  # the states of frozen layers
    notes: list[str]
    base_sha256: str  # of the base's weights
    machine: dict[str, str | int]  # that it was trained on
    command: str  # that makes the same again; empty: it was no command

    @property
    def ending(self) -> str:
        """Which weights were kept, and why the training ended."""
        which = weights_kept(self.kept_step, self.averaged, self.config.base_share)
        return f"{which}: {self.stopped}"

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the weights."""
        return {
            "base": self.base,
            "base_sha256": self.base_sha256,
            "command": self.command,
            "machine": self.machine,
            "data": self.data,
            "laboratory": None if self.laboratory is None else self.laboratory.as_json(),
            "config": self.config.as_json(),
            "trainable": sum(count.trainable for count in self.weights),
            "parameters": sum(count.total for count in self.weights),
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "steps": self.steps,
            "kept_step": self.kept_step,
            "averaged": self.averaged,
            "stopped": self.stopped,
            "seconds": round(self.seconds, 1),
            "processor_seconds": round(self.processor_seconds, 1),
            "tokens": self.tokens,
            "epoch_steps": self.epoch_steps,
            "optimizer_bytes": self.optimizer_bytes,
            "cache_bytes": self.cache_bytes,
            "notes": self.notes,
        }


@dataclass(frozen=True)
class FineTuneReport(Report[Validation]):
    """Of a reader."""

    laboratory: LaboratoryData | None
    model: Decoder | EncoderDecoder

    def table(self) -> str:
        """Before and after, in the domain and in general."""
        rows = []
        before, after = self.before, self.after
        for title, ours, theirs, ppl in (
            (f"the domain ({self.data})", before.domain, after.domain, "domain_perplexity"),
            ("in general", before.general, after.general, "general_perplexity"),
        ):
            rows.append(f"{title:<44}{'n':>5}  {'before':<22}{'after':<22}{'change':>7}")
            rows += [
                _row(then.name, then.n, then.right, now.right)
                for then, now in zip(ours, theirs, strict=True)
            ]
            then_ppl, now_ppl = getattr(before, ppl), getattr(after, ppl)
            rows.append(f"  {'perplexity of text':<47}  {then_ppl:<22.2f}{now_ppl:<22.2f}")
        gained = after.domain_right - before.domain_right
        rows.append(
            f"adaptation {100 * gained:+.1f} points in the domain (mean of its tests); "
            + forgetting(before.general_right, after.general_right)
        )
        return "\n".join(rows)


def weights_kept(step: int, averaged: int, base_share: float) -> str:
    """Which weights were kept, the beginning of a sentence: those of one report's values."""
    if averaged:
        kept = f"The weights are the mean of those after steps {step - averaged + 1:,} to {step:,}"
    else:
        kept = f"The weights are those after step {step:,}"
    return f"{kept}, with {100 * base_share:.0f} % of the base's" if base_share else kept


def forgetting(before: float, after: float) -> str:
    """What a general score, a share, has lost."""
    kept = after - before
    lost = f"{-100 * kept:.1f} points lost" if kept < 0 else "nothing lost"
    return f"forgetting: {lost} in general ({100 * kept:+.1f})"


def _row(name: str, n: int, then: Interval, now: Interval) -> str:
    return f"  {name:<42}{n:>5}  {then!s:<22}{now!s:<22}{now.value - then.value:>+7.3f}"
