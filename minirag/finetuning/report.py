"""Step 4, the report: adaptation and forgetting in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.freezing import LayerCount
from minirag.finetuning.validation import Validation
from minirag.metrics import Interval
from minirag.training.curves import History
from minirag.transformer.models import Decoder, EncoderDecoder


@dataclass(frozen=True)
class FineTuneReport:
    """What came of a fine-tuning, and at what cost."""

    base: str
    data: str
    config: FineTuneConfig
    model: Decoder | EncoderDecoder  # the weights that were kept; adapters are still adapters
    weights: list[LayerCount]  # what moved
    before: Validation  # the base, on the test set: nothing was chosen by it
    after: Validation
    history: History  # the losses, and what validation said on the way
    steps: int  # done
    kept_step: int  # after which the weights that were kept were saved
    stopped: str  # why it ended, a sentence
    seconds: float  # in training steps and in computing frozen layers
    tokens: int  # that were learned from or read
    epoch_steps: int  # of the first epoch
    optimizer_bytes: int  # its averages of the weights that move
    cache_bytes: int  # the states of frozen layers
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the weights."""
        return {
            "base": self.base,
            "data": self.data,
            "config": self.config.as_json(),
            "trainable": sum(count.trainable for count in self.weights),
            "parameters": sum(count.total for count in self.weights),
            "before": self.before.as_json(),
            "after": self.after.as_json(),
            "steps": self.steps,
            "kept_step": self.kept_step,
            "stopped": self.stopped,
            "seconds": round(self.seconds, 1),
            "tokens": self.tokens,
            "epoch_steps": self.epoch_steps,
            "optimizer_bytes": self.optimizer_bytes,
            "cache_bytes": self.cache_bytes,
            "notes": self.notes,
        }

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
        kept = after.general_right - before.general_right
        lost = f"{-100 * kept:.1f} points lost" if kept < 0 else "nothing lost"
        rows.append(
            f"adaptation {100 * gained:+.1f} points in the domain (mean of its tests); "
            f"forgetting: {lost} in general ({100 * kept:+.1f})"
        )
        return "\n".join(rows)


def _row(name: str, n: int, then: Interval, now: Interval) -> str:
    return f"  {name:<42}{n:>5}  {then!s:<22}{now!s:<22}{now.value - then.value:>+7.3f}"
