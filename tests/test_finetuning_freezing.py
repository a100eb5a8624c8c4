"""Which weights move: by name, by depth, little by little; and what is frozen stays to the bit."""

from __future__ import annotations

import pytest
import small_bases
import torch
from torch import nn

from minirag.errors import TrainingError, UsageError
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.finetune import finetune
from minirag.finetuning.freezing import (
    GradualUnfreezing,
    count_weights,
    freeze,
    is_tied,
    layers_of,
    note_on_tied_head,
    training_mode,
    untie,
    weights_named,
    weights_table,
)
from minirag.finetuning.rates import discriminative_rates, make_schedule
from minirag.finetuning.writer_run import FineTuning
from minirag.training.loop import Optimization, make_optimizer
from minirag.training.schedules import SlantedTriangle
from minirag.transformer import checkpoints
from minirag.transformer.models import Decoder

STEPS = FineTuneConfig(
    epochs=2, tokens_per_batch=700, validate_every=0, checkpoint_every=0, patience=None
)


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def test_every_weight_stands_in_one_layer() -> None:
    for model in (small_bases.decoder(), small_bases.encoder_decoder()):
        names = [name for layer in layers_of(model).values() for name in layer]
        assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    layers = layers_of(small_bases.encoder_decoder())
    assert list(layers) == ["embeddings", "0", "1", "2", "3", "4", "head"]  # 3 + 2 blocks
    assert "encoder.blocks.2.attention.query.weight" in layers["2"]
    assert "encoder.final_norm.weight" in layers["2"]
    assert "decoder.blocks.1.cross.key.weight" in layers["4"]
    assert layers["head"] == ["decoder.final_norm.weight", "decoder.final_norm.bias"]


def test_expressions_name_the_weights_they_say() -> None:
    model = small_bases.decoder(tied=False)
    layers = layers_of(model)
    assert weights_named(model, "") == set()
    assert weights_named(model, "embeddings, 0-1") == {
        *layers["embeddings"], *layers["0"], *layers["1"]
    }  # fmt: skip
    assert weights_named(model, "2") == set(layers["2"])
    everything = {name for name, _ in model.named_parameters()}
    assert everything - weights_named(model, "all-but-head") == {
        "tower.final_norm.weight", "tower.final_norm.bias", "head.matrix.weight"
    }  # fmt: skip
    assert weights_named(model, "tower.blocks.*.attention.query.weight") == {
        f"tower.blocks.{i}.attention.query.weight" for i in range(3)
    }
    assert weights_named(model, "tower.blocks.1.feed_forward") == {
        f"tower.blocks.1.feed_forward.{part}.{kind}"
        for part in ("up", "down")
        for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("wrong", ["3", "0-3", "2-1", "tower.blocks.9", "heads", "1,embedings"])
def test_what_names_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match=r"is no part of this model: it has .* the layers 0-2"):
        weights_named(small_bases.decoder(), wrong)


@pytest.mark.parametrize("untied", [False, True])
def test_frozen_weights_do_not_change_by_a_bit_and_have_no_state(untied: bool, tmp_path) -> None:
    """Weight decay, momentum and a tied head included; all that is not frozen does move."""
    base = small_bases.base()
    before = {name: p.clone() for name, p in base.model.named_parameters()}
    config = FineTuneConfig(
        **{**STEPS.__dict__, "freeze": "embeddings,0-1", "untie_head": untied,
           "weight_decay": 0.3, "rate": 1e-2}
    )  # fmt: skip
    run = FineTuning(base, small_bases.data(), config, tmp_path, small_bases.CPU)
    frozen = _frozen(run.model)
    assert frozen == weights_named(base.model, "embeddings,0-1")
    report = finetune(base, small_bases.data(), config, machine=small_bases.CPU)
    assert report.steps > 5
    for name, now in report.model.named_parameters():
        then = before[name if name in before else "tower.embeddings.token.weight"]
        assert torch.equal(now, then) == (name in frozen), name
        if name in frozen:
            assert now.grad is None
    moving = sum(p.numel() for name, p in run.model.named_parameters() if name not in frozen)
    assert moving * 8 <= report.optimizer_bytes <= moving * 8 + 4 * 64  # two averages, and a count
    held = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for name, p in run.model.named_parameters() if name not in frozen}
    for name, then in before.items():  # the base is a base: what was trained is a copy
        assert torch.equal(dict(base.model.named_parameters())[name], then)


def test_all_but_a_tied_head_leaves_the_norm_and_says_so(tmp_path) -> None:
    config = FineTuneConfig(**{**STEPS.__dict__, "freeze": "all-but-head"})
    run = FineTuning(small_bases.base(), small_bases.data(), config, tmp_path, small_bases.CPU)
    moving = {name for name, p in run.model.named_parameters() if p.requires_grad}
    assert moving == {"tower.final_norm.weight", "tower.final_norm.bias"}
    assert any("--untie-head" in note and "frozen with it" in note for note in run.notes)
    model = small_bases.decoder()
    assert "moves with it" in (note_on_tied_head(model, weights_named(model, "head")) or "")
    assert note_on_tied_head(model, weights_named(model, "0")) is None
    untie(model)
    assert note_on_tied_head(model, weights_named(model, "all-but-head")) is None


def test_everything_frozen_is_refused() -> None:
    config = FineTuneConfig(**{**STEPS.__dict__, "freeze": "all-but-head,head"})
    with pytest.raises(TrainingError, match="every weight of the model is frozen"):
        finetune(small_bases.base(), small_bases.data(), config, machine=small_bases.CPU)


