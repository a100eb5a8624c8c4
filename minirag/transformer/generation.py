"""Writing on: one token at a time, each read back in, with what was read before kept in a cache."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minirag.errors import UsageError
from minirag.transformer.models import Cache, Decoder, EncoderDecoder

if TYPE_CHECKING:
    from minirag.text.tokenizer import Tokenizer

_COLDEST = 1e-4  # below, logits divided by it could overflow; it is greedy already


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen, and when to stop."""

    max_new_tokens: int = 64
    temperature: float = 0.0  # 0: always the likeliest token (greedy), whatever top_k and top_p
    top_k: int | None = None  # draw among the k likeliest only
    top_p: float | None = None  # draw among the likeliest that together reach p (nucleus)
    seed: int = 0  # of each sequence's own generator: neighbours in a batch change nothing
    stop: tuple[str, ...] = ()  # texts that end the answer; they are not part of it
    repeat: int = 0  # end where so many tokens come a second time, without them; 0: never
    ignore_end: bool = False  # write on after an end token: for measurements of a fixed length
    # (token, p): begin with this token just where the model gives it p or more
    gate: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise UsageError(f"max_new_tokens is {self.max_new_tokens}; 0 is the least.")
        if self.temperature != 0 and not _COLDEST <= self.temperature < math.inf:
            raise UsageError(
                f"temperature is {self.temperature}; 0 (greedy) or a number from {_COLDEST} on "
                "is needed."
            )
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k is {self.top_k}; 1 (greedy) is the least.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}; a share above 0, up to 1, is needed.")
        if self.repeat < 0:
            raise UsageError(f"repeat is {self.repeat} tokens; 0 (never end for it) is the least.")
        if self.gate is not None and not 0 <= self.gate[1] <= 1:
            raise UsageError(f"the gate's probability is {self.gate[1]}; 0 to 1 is needed.")
        if "" in self.stop:
            raise UsageError("a stop text is empty: it would end every answer before it begins.")


GREEDY = Sampling()


@dataclass
class Generation:
    """What one prompt led to."""

    ids: list[int] = field(default_factory=list)  # new tokens, without the one that ends
    probabilities: list[float] = field(default_factory=list)  # the model's own, of each token
    stopped_by: str = "length"  # "end" (end token), "stop" (a stop text), "repeat", or "length"
    text: str = ""  # decoded and cut before the stop text; empty if no tokenizer was given

    def accept(
        self, token: int, probability: float, sampling: Sampling, tokenizer: Tokenizer | None
    ) -> bool:
        """Add a token; False if it completes a stop text or a repetition, which is then cut off."""
        self.ids.append(token)
        self.probabilities.append(probability)
        if sampling.repeat and repeated_tail(self.ids, sampling.repeat) == sampling.repeat:
            self.stopped_by = "repeat"
            del self.ids[-sampling.repeat :], self.probabilities[-sampling.repeat :]
            self.text = "" if tokenizer is None else tokenizer.decode(self.ids)
            return False
        if tokenizer is None:
            return True
        self.text = tokenizer.decode(self.ids)
        cuts = [self.text.find(stop) for stop in sampling.stop if stop in self.text]
        if not cuts:
            return True
        self.text, self.stopped_by = self.text[: min(cuts)], "stop"
        while self.ids and len(tokenizer.decode(self.ids)) > len(self.text):
            self.ids.pop()
            self.probabilities.pop()
        return False


@torch.inference_mode()
def generate(
    model: Decoder | EncoderDecoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling = GREEDY,
    tokenizer: Tokenizer | None = None,
) -> list[Generation]:
    """Continue every prompt; a batch gives what its members give one by one.

    Parameters
    ----------
    prompts : sequences of token ids, of any lengths from 1 on
        For an encoder-decoder these are the sources; the answer begins with its start token.
    tokenizer : Tokenizer, optional
        Needed for stop texts only.

    Raises
    ------
    UsageError
        If a prompt is empty or leaves no room, or stop texts come without a tokenizer or hold a
        special token.
    """
    _check_stops(sampling, tokenizer)
    _check_prompts(model, prompts)
    results: dict[int, Generation] = {}
    for rows in _written_together(model, prompts, sampling.max_new_tokens):
        prepared = _prepare(model, [prompts[row] for row in rows], sampling.max_new_tokens)
        finished = _finish(model, prepared, len(rows), sampling, tokenizer)
        results.update(zip(rows, finished, strict=True))
    return [results[row] for row in range(len(prompts))]


