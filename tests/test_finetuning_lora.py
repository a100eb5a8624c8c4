"""LoRA by hand: the formula, merging, the file; and peft's numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import small_bases
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from minirag.errors import CheckpointError, UsageError
from minirag.finetuning.base import Base, fingerprint
from minirag.finetuning.config import FineTuneConfig, Lora
from minirag.finetuning.finetune import finetune
from minirag.finetuning.lora import (
    ADAPTER,
    LoraLinear,
    adapted,
    add_lora,
    fold_in,
    load_lora,
    merge,
    save_lora,
    unmerge,
)
from minirag.training.loop import Optimization, make_optimizer, training_steps
from minirag.transformer import checkpoints
from minirag.transformer.models import Decoder

IDS = torch.randint(6, 400, (3, 17), generator=torch.Generator().manual_seed(2))
LORA = Lora(rank=3, alpha=7.0, targets=("query", "value", "up"))


def _learned(seed: int = 0, lora: Lora = LORA) -> Decoder:
    """A model with adapters that are not zero."""
    model = small_bases.decoder(seed)
    add_lora(model, lora, seed=5)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for _, layer in adapted(model):
            layer.lora_b.copy_(torch.randn(layer.lora_b.shape, generator=generator))
    return model


def test_an_adapter_is_the_formula_and_begins_as_the_base() -> None:
    base = small_bases.decoder()
    model = copy.deepcopy(base)
    add_lora(model, LORA, seed=5)
    assert torch.equal(model(IDS), base(IDS))  # B is zero
    layer = LoraLinear(nn.Linear(5, 9), Lora(2, 6.0), torch.Generator().manual_seed(1))
    assert layer.lora_a.abs().max() <= 5**-0.5
    assert (layer.lora_b == 0).all()
    with torch.no_grad():
        layer.lora_b.normal_(generator=torch.Generator().manual_seed(2))
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    difference = layer.lora_b @ layer.lora_a  # (9, 5)
    expected = x @ (layer.weight + 3.0 * difference).T + layer.bias
    torch.testing.assert_close(layer(x), expected)


def test_only_adapters_of_the_targets_move() -> None:
    model = small_bases.decoder()
    total = model.n_parameters
    add_lora(model, LORA, seed=0, without={"tower.blocks.0.attention.value.weight"})
    moving = {name for name, p in model.named_parameters() if p.requires_grad}
    assert moving == {
        f"tower.blocks.{i}.{layer}.{part}"
        for i in range(3)
        for layer in ("attention.query", "attention.value", "feed_forward.up")
        for part in ("lora_a", "lora_b")
        if (i, layer) != (0, "attention.value")
    }
    # query, value: 3 x (16 + 16); up: 3 x (16 + 24)
    assert model.n_parameters - total == 5 * 3 * 32 + 3 * 3 * 40


def test_layers_are_replaced_with_the_oldest_torch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(nn.Module, "set_submodule", raising=False)  # came after 2.4
    model = small_bases.decoder()
    names = [name for name, _ in model.named_parameters()]
    add_lora(model, Lora(), 0)
    assert list(adapted(model))
    fold_in(model)
    assert [name for name, _ in model.named_parameters()] == names


def test_merged_equals_unmerged_and_comes_apart_to_the_bit() -> None:
    model = _learned()
    apart = model(IDS)
    before = {name: p.clone() for name, p in model.named_parameters()}
    merge(model)
    merge(model)  # a second time changes nothing
    torch.testing.assert_close(model(IDS), apart, rtol=1e-5, atol=1e-5)
    assert not torch.equal(
        before["tower.blocks.0.attention.query.weight"],
        model.tower.blocks[0].attention.query.weight,
    )
    unmerge(model)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
    fold_in(model)
    assert not list(adapted(model))
    torch.testing.assert_close(model(IDS), apart, rtol=1e-5, atol=1e-5)
    assert {n for n, _ in model.named_parameters()} == {
        n for n, _ in small_bases.decoder().named_parameters()
    }
    assert all(p.requires_grad for p in model.parameters())


def test_the_adapter_alone_is_a_small_file_for_its_own_base(tmp_path: Path) -> None:
    model, path = _learned(), tmp_path / ADAPTER
    save_lora(model, path, LORA)
    numbers = sum(layer.lora_a.numel() + layer.lora_b.numel() for _, layer in adapted(model))
    assert 4 * numbers < path.stat().st_size < 4 * numbers + 4000
    again = small_bases.decoder()
    assert load_lora(again, path) == LORA
    assert torch.equal(again(IDS), model(IDS))
    with pytest.raises(CheckpointError, match="was learned on another base model"):
        load_lora(small_bases.decoder(seed=1), path)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[:50])
    with pytest.raises(CheckpointError, match="damaged or no adapter"):
        load_lora(small_bases.decoder(), path)
    checkpoints.save(small_bases.decoder(), tmp_path)
    with pytest.raises(CheckpointError, match="damaged or no adapter"):
        load_lora(small_bases.decoder(), tmp_path / checkpoints.WEIGHTS)


def _tampered(path: Path, change: Callable[[dict[str, Tensor]], object], **about: object) -> Path:
    """A whole adapter's file with other tensors, or another description."""
    save_lora(_learned(), path, LORA)
    with safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()["minirag-lora"])
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"minirag-lora": json.dumps({**said, **about})})
    return path


