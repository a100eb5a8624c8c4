"""``minirag bench finetune``: our fine-tuning steps beside those of transformers' Trainer and peft.

Both sides begin with the same weights (with LoRA, the same first adapters too) and take the same
steps: the same batches in the same order, the same AdamW, clipping and precision, nothing logged or
saved. So their losses have to agree, and whether they do is part of the result. Logits are computed
where something is to be learned, on both sides; what Trainer takes when it computes them everywhere
stands beside.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from tqdm import tqdm

from minirag.cli.bench_models import peer
from minirag.errors import UsageError
from minirag.finetuning.base import Base, locate_base
from minirag.finetuning.chat import knows_reading
from minirag.finetuning.config import FineTuneConfig, LaboratoryData, Lora
from minirag.finetuning.data import FineTuneData
from minirag.finetuning.finetune import place_of_run
from minirag.finetuning.freezing import training_mode
from minirag.finetuning.laboratory import laboratory_data
from minirag.finetuning.lora import adapted
from minirag.finetuning.objective import Part
from minirag.finetuning.writer_run import FineTuning
from minirag.training.batches import NO_TARGET
from minirag.training.loop import Optimization, Parts, training_steps
from minirag.transformer.checkpoints import CONFIG
from minirag.transformer.machine import Machine, Precision, this_machine
from minirag.transformer.models import Decoder
from minirag.transformer.public import FAMILIES

OURS = "minirag"
ROUNDS, STEPS = 3, 8
_WARM = 2  # steps of a round that don't count: they fill caches and make the optimizer's state
_COMPARED = 5  # steps whose losses are compared
_SAME = 1e-4  # of the largest logit: what rounding makes of the same computation

# What our modules are called in transformers' Starcoder2, which computes what our decoders do:
# rotary positions, LayerNorm before each part, biases, a feed-forward layer without a gate. So does
# GPT-NeoX, but its queries, keys and values are one matrix: LoRA could not adapt the queries alone.
_STARCODER2 = {
    "tower.embeddings.token": "model.embed_tokens",
    "tower.blocks.{i}.attention.query": "model.layers.{i}.self_attn.q_proj",
    "tower.blocks.{i}.attention.key": "model.layers.{i}.self_attn.k_proj",
    "tower.blocks.{i}.attention.value": "model.layers.{i}.self_attn.v_proj",
    "tower.blocks.{i}.attention.output": "model.layers.{i}.self_attn.o_proj",
    "tower.blocks.{i}.attention_norm": "model.layers.{i}.input_layernorm",
    "tower.blocks.{i}.feed_forward.up": "model.layers.{i}.mlp.c_fc",
    "tower.blocks.{i}.feed_forward.down": "model.layers.{i}.mlp.c_proj",
    "tower.blocks.{i}.feed_forward_norm": "model.layers.{i}.post_attention_layernorm",
    "tower.final_norm": "model.norm",
    "head.matrix": "lm_head",
}
_LLAMA = {
    ours.removesuffix(".weight"): f"model.{theirs}".removesuffix(".weight")
    for ours, (theirs, _) in FAMILIES["llama"].rules.items()
    if ours.startswith("tower.")
}

Inputs = dict[str, Any]  # what a model of transformers is called with
Round = tuple[list[float], list[float]]  # seconds and loss of each step


def bench_finetune(
    name: str,
    *,
    lora: Lora | None = None,
    precision: Precision = "fp32",
    rounds: int = ROUNDS,
    steps: int = STEPS,
    tokens_per_batch: int | None = None,
    data: FineTuneData | None = None,
    bar: bool = False,
) -> dict[str, Any]:
    """Tokens a second of fine-tuning, ours and that of transformers' Trainer, round by round.

    Parameters
    ----------
    name : str
        A decoder of the laboratory's or a Llama, by its name or its directory.
    lora : Lora, optional
        Train these adapters (peft's on the other side) instead of all weights.
    rounds, steps : int
        In each round each side takes so many steps from the first weights on; the first
        two of them are not counted.
    tokens_per_batch : int, optional
        Default: what a fine-tuning takes, and a quarter of it for a public model.
    data : FineTuneData, optional
        Default: reading exercises of the laboratory.

    Raises
    ------
    UsageError
        If transformers, accelerate or peft is missing, or has no model that computes the same.
    """
    if rounds < 1 or steps <= _WARM:
        raise UsageError(
            f"{rounds} rounds of {steps} steps: give 1 round or more, of more than {_WARM} steps; "
            "the first ones don't count."
        )
    base, build, names = _both_sides(name, lora)
    machine = this_machine(precision)
    if tokens_per_batch is None:
        usual = FineTuneConfig().tokens_per_batch
        tokens_per_batch = usual if knows_reading(base.tokenizer) else usual // 4
    config = FineTuneConfig(
        epochs=steps, max_steps=steps, tokens_per_batch=tokens_per_batch,
        schedule="constant", warmup=0.0, lora=lora,
    )  # fmt: skip
    data = data or reading_data(200)

    with place_of_run(None, config.seed) as place:

        def ours() -> FineTuning:
            return FineTuning(base, data, config, place, machine)

        first = ours()
        batches = [part for step in first.batches() for part in _parts(step)]
        ids = batches[0].batch.ids
        difference = max(
            _logit_difference(first.model, build(attention), ids) for attention in ("sdpa", "eager")
        )
        if not difference <= _SAME:
            raise UsageError(
                _no_peer(name, f"their logits differ by {difference:.1g} of the largest")
            )

        def theirs(attention: str, inputs: Sequence[Inputs]) -> Round:
            model = build(attention)
            if lora is not None:
                model = with_pefts_adapters(model, lora, first.model, names)
            return _their_steps(model, inputs, config, place, machine)

        same = [_inputs(part, everywhere=False) for part in batches]
        everywhere = [_inputs(part, everywhere=True) for part in batches]
        contenders: dict[str, Callable[[], Round]] = {
            OURS: lambda: _our_steps(ours(), batches),
            "Trainer, sdpa": lambda: theirs("sdpa", same),
            "Trainer, eager": lambda: theirs("eager", same),
            "Trainer, sdpa, logits everywhere": lambda: theirs("sdpa", everywhere),
        }
        taken: dict[str, list[Round]] = {contender: [] for contender in contenders}
        with tqdm(total=rounds * len(contenders), disable=not bar, unit="run") as shown:
            for _ in range(rounds):
                for contender, take in contenders.items():
                    taken[contender].append(take())
                    shown.update()

    tokens = [part.batch.n_tokens for part in batches]
    rates = {
        contender: [
            statistics.median(n / s for n, s in zip(tokens[_WARM:], seconds[_WARM:], strict=True))
            for seconds, _ in own
        ]
        for contender, own in taken.items()
    }
    ratios = {
        contender: statistics.median(a / b for a, b in zip(rates[OURS], own, strict=True))
        for contender, own in rates.items()
        if contender != OURS
    }
    losses = {contender: own[0][1][:_COMPARED] for contender, own in taken.items()}
    return {
        "model": base.name,
        "way": "full" if lora is None else "lora",
        "machine": machine.describe(),
        "rounds": rounds,
        "steps": steps,
        "tokens_per_batch": tokens_per_batch,
        "tokens": tokens,
        "learned": [int((part.shares > 0).sum()) for part in batches],
        "logit_difference": difference,
        "tokens_per_second": {who: round(statistics.median(own)) for who, own in rates.items()},
        "of_each_round": {who: [round(rate) for rate in own] for who, own in rates.items()},
        "ratio": {who: round(ratio, 3) for who, ratio in ratios.items()},
        "ratio_to_faster_peer": round(min(ratios["Trainer, sdpa"], ratios["Trainer, eager"]), 3),
        "losses": losses,
        "agreement": {who: largest_gap(losses[OURS], losses[who]) for who in ratios},
    }


def table(results: Mapping[str, Any]) -> str:
    """The result for people."""
    machine = results["machine"]
    lines = [
        f"{results['model']}, {results['way']}, {machine['precision']}, {machine['threads']} "
        f"threads, {results['tokens_per_batch']:,} tokens a batch",
        f"{'':<34}{'tokens/s':>10}{'ratio':>9}   agreement",
    ]
    for who, rate in results["tokens_per_second"].items():
        line = f"{who:<34}{rate:>10,}"
        if who != OURS:
            line += f"{results['ratio'][who]:>8.2f}x   losses of the first {_COMPARED} steps "
            line += f"within {results['agreement'][who]:.0e}"
        lines.append(line)
    lines.append(f"ratio to the faster peer: {results['ratio_to_faster_peer']:.2f}x")
    return "\n".join(lines)


def reading_data(exercises: int) -> FineTuneData:
    """Reading exercises of the laboratory, all with an answer: chat models learn no refusal."""
    return laboratory_data(
        LaboratoryData(
            entities=60, changing=0, exercises=exercises, unanswerable=0.0,
            questions=1, questions_on_the_way=1,
        )
    )  # fmt: skip


def largest_gap(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest difference between losses of the same steps."""
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


# ------------------------------------------------------------------------------- the same model


def _both_sides(
    name: str, lora: Lora | None
) -> tuple[Base, Callable[[str], Any], Mapping[str, str]]:
    """Our model; what builds transformers', with an attention; and what it calls our modules."""
    library = peer("transformers")
    peer("accelerate")  # Trainer needs it
    if lora is not None:
        peer("peft")
    if not hasattr(library.modeling_utils, "slice_logits_to_keep"):
        raise UsageError(
            f"transformers {library.__version__} can't compute logits for chosen positions of each "
            "row, so it would do more than minirag: `pip install -U transformers`."
        )
    library.utils.logging.disable_progress_bar()  # one for every loading, drawn over ours
    base, directory = Base.load(name), locate_base(name).directory
    if not isinstance(base.model, Decoder):
        raise UsageError(f"{name} is no decoder: give one, such as gpt-base.")
    model, family = base.model, json.loads((directory / CONFIG).read_text("utf-8"))
    if "minirag" in family:
        return base, lambda attention: as_starcoder2(name, model, attention), _STARCODER2
    if family["model_type"] != "llama":
        raise UsageError(f"{name} is a {family['model_type']}: give a Llama, or gpt-base.")

    def llama(attention: str) -> Any:
        theirs = library.AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, attn_implementation=attention
        )
        # With one, the token of padding gets no gradient; it may be a token that is learned, too.
        theirs.get_input_embeddings().padding_idx = None
        return theirs

    return base, llama, _LLAMA