@torch.inference_mode()
def generate_from(
    model: EncoderDecoder,
    memory: Tensor,
    memory_keep: Tensor | None,
    sampling: Sampling = GREEDY,
    begun: Sequence[Sequence[int]] | None = None,
) -> list[Generation]:
    """Write from sources that are encoded already: memory (B, S, D), memory_keep (B, S).

    It is how an answer is written from passages that were each read apart. Stop texts are refused:
    there is no tokenizer to find them with.

    Parameters
    ----------
    begun : B sequences of token ids, optional
        What the decoder goes on with; it is no part of what is given back. Default: the model's
        start token.
    """
    _check_stops(sampling, None)
    if begun is not None:
        _check_prompts(model, begun)
    prepared = _prepare_from(model, memory, memory_keep, sampling.max_new_tokens, begun)
    return _finish(model, prepared, len(memory), sampling, None)


def _check_stops(sampling: Sampling, tokenizer: Tokenizer | None) -> None:
    """Refuse stop texts that would never be found."""
    if sampling.stop and tokenizer is None:
        raise UsageError(
            "stop texts are found in decoded text, and there is no tokenizer to decode with: "
            "give it, or no stop texts."
        )
    for text in sampling.stop:
        if tokenizer is not None and tokenizer.without_special(text) != text:
            raise UsageError(
                f"the stop text {text!r} holds a special token, and decoded text has none: "
                "name the token in the configuration's eos_ids."
            )


def _check_prompts(model: Decoder | EncoderDecoder, prompts: Sequence[Sequence[int]]) -> None:
    """Refuse prompts that can't be read."""
    lengths = [len(prompt) for prompt in prompts]
    if 0 in lengths:
        raise UsageError("a prompt is empty: there is nothing to continue.")
    if max(lengths, default=0) > model.config.max_length:
        raise UsageError(
            f"a prompt has {max(lengths)} tokens, the model reads {model.config.max_length} at "
            "most: shorten it or give fewer passages."
        )


