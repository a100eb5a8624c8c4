"""Configurations from outside: whatever they say, the answer is a model or one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from minirag.errors import CheckpointError, StoreError
from minirag.files import MANIFEST, load_set, read_json_object
from minirag.transformer import checkpoints
from minirag.transformer.attention import Rotary
from minirag.transformer.config import TransformerConfig
from minirag.transformer.models import Decoder, EncoderDecoder
from minirag.transformer.pooling import pooling_of
from minirag.transformer.public import to_ours

SMALL: dict[str, Any] = {
    "kind": "decoder",
    "vocab_size": 30,
    "d_model": 24,
    "n_layers": 2,
    "n_heads": 4,
    "d_ff": 40,
    "max_length": 20,
}
HUGE = 10**30


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("kind", ["foo", None, ["decoder"]]),
        ("vocab_size", [True, 0, -3, 2.0, "30", None, HUGE]),
        ("d_model", [1 << 28, HUGE]),
        ("n_layers", [10**9]),
        ("n_kv_heads", [-2, 0.5, 3, True]),
        ("n_decoder_layers", [-1, 2000]),
        ("positions", ["foo", 1]),
        ("rope_theta", [-1, 0, "x", None, math.nan, math.inf, HUGE]),
        ("norm", ["foo"]),
        ("norm_eps", ["x", -1e-5, math.nan]),
        ("norm_first", [1, "false"]),
        ("activation", ["foo", ["gelu"]]),
        ("gated", ["false"]),
        ("n_token_types", [-1, "2"]),
        ("head", ["foo", False]),
        ("tied", ["no", None]),
        ("embedding_scale", [None, "1", 0.0]),
        ("dropout", [5, -0.1, False]),
        ("attention_dropout", [5, "x"]),
        ("pad_id", ["0", 30, -1, 0.0]),
        ("eos_ids", [5, "12", [1.0], [True], None]),
        ("decoder_start_id", [30]),
    ],
)
def test_a_field_that_cannot_be_meant_is_named(field: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(CheckpointError, match=rf"^config\.json: configuration: .*\b{field}\b"):
            TransformerConfig.from_dict({**SMALL, field: value}, Path("config.json"))


def test_whole_numbers_are_reals_too_and_lists_are_tuples() -> None:
    values = {**SMALL, "rope_theta": 500, "eos_ids": [1, 2], "attention_dropout": None}
    config = TransformerConfig.from_dict(values, Path("config.json"))
    assert (config.rope_theta, config.eos_ids) == (500.0, (1, 2))


def test_attention_has_a_dropout_of_its_own_and_older_files_stay_as_they_are() -> None:
    plain = TransformerConfig(**SMALL, dropout=0.2)
    assert "attention_dropout" not in plain.to_json()
    assert Decoder(plain).tower.blocks[0].attention.dropout == 0.2
    own = TransformerConfig(**SMALL, dropout=0.2, attention_dropout=0.0)
    assert Decoder(own).tower.blocks[0].attention.dropout == 0.0
    for config in (plain, own):
        again = TransformerConfig.from_dict(json.loads(config.to_json()), Path("config.json"))
        assert again == config


def test_attention_drops_some_of_its_weights_while_it_learns_and_only_then() -> None:
    """In the fused kernel and written out; looking at itself and at a memory."""
    torch.manual_seed(0)
    config = TransformerConfig(**{**SMALL, "kind": "encoder-decoder"}, attention_dropout=0.5)
    model, ids = EncoderDecoder(config), torch.arange(12).view(2, 6)
    memory = model.eval().encode(ids).detach()

    def repeatable(record: list[torch.Tensor] | None) -> bool:
        return torch.equal(model(ids, memory, record=record), model(ids, memory, record=record))

    for record in (None, []):
        model.eval()
        assert repeatable(record)
        for part in ("attention", "cross"):
            model.eval()
            for block in model.decoder.blocks:
                getattr(block, part).train()
            assert not repeatable(record)


def _directory(place: Path, config: dict[str, Any]) -> Path:
    save_file({"a": torch.zeros(1)}, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps({"minirag": 1, **config}))
    return place


def test_no_memory_is_taken_before_the_tensors_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    tables = Rotary.make_tables

    def noting(self: Rotary) -> None:
        tables(self)
        made.append(self.cos.device.type)

    monkeypatch.setattr(Rotary, "make_tables", noting)
    wide = {**SMALL, "d_model": 1024, "n_heads": 1, "max_length": 1 << 17}
    with pytest.raises(CheckpointError, match=r"the tensor .* is missing"):
        checkpoints.load(_directory(tmp_path, wide))
    assert made == ["meta"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"d_model": 2048, "n_heads": 1}, "makes heads of 2048 numbers; 1,024 are the most"),
        ({"d_model": 512, "n_heads": 1, "max_length": 1 << 19}, "tables of 268,435,456 numbers"),
    ],
)
def test_heads_and_tables_have_a_limit(change: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        TransformerConfig(**{**SMALL, **change})


def test_a_loaded_model_has_the_tables_of_the_one_that_was_saved(tmp_path: Path) -> None:
    model = Decoder(TransformerConfig(**SMALL, rope_theta=500.0))
    checkpoints.save(model, tmp_path)
    again = checkpoints.load(tmp_path)
    assert isinstance(again, Decoder)
    assert again.tower.rotary is not None
    assert model.tower.rotary is not None
    # Worked out one by one: the pair i of a head turns by place / theta^(2 i / E).
    place, i = 7, 1
    angle = torch.tensor(7.0) * torch.tensor(500.0) ** -torch.tensor(2 * i / 6)
    assert torch.equal(again.tower.rotary.cos[place, i], angle.cos())
    assert torch.equal(again.tower.rotary.sin[place, i], -angle.sin())
    for name in ("cos", "sin"):
        ours, theirs = getattr(again.tower.rotary, name), getattr(model.tower.rotary, name)
        assert ours.shape == (20, 6)
        assert torch.equal(ours, theirs)


def test_json_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    cases = {"[" * 200_000: "nested too deeply", "{": "as JSON", "[]": "an object|JSON object"}
    for text, says in {**cases, "9" * 5000: "as JSON", '{"a": "\xff"}': "as JSON"}.items():
        path.write_bytes(text.encode("latin-1"))
        for read in (read_json_object, lambda path: checkpoints.read_config(path.parent)):
            with pytest.raises(CheckpointError, match=says):
                read(path)
    with pytest.raises(CheckpointError, match="as JSON"):
        read_json_object(tmp_path / "nowhere.json")
    assert read_json_object(tmp_path / "nowhere.json", absent={"a": 1}) == {"a": 1}
    assert pooling_of(tmp_path) == "mean"
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("[" * 200_000)
    with pytest.raises(CheckpointError, match="nested too deeply"):
        pooling_of(tmp_path)
    (tmp_path / MANIFEST).write_text("[" * 200_000)
    with pytest.raises(StoreError, match="is damaged"):
        load_set(tmp_path, "index")


LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 30,
    "max_position_embeddings": 40,
}


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("num_key_value_heads", ["2", -2, 0, 2.0]),
        ("num_attention_heads", [0, True]),
        ("rope_theta", ["x", None, math.nan, 10**400]),
        ("rope_scaling", ["x", [1]]),
        ("rope_parameters", ["x"]),
        ("eos_token_id", [["x"], "2", [True], 2.5]),
        ("pad_token_id", ["x", -2]),
        ("hidden_act|activation", [["silu"], None]),
        ("tie_word_embeddings", ["false", 1]),
        ("rms_norm_eps", [True]),
        ("attention_dropout", ["x"]),
    ],
)
def test_public_configurations_that_cannot_be_meant_are_refused(
    field: str, values: list[object]
) -> None:
    for value in values:
        with pytest.raises(CheckpointError, match=field):
            to_ours({**LLAMA, field.split("|")[0]: value}, {}, Path("there"))


def test_public_files_may_leave_things_out() -> None:
    values = {"num_key_value_heads": None, "pad_token_id": -1, "rope_scaling": None}
    with pytest.raises(CheckpointError, match=r"embed_tokens\.weight is missing"):  # got that far
        to_ours({**LLAMA, **values, "eos_token_id": [1, 2]}, {}, Path("there"))
