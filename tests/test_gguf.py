"""GGUF: reading, dequantising, and Llama's conversion, compared with gguf and transformers."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from small_gguf import (
    FORMAT_NUMBERS,
    LLAMA,
    TEMPLATE,
    WORDS,
    gguf_bytes,
    llama_arrays,
    llama_gguf,
    llama_metadata,
    string,
)

from minirag.errors import CheckpointError, DiskError
from minirag.text.tokenizer import Tokenizer
from minirag.transformer.gguf import GGUFFile
from minirag.transformer.gguf_llama import (
    convert_llama,
    llama_config_from_gguf,
    llama_tensors_from_gguf,
    tokenizer_from_gguf,
)
from minirag.transformer.quants import FORMATS, dequantize


def random_blocks(name: str, n: int, seed: int = 0) -> np.ndarray:
    """Random bytes whose half-precision scales are finite, as quantisers write them."""
    form = FORMATS[FORMAT_NUMBERS[name]]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, size=(n, form.bytes), dtype=np.uint8)
    halves = {"Q6_K": [208], "Q8_0": [0], "Q4_0": [0], "Q5_0": [0], "F16": [0]}
    starts = [] if name in ("F32", "BF16") else halves.get(name, [0, 2])
    for start in starts:
        scales = rng.normal(size=n).astype("<f2")
        blocks[:, start : start + 2] = scales.view(np.uint8).reshape(n, 2)
    if name == "F32":
        blocks = rng.normal(size=n).astype("<f4").view(np.uint8).reshape(n, 4)
    if name == "BF16":  # the upper half of a float32
        floats = rng.normal(size=n).astype("<f4").view(np.uint8).reshape(n, 4)
        blocks = np.ascontiguousarray(floats[:, 2:])
    return blocks


@pytest.mark.parametrize("name", sorted(FORMAT_NUMBERS))
def test_dequantises_as_the_gguf_package_does(name: str) -> None:
    gguf = pytest.importorskip("gguf", reason="compares with the gguf package")
    for n in (1, 7, 4097):  # more blocks than are decoded at a time
        blocks = random_blocks(name, n, seed=n)
        ours = dequantize(blocks.reshape(-1), FORMATS[FORMAT_NUMBERS[name]])
        theirs = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name]).reshape(-1)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", sorted(FORMAT_NUMBERS))
def test_block_sizes_are_the_formats_own(name: str) -> None:
    gguf = pytest.importorskip("gguf", reason="compares with the gguf package")
    kind = gguf.GGMLQuantizationType[name]
    form = FORMATS[FORMAT_NUMBERS[name]]
    assert kind.value == FORMAT_NUMBERS[name]
    assert (form.weights, form.bytes) == gguf.GGML_QUANT_SIZES[kind]


def test_dequantises_by_hand() -> None:
    """One block of each simple format, worked out on paper."""
    q = list(range(16))
    packed = bytes(low | (15 - low) << 4 for low in q)  # weights 0..15, then 15..0
    d, m = struct.pack("<e", 0.5), struct.pack("<e", -2.0)
    weights = np.array(q + q[::-1], dtype=np.float32)

    def decode(name: str, data: bytes) -> np.ndarray:
        return dequantize(np.frombuffer(data, np.uint8), FORMATS[FORMAT_NUMBERS[name]])

    np.testing.assert_array_equal(decode("Q4_0", d + packed), 0.5 * (weights - 8))
    np.testing.assert_array_equal(decode("Q4_1", d + m + packed), 0.5 * weights - 2)
    fifth = struct.pack("<I", 0b101)  # weights 0 and 2 have their fifth bit
    weights[[0, 2]] += 16
    np.testing.assert_array_equal(decode("Q5_0", d + fifth + packed), 0.5 * (weights - 16))
    np.testing.assert_array_equal(decode("Q5_1", d + m + fifth + packed), 0.5 * weights - 2)
    np.testing.assert_array_equal(
        decode("Q8_0", d + struct.pack("<32b", *range(-16, 16))), 0.5 * np.arange(-16, 16)
    )


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    path.write_bytes(llama_gguf())
    return path


def test_reads_metadata_and_tensors(small_file: Path) -> None:
    with GGUFFile(small_file) as file:
        expected = llama_metadata()
        assert list(file.metadata) == list(expected)
        for key, value in expected.items():
            if isinstance(value, float):
                value = float(np.float32(value))
            assert file.metadata[key] == value
        arrays = llama_arrays()
        assert list(file.tensors) == list(arrays)
        read = {name: file.read(name) for name in file.tensors}
    for name, array in arrays.items():  # still valid after closing: they are copies
        np.testing.assert_array_equal(read[name], array)


def test_reads_what_the_gguf_package_writes(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="lets the gguf package write the file")
    path = tmp_path / "written.gguf"
    rng = np.random.default_rng(3)
    plain = rng.normal(size=(3, 5)).astype(np.float32)
    rows = rng.normal(size=(4, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_uint8("a.u8", 255)
    writer.add_int8("a.i8", -128)
    writer.add_uint16("a.u16", 65535)
    writer.add_int16("a.i16", -32768)
    writer.add_int32("a.i32", -(2**31))
    writer.add_uint64("a.u64", 2**64 - 1)
    writer.add_int64("a.i64", -(2**63))
    writer.add_float64("a.f64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "ñandú 😀")
    writer.add_array("a.strings", ["x", "", "中"])
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_tensor("plain", plain)
    writer.add_tensor("half", rows.astype(np.float16))
    packed = gguf.quants.quantize(rows, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("rows", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile(path) as file:
        meta = file.metadata
        assert {key: value for key, value in meta.items() if key.startswith("a.")} == {
            "a.u8": 255,
            "a.i8": -128,
            "a.u16": 65535,
            "a.i16": -32768,
            "a.i32": -(2**31),
            "a.u64": 2**64 - 1,
            "a.i64": -(2**63),
            "a.f64": 0.1,
            "a.bool": True,
            "a.string": "ñandú 😀",
            "a.strings": ["x", "", "中"],
            "a.numbers": [1, -2, 3],
        }
        np.testing.assert_array_equal(file.read("plain"), plain)
        np.testing.assert_array_equal(file.read("half"), rows.astype(np.float16))
        assert np.abs(file.read("rows") - rows).max() < np.abs(rows).max() / 127
        assert file.read("rows").shape == (4, 64)


# -- untrusted input -----------------------------------------------------------------------------


def refusal(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught, GGUFFile(path):
        pass
    assert str(path) in str(caught.value)
    return str(caught.value)


def entry(name: str, dims: list[int], kind: int, offset: int) -> bytes:
    sizes = struct.pack(f"<{len(dims)}Q", *dims)
    return string(name) + struct.pack("<I", len(dims)) + sizes + struct.pack("<IQ", kind, offset)


def with_table(*entries: bytes, body: int = 64) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", 3, len(entries), 0) + b"".join(entries)
    return header + b"\0" * (-len(header) % 32) + b"\0" * body


def with_value(data: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("key") + data + b"\0" * 32


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "too short"),
        (b"GGUF", "too short"),
        (b"GGML" + bytes(40), "b'GGML'"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0) + bytes(40), "version is 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(40), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0) + bytes(40), "number of tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60) + bytes(40), "number of metadata entries"),
        (with_value(struct.pack("<I", 99)), "unknown type 99"),
        (with_value(struct.pack("<IQ", 8, 2**62)), "the file ends after"),
        (with_value(struct.pack("<IIQ", 9, 4, 2**62)), "more than the file has room for"),
        (with_value(struct.pack("<IIQ", 9, 8, 2**62)), "more than the file has room for"),
        (with_value(struct.pack("<I", 8) + string(b"\xff\xfe")), "not UTF-8"),
        (with_value(struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9), "nests arrays"),
        (with_table(entry("x", [4], 0, 0), entry("x", [4], 0, 0)), "'x' twice"),
        (with_table(entry("x", [4] * 5, 0, 0)), "5 dimensions"),
        (with_table(entry("x", [], 0, 0)), "0 dimensions"),
        (with_table(entry("x", [4, 0], 0, 0)), "(0, 4)"),
        (with_table(entry("x", [33], 2, 0)), "blocks of 32"),
        (with_table(entry("x", [4], 4, 0)), "format number 4"),
        (with_table(entry("x", [4], 0, 5)), "multiple of 32"),
        (with_table(entry("x", [17], 0, 0)), "ends after"),
        (with_table(entry("x", [4], 0, 2**63)), "ends after"),
        (with_table(entry("x", [2**62, 2**62], 0, 0)), "ends after"),
        (with_table(entry("", [4], 0, 0)), "has 0 characters"),
        (with_table(entry("x", [8], 0, 0), entry("y", [8], 0, 0)), "'x' and 'y' overlap"),
        (with_table(entry("x", [4], 0, 32), entry("y", [9], 0, 0)), "'y' and 'x' overlap"),
        (gguf_bytes({"general.alignment": 48}), "alignment is 48"),
        (gguf_bytes({"general.alignment": "x"}), "alignment is 'x'"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, data: bytes, says: str) -> None:
    assert says in refusal(tmp_path, data)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 2)
    data += (string("key") + struct.pack("<II", 4, 1)) * 2 + bytes(32)
    assert "'key' twice" in refusal(tmp_path, data)


def test_missing_files_and_tensors_are_named(tmp_path: Path, small_file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.gguf"):
        GGUFFile(tmp_path / "absent.gguf")
    with pytest.raises(CheckpointError, match="can't be opened"):
        GGUFFile(tmp_path)
    with GGUFFile(small_file) as file, pytest.raises(CheckpointError, match="'nope'"):
        file.read("nope")


def read_everything(path: Path, directory: Path) -> None:
    """All that conversion does with a file from outside, but for writing the weights."""
    with GGUFFile(path) as file:
        for name in file.tensors:
            file.read(name)
        llama_config_from_gguf(file.metadata)
        tokenizer_from_gguf(file.metadata)
        for _ in llama_tensors_from_gguf(file):
            pass


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    whole = llama_gguf()
    path = tmp_path / "cut.gguf"
    for size in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read_everything(path, tmp_path)


def header_size() -> int:
    return len(llama_gguf()) - sum(array.nbytes for array in llama_arrays().values())


def outcome_is_a_sentence(path: Path, directory: Path) -> None:
    """Reading works, or fails with the one kind of error that says why."""
    with contextlib.suppress(CheckpointError):
        read_everything(path, directory)


def test_each_flipped_bit_of_the_header_gives_nothing_but_a_sentence(tmp_path: Path) -> None:
    whole = llama_gguf()
    path = tmp_path / "flipped.gguf"
    for at in range(header_size()):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        outcome_is_a_sentence(path, tmp_path)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, header_size() - 1), st.integers(0, 255)), min_size=2, max_size=5
    )
)
def test_several_changed_bytes_give_nothing_but_a_sentence(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(llama_gguf())
    for at, value in changes:
        data[at] = value
    path = tmp_path / "changed.gguf"
    path.write_bytes(data)
    outcome_is_a_sentence(path, tmp_path)


@pytest.mark.parametrize("key", sorted(llama_metadata()))
def test_any_value_in_the_metadata_gives_nothing_but_a_sentence(key: str) -> None:
    for value in (None, True, -1, 0, 2**40, 0.5, float("inf"), "", "x", [], ["x"], [1], [[1]]):
        for read in (llama_config_from_gguf, tokenizer_from_gguf):
            with contextlib.suppress(CheckpointError):
                read({**llama_metadata(), key: value})


# -- Llama ---------------------------------------------------------------------------------------


def test_config_is_the_hubs(small_file: Path) -> None:
    config = llama_config_from_gguf(llama_metadata())
    assert config["hidden_size"] == LLAMA["d_model"]
    assert config["num_key_value_heads"] == LLAMA["n_kv_heads"]
    assert config["vocab_size"] == len(WORDS)
    assert config["rms_norm_eps"] == 1e-5  # not 9.999999747378752e-06
    assert config["rope_theta"] == 500.0
    assert config["head_dim"] == 4
    assert config["tie_word_embeddings"] is True
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"general.architecture": "qwen2"}, "'qwen2'"),
        ({"llama.expert_count": 8}, "expert_count"),
        ({"llama.rope.scaling.type": "yarn"}, "rope.scaling.type"),
        ({"llama.block_count": None}, "lacks 'llama.block_count'"),
        ({"llama.block_count": "2"}, "not a whole number"),
        ({"llama.attention.head_count": 0}, "from 1 on"),
        ({"llama.attention.head_count_kv": [1, 1]}, "from 1 on"),
        ({"llama.rope.freq_base": float("nan")}, "positive"),
        ({"llama.attention.head_count": 3}, "3 heads"),
    ],
)
def test_config_says_what_it_cannot_read(change: dict[str, object], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        llama_config_from_gguf({**llama_metadata(), **change})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokenizer.ggml.model": "llama"}, "'llama'"),
        ({"tokenizer.ggml.pre": "unheard-of"}, "'unheard-of'"),
        ({"tokenizer.ggml.pre": "default"}, "'default', which is not supported"),
        ({"tokenizer.ggml.pre": None}, "lacks 'tokenizer.ggml.pre'"),
        ({"tokenizer.ggml.tokens": None}, "lacks 'tokenizer.ggml.tokens'"),
        ({"tokenizer.ggml.tokens": ["a"] * len(WORDS)}, "twice"),
        ({"tokenizer.ggml.tokens": list(range(len(WORDS)))}, "not a list of strings"),
        ({"tokenizer.ggml.merges": ["a zz"]}, "'azz'|'zz'"),
        ({"tokenizer.ggml.token_type": [1]}, "as many"),
        ({"tokenizer.ggml.eos_token_id": 99}, "99"),
        ({"tokenizer.ggml.eos_token_id": -1}, "-1"),
        ({"tokenizer.chat_template": 5}, "chat_template"),
    ],
)
def test_tokenizer_says_what_it_cannot_read(change: dict[str, object], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        tokenizer_from_gguf({**llama_metadata(), **change})


def test_tensors_a_llama_has_not_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    names = ["rope_freqs.weight", "blk.0.attn_q.bias", "blk.x.attn_q.weight", "blk.attn_q.weight"]
    for name in (*names, "blk.00.attn_q.weight", f"blk.{'9' * 60}"):
        path.write_bytes(gguf_bytes(llama_metadata(), [(name, "F32", (4,), bytes(16))]))
        with GGUFFile(path) as file, pytest.raises(CheckpointError, match=name):
            dict(llama_tensors_from_gguf(file))
    deep = f"blk.{'9' * 5000}.attn_q.weight"  # more digits than Python makes a number of
    path.write_bytes(gguf_bytes(llama_metadata(), [(deep, "F32", (4,), bytes(16))]))
    with GGUFFile(path) as file, pytest.raises(CheckpointError, match=r"has not: 'blk\.999"):
        dict(llama_tensors_from_gguf(file))


def test_rotary_rows_come_back_in_the_hubs_order(small_file: Path) -> None:
    """Against llama.cpp's own permutation, applied to the converted rows."""
    with GGUFFile(small_file) as file:
        converted = dict(llama_tensors_from_gguf(file))
    arrays = llama_arrays()
    for part, heads in (("q", LLAMA["n_heads"]), ("k", LLAMA["n_kv_heads"])):
        ours = converted[f"model.layers.1.self_attn.{part}_proj.weight"]
        # convert_hf_to_gguf.py: LlamaModel.permute
        permuted = (
            ours.reshape(heads, 2, ours.shape[0] // heads // 2, ours.shape[1])
            .swapaxes(1, 2)
            .reshape(ours.shape)
        )
        np.testing.assert_array_equal(permuted, arrays[f"blk.1.attn_{part}.weight"])
    np.testing.assert_array_equal(
        converted["model.layers.0.mlp.down_proj.weight"], arrays["blk.0.ffn_down.weight"]
    )


def test_conversion_writes_the_hubs_layout(small_file: Path, tmp_path: Path) -> None:
    directory = tmp_path / "converted"
    directory.mkdir()
    convert_llama(small_file, directory)
    with GGUFFile(small_file) as file:
        expected = dict(llama_tensors_from_gguf(file))
        config = llama_config_from_gguf(file.metadata)
    written = load_file(directory / "model.safetensors")
    assert written.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(written[name], array)
    assert json.loads((directory / "config.json").read_text("utf-8")) == config
    tokenizer = Tokenizer.load(directory)
    assert tokenizer.encode("ab ab12<|end|>") == [5, 6, 7, 8, 0]  # digits stay single
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 0)
    assert tokenizer.chat_template == TEMPLATE


def test_weights_that_cannot_be_written_are_a_disk_error(small_file: Path, tmp_path: Path) -> None:
    directory = tmp_path / "converted"
    (directory / "model.safetensors").mkdir(parents=True)
    with pytest.raises(DiskError, match=r"could not write .*model\.safetensors"):
        convert_llama(small_file, directory)


def test_small_llama_computes_what_transformers_computes(tmp_path: Path) -> None:
    """Transformers reads the GGUF itself; its logits equal those of our conversion."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    pytest.importorskip("gguf", reason="transformers needs it to read GGUF files")
    torch = pytest.importorskip("torch")
    directory = tmp_path / "converted"
    directory.mkdir()
    (tmp_path / "small.gguf").write_bytes(llama_gguf())
    convert_llama(tmp_path / "small.gguf", directory)
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path, gguf_file="small.gguf")
    ours = transformers.LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32)
    ids = torch.arange(len(WORDS))[None]
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)