def test_an_untied_head_gives_the_same_logits_and_survives_the_disk(tmp_path) -> None:
    model = small_bases.decoder()
    ids = torch.randint(6, 400, (2, 13), generator=torch.Generator().manual_seed(1))
    tied = model.logits(model(ids))
    untie(model)
    assert not is_tied(model)
    torch.testing.assert_close(model.logits(model(ids)), tied, rtol=0, atol=0)
    with torch.no_grad():
        model.head.matrix.weight.add_(1.0)  # no longer the embedding's memory
    assert not torch.equal(model.head.matrix.weight, model.tower.embeddings.token.weight)
    checkpoints.save(model, tmp_path)
    again = checkpoints.load(tmp_path)
    assert isinstance(again, Decoder)
    assert torch.equal(again.logits(again(ids)), model.logits(model(ids)))


def test_dropout_is_off_where_all_is_frozen_and_on_elsewhere() -> None:
    model = small_bases.decoder(dropout=0.5)
    freeze(model, weights_named(model, "embeddings,0,1,tower.blocks.2.attention"))
    training_mode(model)
    on = {name for name, module in model.named_modules() if module.training}
    assert "tower.blocks.2.dropout" in on
    assert "tower.blocks.2" in on
    assert not any(name.startswith(("tower.embeddings", "tower.blocks.0")) for name in on)
    assert "tower.blocks.2.attention" not in on
    ids = torch.arange(6, 30)[None]
    x = model.tower.embed(ids, torch.arange(24))
    one, two = (model.tower.run(x, torch.arange(24), None, True, last=2) for _ in "ab")
    assert torch.equal(one, two)
    one, two = (model.tower.run(x, torch.arange(24), None, True) for _ in "ab")
    assert not torch.equal(one, two)


def test_unfreezing_goes_from_the_top_and_keeps_frozen_what_is() -> None:
    model = small_bases.decoder(tied=False)
    freeze(model, weights_named(model, "embeddings,tower.blocks.1.feed_forward"))
    gradual = GradualUnfreezing.of(model)
    layers = layers_of(model)
    expected: set[str] = set()
    for epoch, layer in enumerate(["head", "2", "1", "0", None]):
        expected |= set(layers[layer]) if layer else set()
        expected -= weights_named(model, "tower.blocks.1.feed_forward")
        gradual.apply(model, epoch)
        assert {name for name, p in model.named_parameters() if p.requires_grad} == expected


def test_a_gradual_run_moves_only_what_its_epochs_reached(tmp_path) -> None:
    base = small_bases.base(small_bases.decoder(tied=False))
    config = FineTuneConfig(**{**STEPS.__dict__, "gradual": True})  # two epochs: head, layer 2
    report = finetune(base, small_bases.data(), config, machine=small_bases.CPU)
    before = dict(base.model.named_parameters())
    layers = layers_of(base.model)
    for name, now in report.model.named_parameters():
        moved = name in layers["head"] or name in layers["2"]
        assert torch.equal(now, before[name]) != moved, name


def test_the_table_counts_what_moves() -> None:
    model = small_bases.decoder()
    freeze(model, weights_named(model, "embeddings,0-1"))
    counts = {c.layer: (c.trainable, c.total) for c in count_weights(model)}
    D, F, V = 16, 24, small_bases.tokenizer().vocab_size
    block = 4 * (D * D + D) + (D * F + F) + (F * D + D) + 2 * 2 * D
    assert counts == {
        "embeddings": (0, V * D), "0": (0, block), "1": (0, block), "2": (block, block),
        "head": (2 * D, 2 * D),
    }  # fmt: skip
    share = 100 * (block + 2 * D) / model.n_parameters
    assert f"{share:.1f} % of the weights move" in weights_table(count_weights(model))


def test_rates_fall_from_layer_to_layer() -> None:
    model = small_bases.decoder()
    freeze(model, weights_named(model, "1"))
    how = Optimization(rate=0.8, weight_decay=0.1)
    optimizer = make_optimizer(model, how, discriminative_rates(model, 0.5))
    names = {id(p): name for name, p in model.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        assert group["peak"] == group["lr"]
        for p in group["params"]:
            seen[names[id(p)]] = (group["lr"], group["weight_decay"])
    for layer, depth in (("head", 0), ("2", 1), ("0", 3), ("embeddings", 4)):
        for name in layers_of(model)[layer]:
            decay = 0.1 if name.endswith("weight") and "norm" not in name else 0.0
            assert seen.pop(name) == (pytest.approx(0.8 * 0.5**depth), decay)
    assert seen == {}
    assert discriminative_rates(model, 1.0) is None


def test_schedules_by_name() -> None:
    def at(schedule: str, step: int, warmup: float = 0.0) -> float:
        config = FineTuneConfig(schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
        return make_schedule(config, 100)(step)

    assert [at("linear", s) for s in (0, 25, 100)] == pytest.approx([1.0, 0.75, 0.0])
    assert at("cosine", 50) == pytest.approx(0.5)
    assert [at("constant", s, 0.1) for s in (0, 4, 9, 50, 99)] == [0.1, 0.5, 1.0, 1.0, 1.0]

    def slanted(t: int, T: int = 100, cut_frac: float = 0.1, ratio: float = 32) -> float:
        """Howard and Ruder 2018, equation 3, with the peak at 1."""
        cut = int(T * cut_frac)
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        return (1 + p * (ratio - 1)) / ratio

    for step in range(101):
        assert at("slanted", step, 0.1) == pytest.approx(slanted(step), abs=1e-9)
    with pytest.raises(UsageError, match="give one of linear, cosine, slanted, constant"):
        at("stepwise", 0)
    for wrong in ({"total_steps": 0}, {"rise": 0.0}, {"rise": 1.0}, {"ratio": 0.5}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            SlantedTriangle(**{"total_steps": 10, **wrong})  # type: ignore[arg-type]
