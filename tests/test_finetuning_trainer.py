"""The loop's losses against transformers' Trainer: same model, order of data and optimizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import SequentialSampler

from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.objective import Part, part_loss, share_out
from minirag.finetuning.rates import make_schedule
from minirag.training.batches import NO_TARGET, Batch
from minirag.training.loop import Optimization, Parts, make_optimizer, training_steps
from minirag.transformer import checkpoints
from minirag.transformer.models import Decoder

transformers = pytest.importorskip("transformers", reason="needs the extra 'peers'")
pytest.importorskip("accelerate", reason="transformers' Trainer needs it")

V, T, STEPS = 101, 24, 50


def _llama() -> transformers.PreTrainedModel:
    torch.manual_seed(13)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=V, hidden_size=48, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=3, intermediate_size=64, max_position_embeddings=60,
            tie_word_embeddings=True, pad_token_id=0, attn_implementation="eager",
        )
    )  # fmt: skip


def _rows(n: int) -> list[dict[str, Tensor]]:
    """Prompts of different lengths, the labels of which are masked, and padding on the right."""
    generator = torch.Generator().manual_seed(6)
    rows = []
    for _ in range(n):
        length, prompt = (int(torch.randint(lo, hi, (), generator=generator)) for lo, hi in
                          ((14, T + 1), (1, 13)))  # fmt: skip
        ids = torch.zeros(T, dtype=torch.int64)
        # Each token follows from the one before, mostly: there is something to learn.
        ids[0] = torch.randint(1, V, (), generator=generator)
        for place in range(1, length):
            noise = torch.rand((), generator=generator) < 0.2
            drawn = int(torch.randint(1, V, (), generator=generator))
            ids[place] = drawn if noise else (7 * int(ids[place - 1]) + 3) % (V - 1) + 1
        labels = ids.clone()
        labels[:prompt], labels[length:] = NO_TARGET, NO_TARGET
        keep = (torch.arange(T) < length).long()
        rows.append({"input_ids": ids, "labels": labels, "attention_mask": keep})
    return rows


@pytest.mark.parametrize("accumulate", [1, 3])
def test_fifty_steps_have_the_losses_of_transformers_trainer(
    tmp_path: Path, accumulate: int
) -> None:
    """With accumulation the parts hold different numbers of labels, which both must weigh."""
    size = 4
    rows = _rows(STEPS * accumulate * size)
    llama = _llama()
    llama.save_pretrained(tmp_path / "model")
    ours = checkpoints.load(tmp_path / "model")
    assert isinstance(ours, Decoder)

    theirs: list[float] = []

    class Recorder(transformers.Trainer):
        """In the given order, and with its losses unrounded."""

        def _get_train_sampler(self, *_: object) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

        def training_step(self, *args: object, **options: object) -> Tensor:
            loss = super().training_step(*args, **options)
            theirs.append(loss.item())
            return loss

    config = FineTuneConfig(schedule="linear", warmup=0.0, rate=3e-3, weight_decay=0.05)
    how = Optimization(rate=config.rate, weight_decay=config.weight_decay)
    Recorder(
        llama,
        transformers.TrainingArguments(
            str(tmp_path / "out"), per_device_train_batch_size=size, max_steps=STEPS,
            gradient_accumulation_steps=accumulate, learning_rate=how.rate,
            weight_decay=how.weight_decay, adam_beta1=how.betas[0], adam_beta2=how.betas[1],
            adam_epsilon=1e-8, max_grad_norm=how.max_norm, lr_scheduler_type="linear",
            warmup_steps=0, optim="adamw_torch", report_to=[], save_strategy="no",
            disable_tqdm=True, use_cpu=True, logging_strategy="no",
        ),
        train_dataset=rows,
    ).train()  # fmt: skip

    def batch_of(some: list[dict[str, Tensor]]) -> Batch:
        ids, labels = (torch.stack([row[key] for row in some]) for key in ("input_ids", "labels"))
        targets = labels[:, 1:].contiguous()  # each token predicts the next
        return Batch(ids[:, :-1].contiguous(), targets, targets != NO_TARGET)

    def batches():
        for step in range(STEPS):
            start = step * accumulate * size
            parts = [
                batch_of(rows[at : at + size])
                for at in range(start, start + accumulate * size, size)
            ]
            yield Parts(Part(b, s) for b, s in zip(parts, share_out(parts, 0.0), strict=True))

    mine = [
        step.loss
        for step in training_steps(
            ours, batches(), part_loss, make_optimizer(ours, how), make_schedule(config, STEPS)
        )
    ]
    by_step = [sum(theirs[at : at + accumulate]) for at in range(0, len(theirs), accumulate)]
    assert len(by_step) == len(mine) == STEPS
    assert mine == pytest.approx(by_step, abs=1e-4)
    assert mine[-1] < mine[0] - 0.4  # both have learned