def as_starcoder2(name: str, model: Decoder, attention: str) -> Any:
    """A decoder of the laboratory's as a model of transformers', with the same weights.

    Raises
    ------
    UsageError
        If it has other weights than ours.
    """
    library = peer("transformers")
    config = model.config
    activations = {"gelu_tanh": "gelu_pytorch_tanh"}
    theirs = library.Starcoder2ForCausalLM(
        library.Starcoder2Config(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=config.d_ff,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.kv_heads,
            hidden_act=activations.get(config.activation, config.activation),
            max_position_embeddings=config.max_length,
            norm_epsilon=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            use_bias=config.bias,
            tie_word_embeddings=config.tied,
            bos_token_id=config.bos_id,
            eos_token_id=list(config.eos_ids),
            attn_implementation=attention,
        )
    )
    ours = dict(model.named_parameters())
    named = {their_name(_STARCODER2, own): weights for own, weights in ours.items()}
    weights = dict(theirs.named_parameters())
    if {own: w.shape for own, w in named.items()} != {own: w.shape for own, w in weights.items()}:
        raise UsageError(_no_peer(name, "they have not the same weights"))
    with torch.no_grad():
        for own, weight in weights.items():
            weight.copy_(named[own])
    return theirs


def their_name(names: Mapping[str, str], ours: str) -> str:
    """What a weight of ours is called there; itself, if it has no counterpart."""
    module, _, part = ours.rpartition(".")
    number = re.search(r"\.(\d+)\.", module)
    if number is None:
        return f"{names[module]}.{part}" if module in names else ours
    general = module.replace(number[0], ".{i}.", 1)
    return f"{names[general].format(i=number[1])}.{part}" if general in names else ours