def _written_together(
    model: Decoder | EncoderDecoder, prompts: Sequence[Sequence[int]], n_new: int
) -> list[list[int]]:
    """Numbers of the prompts that go into one batch: those with room for as many new tokens.

    All, as a rule. Where the context ends first, a batch has the room of its longest prompt: a
    shorter one would be cut short beside it.
    """
    batches: dict[int, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        # A decoder's answer goes on in the prompt's context; the last token isn't read back.
        room = model.config.max_length + 1 - len(prompt) if isinstance(model, Decoder) else n_new
        batches[min(n_new, room)].append(row)
    return list(batches.values())


def _finish(
    model: Decoder | EncoderDecoder,
    prepared: _Prepared,
    n_rows: int,
    sampling: Sampling,
    tokenizer: Tokenizer | None,
) -> list[Generation]:
    """Write until every row has ended."""
    results = [Generation() for _ in range(n_rows)]
    live = list(range(n_rows))  # rows still being written
    for written in _steps(model, prepared, sampling, live):
        for row, (token, probability) in written.items():
            if token in model.config.eos_ids and not sampling.ignore_end:
                results[row].stopped_by = "end"
                live.remove(row)
            elif not results[row].accept(token, probability, sampling, tokenizer):
                live.remove(row)
    return results


@torch.inference_mode()
def stream(
    model: Decoder | EncoderDecoder,
    prompt: Sequence[int],
    tokenizer: Tokenizer,
    sampling: Sampling = GREEDY,
    result: Generation | None = None,
) -> Iterator[str]:
    """Continue one prompt and hand out its text as it grows, in whole characters.

    Text that may be the beginning of a stop text is held back until it is clear that it is not.
    ``result``, if given, is filled as :func:`generate` fills it.
    """
    _check_stops(sampling, tokenizer)
    _check_prompts(model, [prompt])
    result = Generation() if result is None else result
    shown = 0  # characters handed out
    prepared = _prepare(model, [prompt], sampling.max_new_tokens)
    for written in _steps(model, prepared, sampling, [0]):
        token, probability = written[0]
        if token in model.config.eos_ids and not sampling.ignore_end:
            result.stopped_by = "end"
            break
        if not result.accept(token, probability, sampling, tokenizer):
            break
        sure = result.text
        if tail := repeated_tail(result.ids, sampling.repeat):  # may turn out to be a repetition
            sure = tokenizer.decode(result.ids[:-tail])
        ready = len(sure) - _held_back(sure, sampling.stop)
        if ready > shown:
            yield result.text[shown:ready]
            shown = ready
    if len(result.text) > shown:
        yield result.text[shown:]


def prepare(model: Decoder | EncoderDecoder) -> None:
    """Arrange a model's matrices in memory for writing on; their numbers stay as they are.

    Writing one token reads every weight once, so memory sets the pace. In fp32 a product of matrix
    and vector runs fastest along long stretches: a matrix with more rows than columns is kept
    column by column. Measured on one core, 15 against 10 GB/s. In bf16 it is the other way round.
    """
    for parameter in model.parameters():
        wide = parameter.dim() == 2 and parameter.size(0) > parameter.size(1)
        if wide and parameter.dtype == torch.float32 and not parameter.is_cuda:
            parameter.data = parameter.data.t().contiguous().t()


def repeated_tail(ids: Sequence[int], longest: int) -> int:
    """How many of the last tokens, up to ``longest``, stood in the same order before."""
    n = 0
    while n < min(longest, len(ids) // 2) and _occurs(ids[len(ids) - n - 1 :], ids):
        n += 1
    return n


def _occurs(tail: Sequence[int], ids: Sequence[int]) -> bool:
    """Whether the tail of ``ids`` stands there once more, before it begins."""
    n = len(tail)
    return any(ids[i : i + n] == tail for i in range(len(ids) - 2 * n, -1, -1))


def _held_back(text: str, stop: tuple[str, ...]) -> int:
    """Characters at the end that may still change: half a character, or the start of a stop."""
    whole = text.rstrip("\ufffd")  # what decoding gives for half a character
    beginnings = (
        n for s in stop for n in range(1, min(len(s) - 1, len(whole)) + 1) if whole.endswith(s[:n])
    )
    return len(text) - len(whole) + max(beginnings, default=0)


def _steps(
    model: Decoder | EncoderDecoder, prepared: _Prepared, sampling: Sampling, live: list[int]
) -> Iterator[dict[int, tuple[int, float]]]:
    """The next token of each live row and its probability, again and again.

    ``live`` holds the rows still written: whoever takes the tokens takes out what has ended. A
    few long answers would keep all others in the batch; so it is made smaller whenever half of it
    has ended.
    """
    logits_of, cache, keep, ids = prepared
    rows = list(live)  # what each row of the batch goes on with
    generators = {row: torch.Generator().manual_seed(sampling.seed) for row in rows}
    room = model.config.max_length - ids.size(1)
    for step in range(min(sampling.max_new_tokens, room + 1)):
        logits = logits_of(ids, keep, cache).float()  # (B, V)
        probabilities = logits.softmax(dim=-1)
        if step == 0 and sampling.gate is not None:
            logits = _gated(logits, probabilities, *sampling.gate)
        chosen = choose(logits, sampling, [generators[row] for row in rows])  # (B,)
        likelihood = probabilities.gather(1, chosen[:, None])[:, 0]
        written = dict(
            zip(rows, zip(chosen.tolist(), likelihood.tolist(), strict=True), strict=True)
        )
        yield {row: written[row] for row in live}
        if not live:
            return
        ids = chosen[:, None]
        if keep is not None:
            keep = torch.cat([keep, keep.new_ones(len(rows), 1)], dim=1)
        if 2 * len(live) <= len(rows):
            left = torch.tensor([i for i, row in enumerate(rows) if row in live], device=ids.device)
            rows, ids, cache = [rows[i] for i in left.tolist()], ids[left], cache.rows(left)
            keep = None if keep is None else keep[left]
            logits_of = logits_of.rows(left)


def _gated(logits: Tensor, probabilities: Tensor, token: int, least: float) -> Tensor:
    """Logits (B, V) that leave only the token where it is likely enough, all but it elsewhere."""
    never = logits.new_full((), -math.inf)
    is_token = torch.arange(logits.size(1), device=logits.device) == token  # (V,)
    opens = probabilities[:, token, None] >= least  # (B, 1)
    return torch.where(is_token == opens, logits, never)


@dataclass(frozen=True)
class _LastLogits:
    """The logits of each row's last token: all that generation needs of a forward pass."""

    model: Decoder | EncoderDecoder
    memory: Tensor | None = None  # what an encoder-decoder's encoder has read
    memory_keep: Tensor | None = None

    def __call__(self, ids: Tensor, keep: Tensor | None, cache: Cache) -> Tensor:
        if self.memory is None:
            states = self.model(ids, keep, cache)
        else:
            states = self.model(ids, self.memory, self.memory_keep, keep, cache)
        return self.model.logits(states[:, -1:])[:, 0]  # (B, T, D) -> (B, V)

    def rows(self, chosen: Tensor) -> _LastLogits:
        """The same for these rows (B',) of the sources alone."""
        memory = None if self.memory is None else self.memory[chosen]
        keep = None if self.memory_keep is None else self.memory_keep[chosen]
        return _LastLogits(self.model, memory, keep)


# How to get logits, an empty cache, the mask, the first ids.
_Prepared = tuple[_LastLogits, Cache, Tensor | None, Tensor]


def _prepare(
    model: Decoder | EncoderDecoder, prompts: Sequence[Sequence[int]], n_new: int
) -> _Prepared:
    """What the first step needs."""
    ids, keep = pad_left(prompts, model.config.pad_id or 0, model.device)
    if isinstance(model, Decoder):
        return _LastLogits(model), model.new_cache(ids.size(1) + n_new), keep, ids
    return _prepare_from(model, model.encode(ids, keep), keep, n_new)


def _prepare_from(
    model: EncoderDecoder,
    memory: Tensor,
    memory_keep: Tensor | None,
    n_new: int,
    begun: Sequence[Sequence[int]] | None = None,
) -> _Prepared:
    if begun is None:
        start = model.config.decoder_start_id
        if start is None:
            raise UsageError("the model's configuration names no token to begin an answer with.")
        begun = [[start]] * len(memory)
    ids, keep = pad_left(begun, model.config.pad_id or 0, model.device)
    cache = model.new_cache(ids.size(1) + n_new)
    return _LastLogits(model, memory, memory_keep), cache, keep, ids


def pad_left(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Ids (B, T) that all end at the right edge, and keep (B, T) or None if nothing is padded."""
    T = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad_id] * (T - len(p)) + list(p) for p in prompts], device=device)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    if bool((lengths == T).all()):
        return ids, None
    return ids, torch.arange(T, device=device)[None, :] >= T - lengths[:, None]


def choose(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> Tensor:
    """The next token of each row: logits (B, V) to ids (B,), on the same device.

    Greedy takes the likeliest; among equals the first. Otherwise each row draws with its own
    generator from what temperature, top-k and top-p leave. The draw is made on the CPU, where a
    seed gives the same numbers on every machine.
    """
    if sampling.temperature == 0 or sampling.top_k == 1:
        return logits.argmax(dim=-1)
    scores, order = (logits.cpu() / sampling.temperature).sort(dim=-1, descending=True, stable=True)
    if sampling.top_k is not None:
        scores[:, sampling.top_k :] = float("-inf")
    probabilities = scores.softmax(dim=-1)
    if sampling.top_p is not None:
        before = probabilities.cumsum(dim=-1) - probabilities  # mass of the likelier ones
        probabilities[before >= sampling.top_p] = 0.0
    mass = probabilities.cumsum(dim=-1)
    drawn = torch.stack([torch.rand(1, generator=g) for g in generators]) * mass[:, -1:]
    place = torch.searchsorted(mass, drawn, right=True)  # (B, 1)
    kept = (probabilities > 0).sum(dim=-1, keepdim=True)
    return order.gather(1, place.minimum(kept - 1))[:, 0].to(logits.device)
