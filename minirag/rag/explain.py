"""The glass box: which passage the reader's attention read for each token it wrote."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from minirag.rag.pipeline import Answer
from minirag.rag.reader import Reader


@dataclass(frozen=True)
class TokenReading:
    """One token of the answer."""

    text: str
    probability: float  # the model's own, before any temperature
    passages: list[float]  # attention on each passage given, as shares of all on passages
    elsewhere: float  # share of all attention that went to instruction, question and answer


@torch.inference_mode()
def attention_read(reader: Reader, answer: Answer) -> list[TokenReading]:
    """Run the answer through the model once more and record where it looked.

    The weights are averaged over heads and over the upper half of the layers; the lower ones look
    mostly at neighbouring words. Attention shows what was read, which is not always what decided
    (Jain and Wallace 2019): it is a view, not a proof.

    Returns
    -------
    list of TokenReading
        One for each token of the answer.
    """
    ids, spans = answer.generation.ids, answer.prompt.spans
    if not ids:
        return []
    prompt = torch.tensor([answer.prompt.ids])
    cache = reader.model.new_cache(len(answer.prompt.ids) + len(ids))
    if prompt.size(1) > 1:
        reader.model(prompt[:, :-1], cache=cache)
    record: list[torch.Tensor] = []
    # The token at place t is written from place t - 1: the last of the prompt, then the answer's.
    writing = torch.tensor([[answer.prompt.ids[-1], *ids[:-1]]])
    reader.model(writing, cache=cache, record=record)
    upper = torch.stack(record[len(record) // 2 :]).float().mean(dim=(0, 2))[0]  # (T, S)
    on_passages = torch.stack([upper[:, a:b].sum(1) for a, b in spans], dim=1) if spans else None
    readings = []
    for t, token in enumerate(ids):
        shares = on_passages[t] if on_passages is not None else torch.zeros(0)
        total = float(shares.sum())
        readings.append(
            TokenReading(
                text=reader.tokenizer.decode([token]),
                probability=answer.generation.probabilities[t],
                passages=[float(share) / total if total else 0.0 for share in shares],
                elsewhere=1.0 - total,
            )
        )
    return readings