_QUERY = "tower.blocks.0.attention.query"


@pytest.mark.parametrize(
    ("change", "about", "said"),
    [
        (lambda t: t.update({f"{_QUERY}.lora_a": torch.ones(1)}), {},
         r"query.lora_a should have the shape \(3, 16\) and is \(1,\)"),
        (lambda t: t.pop(f"{_QUERY}.lora_b"), {},
         r"query.lora_b should have the shape \(16, 3\) and is missing"),
        (lambda t: t.update({"tower.blocks.0.attention.key.lora_a": torch.ones(3, 16)}), {},
         "holds tower.blocks.0.attention.key.lora_a, which belongs to none of the layers"),
        (lambda t: t.update({"somewhere": torch.ones(2)}), {}, "holds somewhere, which belongs to"),
        (lambda t: t.clear(), {}, "holds no adapter"),
        (lambda t: None, {"rank": 4}, r"should have the shape \(4, 16\) and is \(3, 16\)"),
        (lambda t: None, {"rank": 10**9}, r"should have the shape \(1000000000, 16\)"),
        (lambda t: None, {"alpha": "much"}, "is damaged or no adapter"),
        (lambda t: None, {"rank": 0}, "LoRA's rank is 0"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_its_description_changes_nothing(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], about: dict, said: str
) -> None:
    path, model = _tampered(tmp_path / ADAPTER, change, **about), small_bases.decoder()
    with pytest.raises(CheckpointError, match=said):
        load_lora(model, path)
    assert not list(adapted(model))
    assert all(p.requires_grad for p in model.parameters())


def test_what_moved_beside_the_adapters_is_stored_with_them(tmp_path: Path) -> None:
    model = _learned()
    model.tower.final_norm.requires_grad_(True)
    with torch.no_grad():
        model.tower.final_norm.weight.add_(0.5)
    save_lora(model, tmp_path / ADAPTER, LORA)
    again = small_bases.decoder()
    load_lora(again, tmp_path / ADAPTER)
    assert torch.equal(again(IDS), model(IDS))
    moving = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (model, again)]
    assert moving[0] == moving[1]


def test_a_shipped_bases_adapter_has_a_hundred_kilobytes(tmp_path: Path) -> None:
    base = Base.load("gpt-base")
    add_lora(base.model, Lora(), seed=0)
    save_lora(base.model, tmp_path / ADAPTER, Lora())
    assert 50_000 < (tmp_path / ADAPTER).stat().st_size < 500_000


def test_what_can_not_be_adapted_or_saved_is_said(tmp_path: Path) -> None:
    model = small_bases.decoder()
    with pytest.raises(UsageError, match="no linear layer of this model: give some of down, key"):
        add_lora(model, Lora(targets=("query", "q_proj")), seed=0)
    with pytest.raises(UsageError, match="they are tied"):
        add_lora(model, Lora(targets=("matrix",)), seed=0)
    queries = {f"tower.blocks.{i}.attention.query.weight" for i in range(3)}
    with pytest.raises(UsageError, match="targets query name is frozen: freeze less"):
        add_lora(model, Lora(targets=("query",)), seed=0, without=queries)
    with pytest.raises(UsageError, match="no adapters to save"):
        save_lora(model, tmp_path / ADAPTER, LORA)
    learned = _learned()
    with pytest.raises(UsageError, match="has adapters already"):
        add_lora(learned, LORA, seed=0)
    merge(learned)
    with pytest.raises(UsageError, match="unmerge them"):
        save_lora(learned, tmp_path / ADAPTER, LORA)
    for wrong in ({"rank": 0}, {"targets": ()}, {"dropout": 1.0}):
        with pytest.raises(UsageError, match="LoRA"):
            Lora(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="leave --untie-head out"):
        FineTuneConfig(lora=Lora(), untie_head=True)


def test_a_run_with_lora_leaves_the_base_and_writes_both_files(tmp_path: Path) -> None:
    base = small_bases.base()
    config = FineTuneConfig(
        epochs=1, tokens_per_batch=700, validate_every=0, patience=None, rate=1e-2,
        lora=Lora(rank=2, dropout=0.1), freeze="0-1",
    )  # fmt: skip
    report = finetune(base, small_bases.data(), config, tmp_path, machine=small_bases.CPU)
    assert not list(adapted(report.model))  # as it is stored
    merged = checkpoints.load(tmp_path)
    assert isinstance(merged, Decoder)
    assert torch.equal(merged(IDS), report.model.eval()(IDS))
    model = copy.deepcopy(base.model)
    assert load_lora(model, tmp_path / ADAPTER) == config.lora
    assert {name.split(".")[2] for name, _ in adapted(model)} == {"2"}
    assert fingerprint(model) == fingerprint(base.model)
    assert any((layer.lora_b != 0).any() for _, layer in adapted(model))
    torch.testing.assert_close(merged(IDS), model(IDS), rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------------------------------- peft


def test_twenty_steps_equal_pefts(tmp_path: Path) -> None:
    """The same Llama, first adapters, batches and AdamW: the same weights, apart and merged."""
    transformers = pytest.importorskip("transformers", reason="needs the extra 'peers'")
    peft = pytest.importorskip("peft", reason="needs the extra 'peers'")
    torch.manual_seed(11)
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=97, hidden_size=48, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=2, intermediate_size=70, max_position_embeddings=60,
            tie_word_embeddings=True, attn_implementation="eager",
        )
    )  # fmt: skip
    llama.save_pretrained(tmp_path)
    ours = checkpoints.load(tmp_path)
    assert isinstance(ours, Decoder)
    lora = Lora(rank=5, alpha=12.0, targets=("query", "value", "down"))
    add_lora(ours, lora, seed=3)
    theirs = peft.get_peft_model(
        llama,
        peft.LoraConfig(r=5, lora_alpha=12, target_modules=["q_proj", "v_proj", "down_proj"]),
    )
    pairs = {
        "attention.query": "self_attn.q_proj",
        "attention.value": "self_attn.v_proj",
        "feed_forward.down": "mlp.down_proj",
    }
    named = dict(theirs.named_parameters())

    def peer(name: str, part: str) -> Tensor:
        _, _, number, layer = name.split(".", 3)
        key = f"base_model.model.model.layers.{number}.{pairs[layer]}.{part}.default.weight"
        return named[key]

    with torch.no_grad():
        for name, layer in adapted(ours):
            peer(name, "lora_A").copy_(layer.lora_a)
    generator = torch.Generator().manual_seed(4)
    batches = [torch.randint(0, 97, (4, 19), generator=generator) for _ in range(20)]

    def loss(logits: Tensor, ids: Tensor) -> Tensor:
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    how = Optimization(rate=5e-3, weight_decay=0.1)
    schedule = lambda step: 1 - step / 20  # noqa: E731
    mine = training_steps(
        ours, batches, lambda m, ids: loss(m.logits(m(ids)), ids), make_optimizer(ours, how),
        schedule,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(
        [p for p in theirs.parameters() if p.requires_grad],
        lr=how.rate, betas=how.betas, weight_decay=how.weight_decay,
    )  # fmt: skip
    theirs.train()
    for step, (ids, done) in enumerate(zip(batches, mine, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = how.rate * schedule(step)
        optimizer.zero_grad()
        value = loss(theirs(input_ids=ids).logits, ids)
        value.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), how.max_norm)
        optimizer.step()
        assert done.loss == pytest.approx(value.item(), abs=1e-5)
    moved = 0.0
    for name, layer in adapted(ours):
        torch.testing.assert_close(layer.lora_a, peer(name, "lora_A"), rtol=0, atol=1e-5)
        torch.testing.assert_close(layer.lora_b, peer(name, "lora_B"), rtol=0, atol=1e-5)
        moved = max(moved, float(layer.lora_b.abs().max().detach()))
    assert moved > 0.01
    ours.eval(), theirs.eval()
    with torch.no_grad():
        expected = theirs(input_ids=batches[0]).logits
        torch.testing.assert_close(ours.logits(ours(batches[0])), expected, rtol=0, atol=1e-5)
        merge(ours)
        merged = theirs.merge_and_unload()(input_ids=batches[0]).logits
        torch.testing.assert_close(ours.logits(ours(batches[0])), merged, rtol=0, atol=1e-5)