def _no_peer(name: str, why: str) -> str:
    return (
        f"transformers has no model that computes what {name} does ({why}), so the times would not "
        "be of the same work: give gpt-base or SmolLM2-135M-Instruct."
    )


@torch.no_grad()
def _logit_difference(ours: Any, theirs: Any, ids: Tensor) -> float:
    """The largest difference between two decoders' logits, as a share of the largest logit."""
    theirs = theirs.to(ids.device).eval()
    expected = theirs(input_ids=ids, use_cache=False).logits  # (B, T, V)
    logits = ours.eval().logits(ours(ids))
    return float((logits - expected).abs().max() / expected.abs().max())


def with_pefts_adapters(theirs: Any, lora: Lora, ours: nn.Module, names: Mapping[str, str]) -> Any:
    """Their model with adapters of peft's that begin as ours do, at the same layers."""
    library = peer("peft")
    layers = {
        their_name(names, f"{name}.weight").removesuffix(".weight"): layer
        for name, layer in adapted(ours)
    }
    model = library.get_peft_model(
        theirs,
        library.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=sorted(layers),
        ),
    )
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, layer in layers.items():
            weights[f"base_model.model.{name}.lora_A.default.weight"].copy_(layer.lora_a)
    return model


# ------------------------------------------------------------------------------- the same steps


