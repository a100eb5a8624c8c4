"""Our blocks against transformers' models: same random weights, same numbers, same tokens."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from minirag.errors import CheckpointError
from minirag.transformer import checkpoints
from minirag.transformer.generation import Sampling, generate
from minirag.transformer.models import Decoder, Encoder, EncoderDecoder

transformers = pytest.importorskip("transformers", reason="needs the extra 'peers'")

LENGTHS = [1, 7, 13, 30]  # odd, different, the shortest possible
V = 97


def _public(family: str) -> transformers.PreTrainedModel:
    torch.manual_seed(sum(map(ord, family)))
    tied = not family.endswith("-untied")
    if family in ("bert", "bert-untied"):
        config = transformers.BertConfig(
            vocab_size=V,
            hidden_size=36,
            num_hidden_layers=3,
            num_attention_heads=3,
            intermediate_size=50,
            max_position_embeddings=40,
            tie_word_embeddings=tied,
        )
        model = transformers.BertForMaskedLM(config)
    elif family == "bert-body":
        config = transformers.BertConfig(
            vocab_size=V,
            hidden_size=36,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=50,
            max_position_embeddings=40,
        )
        model = transformers.BertModel(config)
    elif family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=V,
            n_embd=36,
            n_layer=3,
            n_head=3,
            n_positions=60,
            bos_token_id=1,
            eos_token_id=2,
        )
        model = transformers.GPT2LMHeadModel(config)
    elif family in ("llama", "llama-untied"):
        config = transformers.LlamaConfig(
            vocab_size=V,
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            intermediate_size=70,
            max_position_embeddings=60,
            rope_theta=5000.0,
            tie_word_embeddings=tied,
        )
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.BartConfig(
            vocab_size=V,
            d_model=36,
            encoder_layers=2,
            decoder_layers=3,
            encoder_attention_heads=3,
            decoder_attention_heads=3,
            encoder_ffn_dim=50,
            decoder_ffn_dim=50,
            max_position_embeddings=60,
            forced_eos_token_id=None,
            scale_embedding=True,
            tie_word_embeddings=tied,
        )
        model = transformers.BartForConditionalGeneration(config)
        model.final_logits_bias = torch.randn(1, V)
        for tower in (model.model.encoder, model.model.decoder):
            tower.embed_tokens.weight = model.model.shared.weight  # ours has one, tied or not
    with torch.no_grad():  # biases and norms too: zeros and ones would hide mistakes
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(3)
    return model.eval()


FAMILIES = [
    "bert", "bert-untied", "bert-body", "gpt2", "llama", "llama-untied", "bart", "bart-untied",
]  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, transformers.PreTrainedModel, checkpoints.AnyModel]:
    theirs = _public(request.param)
    directory = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(directory)
    return request.param, theirs, checkpoints.load(directory)


def _batch(side: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    T = max(LENGTHS)
    ids = torch.randint(3, V, (len(LENGTHS), T), generator=generator)
    lengths = torch.tensor(LENGTHS)[:, None]
    place = torch.arange(T)[None, :]
    keep = place < lengths if side == "right" else place >= T - lengths
    return ids.masked_fill(~keep, 1), keep


def _theirs_one_by_one(model: transformers.PreTrainedModel, row: Tensor) -> tuple[Tensor, Tensor]:
    """Last hidden state and logits of one unpadded row, the plainest call there is."""
    kind = type(model).__name__
    with torch.inference_mode():
        if kind == "BartForConditionalGeneration":
            out = model(input_ids=row, decoder_input_ids=row.flip(1), output_hidden_states=True)
            return out.decoder_hidden_states[-1], out.logits
        out = model(input_ids=row, output_hidden_states=True)
        return out.hidden_states[-1], out.logits if hasattr(out, "logits") else torch.zeros(0)


def _ours(model: checkpoints.AnyModel, ids: Tensor, keep: Tensor | None, flip: bool = True):
    with torch.inference_mode():
        if isinstance(model, EncoderDecoder):
            memory = model.encode(ids, keep)
            target = ids.flip(1) if flip else ids
            states = model(target, memory, keep, None if keep is None else keep.flip(1))
        else:
            states = model(ids, keep)
        logits = torch.zeros(0)
        if not (isinstance(model, Encoder) and model.head is None):
            logits = model.logits(states)
        return states, logits


@pytest.mark.parametrize("side", ["left", "right"])
def test_states_and_logits_equal_transformers_whatever_the_padding(pair, side: str) -> None:
    _, theirs, ours = pair
    ids, keep = _batch(side)
    states, logits = _ours(ours, ids, keep)
    for row in range(len(LENGTHS)):
        real = keep[row]
        expected_states, expected_logits = _theirs_one_by_one(theirs, ids[row][real][None])
        # The target of an encoder-decoder is the flipped source; its padding is flipped too.
        place = real.flip(0) if isinstance(ours, EncoderDecoder) else real
        torch.testing.assert_close(states[row][place], expected_states[0], atol=1e-5, rtol=0)
        if logits.numel():
            torch.testing.assert_close(logits[row][place], expected_logits[0], atol=1e-5, rtol=1e-5)


def test_unpadded_equals_padded(pair) -> None:
    _, _, ours = pair
    ids, keep = _batch("left")
    states, _ = _ours(ours, ids, keep)
    for row, length in enumerate(LENGTHS):
        alone, _ = _ours(ours, ids[row : row + 1, -length:], None)
        shift = slice(0, length) if isinstance(ours, EncoderDecoder) else slice(-length, None)
        torch.testing.assert_close(states[row, shift], alone[0], atol=1e-5, rtol=0)


# Not BART: transformers gives its encoder no positions, so that left padding shifts them.
@pytest.mark.parametrize("pair", ["bert", "gpt2", "llama"], indirect=True)
def test_left_padded_batch_equals_transformers_batch(pair) -> None:
    _, theirs, ours = pair
    ids, keep = _batch("left")
    positions = (keep.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        out = theirs(
            input_ids=ids,
            attention_mask=keep.long(),
            position_ids=positions,
            output_hidden_states=True,
        )
    states, _ = _ours(ours, ids, keep)
    torch.testing.assert_close(states[keep], out.hidden_states[-1][keep], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "pair", ["gpt2", "llama", "llama-untied", "bart", "bart-untied"], indirect=True
)
@pytest.mark.parametrize("end", [True, False])
def test_greedy_generation_gives_transformers_tokens(pair, end: bool) -> None:
    _, theirs, ours = pair
    if not end:
        ours.config = dataclasses.replace(ours.config, eos_ids=())
    generator = torch.Generator().manual_seed(11)
    prompts = [
        torch.randint(3, V, (int(n),), generator=generator).tolist()
        for n in torch.randint(1, 30, (20,), generator=generator)
    ]
    results = generate(ours, prompts, Sampling(max_new_tokens=24))
    for prompt, result in zip(prompts, results, strict=True):
        with torch.inference_mode():
            row = torch.tensor([prompt])
            expected = theirs.generate(
                row,
                attention_mask=torch.ones_like(row),
                do_sample=False,
                num_beams=1,
                max_new_tokens=24,
                eos_token_id=theirs.config.eos_token_id if end else None,
                pad_token_id=0,
            )[0].tolist()
        new = expected[1:] if isinstance(ours, EncoderDecoder) else expected[len(prompt) :]
        if end and new and new[-1] == theirs.config.eos_token_id:
            new = new[:-1]
        assert result.ids == new


def test_saved_in_our_layout_and_loaded_again_is_the_same(pair, tmp_path: Path) -> None:
    _, _, ours = pair
    checkpoints.save(ours, tmp_path)
    again = checkpoints.load(tmp_path)
    assert again.config == ours.config
    assert again.n_parameters == ours.n_parameters
    for (name, a), (_, b) in zip(ours.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    ids, keep = _batch("right")
    assert torch.equal(_ours(ours, ids, keep)[0], _ours(again, ids, keep)[0])


def _edit(directory: Path, change) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


@pytest.fixture
def gpt2_directory(tmp_path: Path) -> Path:
    _public("gpt2").save_pretrained(tmp_path)
    return tmp_path


def test_missing_tensor_is_named(gpt2_directory: Path) -> None:
    _edit(gpt2_directory, lambda t: t.pop("transformer.h.1.mlp.c_fc.bias"))
    with pytest.raises(CheckpointError, match=r"the tensor h\.1\.mlp\.c_fc\.bias is missing"):
        checkpoints.load(gpt2_directory)


def test_unexpected_tensor_is_named(gpt2_directory: Path) -> None:
    _edit(gpt2_directory, lambda t: t.update({"transformer.extra": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match="unexpected tensor extra"):
        checkpoints.load(gpt2_directory)


def test_wrong_shape_is_named(gpt2_directory: Path) -> None:
    _edit(gpt2_directory, lambda t: t.update({"transformer.ln_f.weight": torch.zeros(35)}))
    with pytest.raises(CheckpointError, match=r"final_norm\.weight has shape \(35,\).*\(36,\)"):
        checkpoints.load(gpt2_directory)


@pytest.mark.parametrize(
    ("part", "shape"), [("c_attn.bias", (1,)), ("c_attn.bias", ()), ("c_proj.weight", (1, 1, 1))]
)
def test_shapes_that_cannot_be_converted_are_named(
    gpt2_directory: Path, part: str, shape: tuple[int, ...]
) -> None:
    name = f"transformer.h.0.attn.{part}"
    _edit(gpt2_directory, lambda t: t.update({name: torch.zeros(shape)}))
    with pytest.raises(CheckpointError, match=rf"{part} has the impossible shape"):
        checkpoints.load(gpt2_directory)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "mamba"}, "model_type = 'mamba'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"activation_function": "swish9"}, "activation 'swish9'"),
        ({"n_embd": "many"}, "n_embd = 'many'"),
        ({"n_layer": 10**9}, "n_layers is 1000000000"),
        ({"n_head": 5}, "can't be split evenly"),
    ],
)
def test_configurations_that_cannot_be_run_are_refused(
    gpt2_directory: Path, change: dict[str, object], sentence: str
) -> None:
    path = gpt2_directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=sentence):
        checkpoints.load(gpt2_directory)


def test_untied_token_embeddings_that_differ_are_refused(tmp_path: Path) -> None:
    model = _public("bart-untied")
    weight = model.model.shared.weight.detach()
    model.model.decoder.embed_tokens.weight = torch.nn.Parameter(weight + 1)
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"decoder\.embed_tokens\.weight differs from shared"):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "attention_probs_dropout_prob"),
        ("gpt2", "attn_pdrop"),
        ("bart", "attention_dropout"),
    ],
)
def test_attention_has_the_dropout_of_the_file(tmp_path: Path, family: str, name: str) -> None:
    _public(family).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: 0.25}))
    config = checkpoints.load(tmp_path).config
    assert (config.dropout, config.attention_dropout) == (0.1, 0.25)


def test_damaged_weights_are_refused(gpt2_directory: Path) -> None:
    path = gpt2_directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load(gpt2_directory)


def test_decoder_is_the_type_of_a_llama(pair) -> None:
    family, _, ours = pair
    expected = {"bert": Encoder, "bart": EncoderDecoder}
    assert type(ours) is expected.get(family.split("-")[0], Decoder)
