"""``minirag bench finetune --freeze``: what freezing the lower layers saves, and caching them.

One model is fine-tuned three times at once, step by step in turns: all of it; its upper quarter;
its upper quarter on the states of the lower layers, computed once. Beside the seconds of an epoch
stand what counting operations predicts, the memory, and how equal the losses are.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from minirag.cli.bench_finetune import largest_gap, reading_data
from minirag.errors import UsageError
from minirag.finetuning.base import Base
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.data import FineTuneData
from minirag.finetuning.finetune import place_of_run
from minirag.finetuning.freezing import training_mode
from minirag.finetuning.frozen_cache import frozen_depth
from minirag.finetuning.memory import StepMemory, step_memory
from minirag.finetuning.objective import Part
from minirag.finetuning.writer_run import FineTuning
from minirag.training.batches import WIDTH_STEP, Layout
from minirag.training.loop import Step, training_steps
from minirag.transformer.config import TransformerConfig
from minirag.transformer.machine import Precision, this_machine
from minirag.transformer.models import Decoder

FULL, UPPER, CACHED = "full", "upper quarter", "upper quarter, cached"
ROUNDS = 3
_MOST_ROWS = 768  # of one length, for the comparison to the bit


def operations(
    config: TransformerConfig,
    shapes: Sequence[tuple[int, int, int]],
    *,
    frozen: int = 0,
    cached: bool = False,
) -> int:
    """Multiplications and additions of a decoder's matrix products, on the way there and back.

    A product of (m, k) and (k, n) takes 2 m k n of them on the way there. On the way back it takes
    as many for the gradient of each of its two sides; below the lowest layer that moves there is no
    way back, and with a cache no way there. Attention is counted with the upper half of its square,
    which a fused kernel may leave out.

    Parameters
    ----------
    shapes : (B, T, n) of each batch
        Rows, tokens in a row, and at how many places of all rows the head is computed.
    frozen : int
        Blocks from the input up that don't move, the embeddings with them.
    cached : bool
        Whether their states are at hand.
    """
    D, n_ff = config.d_model, 3 if config.gated else 2
    keys = config.kv_heads * config.head_dim
    matrices = 2 * D * D + 2 * D * keys + n_ff * D * config.d_ff
    total = 0
    for B, T, n in shapes:
        block = 2 * B * T * matrices + 2 * 2 * B * T * T * D  # q kᵀ, and weights times v
        head = 2 * n * D * config.vocab_size
        moving = (config.n_layers - frozen) * block + head
        total += 3 * moving + (0 if cached else frozen * block)
    return total


@dataclass
class _Contender:
    """One of the three fine-tunings, a step at a time."""

    run: FineTuning
    steps: Iterator[Step]
    losses: list[float] = field(default_factory=list)

    @classmethod
    def begin(cls, run: FineTuning) -> _Contender:
        run.fill_cache()
        steps = training_steps(
            run.model,
            run.batches(),
            run.loss,
            run.optimizer,
            run.schedule,
            max_norm=run.config.max_norm,
            autocast=run.machine.autocast,
            training_mode=training_mode,
        )
        return cls(run, steps)

    def step(self) -> float:
        """Take one; its seconds, with the making of its batch."""
        began = time.perf_counter()
        self.losses.append(next(self.steps).loss)
        return time.perf_counter() - began


class _OneLength(FineTuning):
    """The same with all sequences of one length, and all batches full."""

    def encode(self) -> tuple[Layout, list[Any]]:
        """The ends of all sequences that are not shorter than half of them."""
        form, sequences = super().encode()
        lengths = sorted(map(form.length, sequences))
        width = max(lengths[len(lengths) // 2] // WIDTH_STEP, 1) * WIDTH_STEP
        ends = [s[-(width + 1) :] for s in sequences if form.length(s) >= width]  # with the answer
        rows = min(max(self.config.tokens_per_batch // width, 1), len(ends))  # of a batch
        return form, ends[: min(len(ends), _MOST_ROWS) // rows * rows]


def bench_freezing(
    base: Base | None = None,
    data: FineTuneData | None = None,
    *,
    precision: Precision = "fp32",
    rounds: int = ROUNDS,
    tokens_per_batch: int | None = None,
    bar: bool = False,
) -> dict[str, Any]:
    """Seconds per epoch of the whole model, of its upper quarter, and of that with a cache.

    Parameters
    ----------
    base : Base, optional
        Of a decoder. Default: 8 layers of width 256, with random weights.
    data : FineTuneData, optional
        Default: reading exercises of the laboratory.
    rounds : int
        Epochs.

    Raises
    ------
    UsageError
        If there is nothing to measure.
    """
    if rounds < 1:
        raise UsageError(f"{rounds} rounds: give 1 or more.")
    base, data = base or eight_layers(), data or reading_data(600)
    n_layers = base.model.config.n_layers
    if not isinstance(base.model, Decoder) or n_layers < 2:
        raise UsageError(
            f"{base.name} has no lower layers to freeze: give a decoder of 2 layers or more."
        )
    machine = this_machine(precision)
    frozen = n_layers - max(n_layers // 4, 1)
    full = FineTuneConfig(
        epochs=rounds, untie_head=True,
        tokens_per_batch=(
            FineTuneConfig().tokens_per_batch if tokens_per_batch is None else tokens_per_batch
        ),
    )  # fmt: skip
    upper = dataclasses.replace(full, freeze=f"embeddings,0-{frozen - 1}")
    cached = dataclasses.replace(upper, cache_frozen=True)

    with place_of_run(None, full.seed) as place:
        contenders = {
            name: _Contender.begin(FineTuning(base, data, config, place, machine))
            for name, config in ((FULL, full), (UPPER, upper), (CACHED, cached))
        }
        ends = contenders[FULL].run.ends
        seconds = {name: [0.0] * rounds for name in contenders}
        with tqdm(total=3 * ends[-1], disable=not bar, unit="step") as shown:
            for number in range(ends[-1]):
                epoch = sum(end <= number for end in ends)
                for name, contender in contenders.items():
                    seconds[name][epoch] += contender.step()
                    shown.update()
        one_length = [
            _Contender.begin(
                _OneLength(base, data, dataclasses.replace(config, epochs=1), place, machine)
            )
            for config in (upper, cached)
        ]
        for contender in one_length:
            for _ in tqdm(range(contender.run.total_steps), disable=not bar, leave=False):
                contender.step()

    shapes = _shapes(contenders[FULL].run)
    modes: dict[str, dict[str, Any]] = {}
    for name, contender in contenders.items():
        run = contender.run
        depth, cache = frozen_depth(run.model), run.epochs.cache
        count = operations(run.model.config, shapes, frozen=depth, cached=cache is not None)
        memory = step_memory(
            run.model, run.tokenizer, data.train, machine,
            tokens_per_batch=full.tokens_per_batch,
        )  # fmt: skip
        modes[name] = {
            "seconds_per_epoch": [round(s, 4) for s in seconds[name]],
            "operations_per_epoch": count,
            "seconds_for_cache": 0.0 if cache is None else round(run.progress.seconds, 4),
            "memory": _memory(memory, run, 0 if cache is None else cache.n_bytes),
        }
    counts = {name: mode["operations_per_epoch"] for name, mode in modes.items()}
    for name, mode in modes.items():
        mode["times_faster"] = round(
            statistics.median(a / b for a, b in zip(seconds[FULL], seconds[name], strict=True)), 3
        )
        mode["predicted"] = round(counts[FULL] / counts[name], 3)
    return {
        "model": base.name,
        "machine": machine.describe(),
        "rounds": rounds,
        "steps_per_epoch": ends[0],
        "tokens_per_batch": full.tokens_per_batch,
        "frozen_layers": frozen,
        "modes": modes,
        "loss_gap": largest_gap(contenders[UPPER].losses, contenders[CACHED].losses),
        "loss_gap_at_one_length": largest_gap(*(c.losses for c in one_length)),
    }


def eight_layers() -> Base:
    """Eight layers of width 256, untrained, with the vocabulary of gpt-base."""
    like = Base.load("gpt-base")
    config = dataclasses.replace(like.model.config, d_model=256, n_layers=8, n_heads=4, d_ff=1024)
    return Base("8 layers of width 256", Decoder(config), like.tokenizer)


def _shapes(run: FineTuning) -> list[tuple[int, int, int]]:
    """B, T and the places with a head of every batch of the first epoch."""
    shapes = []
    for part in itertools.islice(run.epochs.batches(), run.ends[0]):
        assert isinstance(part, Part)  # nothing is accumulated
        B, T = part.batch.ids.shape
        shapes.append((B, T, int((part.shares > 0).sum())))
    return shapes


def _memory(step: StepMemory, run: FineTuning, cache: int) -> dict[str, int]:
    """Bytes by what they are for.

    What the optimizer holds is counted, the rest is :class:`StepMemory`'s. A cache changes nothing
    in the activations: what is frozen keeps none, whether it is computed or not.
    """
    parts = {
        "weights": step.weights,
        "gradients": step.gradients,
        "optimizer": run.optimizer_bytes,
        "activations": step.activations,
        "cache": cache,
    }
    return {**parts, "total": sum(parts.values())}


def table(results: Mapping[str, Any]) -> str:
    """The result for people."""
    machine = results["machine"]
    lines = [
        f"{results['model']}, {machine['precision']}, {machine['threads']} threads, "
        f"{results['steps_per_epoch']} steps an epoch; MiB at once",
        f"{'':<24}{'s/epoch':>9}{'faster':>9}{'counted':>9}{'optimizer':>11}{'activations':>13}"
        f"{'cache':>7}{'all':>7}",
    ]
    for name, mode in results["modes"].items():
        memory = {key: n / 2**20 for key, n in mode["memory"].items()}
        lines.append(
            f"{name:<24}{statistics.median(mode['seconds_per_epoch']):>9.2f}"
            f"{mode['times_faster']:>8.2f}x{mode['predicted']:>8.2f}x{memory['optimizer']:>11.1f}"
            f"{memory['activations']:>13.1f}{memory['cache']:>7.1f}{memory['total']:>7.0f}"
        )
    lines.append(f"the cache took {results['modes'][CACHED]['seconds_for_cache']:.2f} s, once")
    lines.append(
        f"losses with and without it: within {results['loss_gap']:.0e}; with sequences of one "
        f"length within {results['loss_gap_at_one_length']:.0e}"
    )
    return "\n".join(lines)