def _parts(step: Part | Parts[Part]) -> tuple[Part, ...]:
    return step if isinstance(step, Parts) else (step,)


def _inputs(part: Part, *, everywhere: bool) -> Inputs:
    """A batch as transformers takes it.

    Our targets are those of their place; there, labels would be shifted if nothing said that they
    are. No mask of the padding: it is on the right, where no token looks.
    """
    ids, targets, learned = part.batch.ids, part.batch.targets, part.shares > 0  # (B, T)
    if everywhere:
        labels = targets.where(learned, NO_TARGET)  # (B, T)
        return {"input_ids": ids, "labels": labels, "shift_labels": labels, "use_cache": False}
    labels = targets[learned]  # (n,)
    return {
        "input_ids": ids, "labels": labels, "shift_labels": labels, "use_cache": False,
        "logits_to_keep": learned,
    }  # fmt: skip


def _our_steps(run: FineTuning, batches: Sequence[Part]) -> Round:
    seconds, losses = [], []
    began = time.perf_counter()
    for step in training_steps(
        run.model,
        batches,
        run.loss,
        run.optimizer,
        run.schedule,
        max_norm=run.config.max_norm,
        autocast=run.machine.autocast,
        training_mode=training_mode,
    ):
        seconds.append(time.perf_counter() - began)
        losses.append(step.loss)
        began = time.perf_counter()
    return seconds, losses


def _their_steps(
    model: Any, inputs: Sequence[Inputs], config: FineTuneConfig, place: Path, machine: Machine
) -> Round:
    """The same with Trainer; the time is that from the begin of a step to its end."""
    import transformers

    seconds: list[float] = []
    losses: list[Tensor] = []

    class Recorder(transformers.Trainer):  # type: ignore[misc]
        """In the given order, and with its losses unrounded."""

        def _get_train_sampler(self, *_: object) -> SequentialSampler:
            return SequentialSampler(inputs)

        def training_step(self, *args: Any, **options: Any) -> Tensor:
            loss: Tensor = super().training_step(*args, **options)
            losses.append(loss.detach())
            return loss

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        """Takes the time of every step."""

        began = 0.0

        def on_step_begin(self, *_: object, **__: object) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: object, **__: object) -> None:
            seconds.append(time.perf_counter() - self.began)

    how = Optimization(
        rate=config.rate, weight_decay=config.weight_decay, max_norm=config.max_norm
    )  # as the fine-tuning has it
    trainer = Recorder(
        model,
        transformers.TrainingArguments(
            str(place / "trainer"), per_device_train_batch_size=1, max_steps=len(inputs),
            learning_rate=how.rate, weight_decay=how.weight_decay, adam_beta1=how.betas[0],
            adam_beta2=how.betas[1], adam_epsilon=1e-8, max_grad_norm=how.max_norm,
            lr_scheduler_type="constant", optim="adamw_torch_fused", bf16=machine.bf16,
            use_cpu=machine.device.type == "cpu", remove_unused_columns=False,
            dataloader_pin_memory=False, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, log_level="error",
        ),
        train_dataset=inputs,
        data_collator=lambda batches: batches[0],  # they come as batches
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.remove_callback(transformers.PrinterCallback)  # it would print among our results
    trainer.train()
    return seconds, [loss.item() for loss in losses]
