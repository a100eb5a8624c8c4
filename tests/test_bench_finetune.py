"""Fine-tuning beside the peers: the same model, the same losses, and nothing measured otherwise."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import pytest
import small_bases
import torch

from minirag.cli import bench_finetune as bench
from minirag.cli.main import main
from minirag.errors import UsageError
from minirag.finetuning.config import Lora
from minirag.transformer import checkpoints

transformers = pytest.importorskip("transformers", reason="needs the extra 'peers'")
pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
pytest.importorskip("peft", reason="needs the extra 'peers'")

SHAPE = {"d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 40}
LORA = Lora(rank=3, alpha=7.0, targets=("query", "value", "down"))
PEERS = ("Trainer, sdpa", "Trainer, eager", "Trainer, sdpa, logits everywhere")
EVERYWHERE = PEERS[2]


def _saved(directory: Path, **options: object) -> str:
    model = small_bases.decoder(3, **{**SHAPE, **options})
    checkpoints.save(model, directory)
    small_bases.tokenizer().save(directory)
    return str(directory)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _saved(tmp_path_factory.mktemp("reader"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("llama")
    torch.manual_seed(4)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=small_bases.tokenizer().vocab_size, hidden_size=32, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, intermediate_size=40,
            max_position_embeddings=900, tie_word_embeddings=True,
            pad_token_id=small_bases.tokenizer().eos_id,  # as SmolLM2 pads: with what is learned
        )
    )  # fmt: skip
    model.save_pretrained(directory)
    small_bases.tokenizer().save(directory)
    return str(directory)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("family", ["reader", "llama"])
def test_trainer_takes_our_steps(
    family: str, lora: Lora | None, request: pytest.FixtureRequest
) -> None:
    result = bench.bench_finetune(
        request.getfixturevalue(family), lora=lora, rounds=1, steps=6, tokens_per_batch=600,
        data=small_bases.data("raft"),
    )  # fmt: skip
    assert 0 < result["logit_difference"] < 1e-5
    assert set(result["losses"]) == {"minirag", *PEERS}
    ours = result["losses"]["minirag"]
    for who in PEERS:
        assert result["losses"][who] == pytest.approx(ours, abs=2e-5)
        assert result["agreement"][who] == bench.largest_gap(ours, result["losses"][who]) > 0
        (mine,), (theirs,) = (result["of_each_round"][name] for name in ("minirag", who))
        assert result["ratio"][who] == pytest.approx(mine / theirs, rel=0.01)
    assert result["ratio_to_faster_peer"] == min(result["ratio"][who] for who in PEERS[:2])
    assert len(ours) == 5
    assert len(set(ours)) == 5  # the weights move: with them fixed, agreement would say little
    assert len(result["tokens"]) == 6
    assert all(0 < n < tokens / 2 for n, tokens in zip(result["learned"], result["tokens"],
                                                       strict=True))  # fmt: skip


def test_lower_precision_is_that_of_both(reader: str) -> None:
    result = bench.bench_finetune(
        reader, precision="bf16", rounds=1, steps=3, tokens_per_batch=600,
        data=small_bases.data("raft"),
    )  # fmt: skip
    assert result["machine"]["precision"] == "bf16 autocast"
    for who in PEERS:
        assert 1e-6 < result["agreement"][who] < 0.05  # rounded, each side in its own places


@pytest.mark.parametrize(
    "options",
    [
        {"n_layers": 3, "d_ff": 24},
        {"bias": False, "activation": "gelu_tanh", "rope_theta": 300.0, "norm_eps": 1e-3},
        {"n_kv_heads": 2, "tied": False, "activation": "relu"},
    ],
)
def test_our_decoders_are_starcoders(options: dict[str, object]) -> None:
    model = small_bases.decoder(5, **{**SHAPE, **options})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():  # norms and biases, too
            weights.add_(0.1 * torch.randn(weights.shape, generator=generator))
    ids = torch.randint(6, 400, (3, 17), generator=generator)
    for attention in ("sdpa", "eager"):
        theirs = bench.as_starcoder2("it", model, attention).eval()
        assert theirs.config._attn_implementation == attention
        with torch.no_grad():
            expected = theirs(input_ids=ids).logits
            torch.testing.assert_close(model.logits(model(ids)), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"norm": "rms"}, "they have not the same weights"),
        ({"gated": True}, "they have not the same weights"),
        ({"embedding_scale": 3.0}, "their logits differ by"),
    ],
)
def test_another_model_is_not_measured(
    options: dict[str, object], why: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"no model that computes what .*{why}"):
        bench.bench_finetune(_saved(tmp_path, **options), data=small_bases.data("raft"))


def test_only_decoders_of_known_families_are_measured(tmp_path: Path) -> None:
    checkpoints.save(small_bases.encoder_decoder(), tmp_path / "two")
    small_bases.tokenizer().save(tmp_path / "two")
    with pytest.raises(UsageError, match="two is no decoder"):
        bench.bench_finetune(str(tmp_path / "two"))
    transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=small_bases.tokenizer().vocab_size, n_embd=16, n_layer=1, n_head=2
        )
    ).save_pretrained(tmp_path / "other")
    small_bases.tokenizer().save(tmp_path / "other")
    with pytest.raises(UsageError, match="is a gpt2: give a Llama"):
        bench.bench_finetune(str(tmp_path / "other"))


@pytest.mark.parametrize("missing", ["transformers", "accelerate", "peft"])
def test_a_missing_peer_is_said(missing: str, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=f"{missing} is not installed: `pip install"):
        bench.bench_finetune(reader, lora=LORA)


def test_an_old_peer_is_not_measured(reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(transformers.modeling_utils, "slice_logits_to_keep")
    with pytest.raises(UsageError, match="can't compute logits for chosen positions"):
        bench.bench_finetune(reader)


@pytest.mark.parametrize(("rounds", "steps"), [(0, 8), (1, 2)])
def test_too_little_to_measure_is_said(rounds: int, steps: int) -> None:
    with pytest.raises(UsageError, match=f"{rounds} rounds of {steps} steps: give"):
        bench.bench_finetune("gpt-base", rounds=rounds, steps=steps)


def test_the_verb_prints_a_table_or_one_json_object(
    reader: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "reading_data", lambda _: small_bases.data("raft"))
    options = ["--model", reader, "--way", "lora", "--batch-tokens", "500", "--rounds", "2",
               "--threads", str(torch.get_num_threads()), "--json"]  # fmt: skip
    assert main(["bench", "finetune", *options]) == 0
    result = json.loads(capsys.readouterr().out)  # nothing else is printed
    assert (result["way"], result["rounds"], result["tokens_per_batch"]) == ("lora", 2, 500)
    for who, rates in result["of_each_round"].items():
        assert len(rates) == 2
        assert result["tokens_per_second"][who] == pytest.approx(statistics.median(rates), abs=1)
    lines = bench.table(result).splitlines()
    assert len(lines) == 7
    assert lines[3].startswith(f"{PEERS[0]} ")
    assert f"{result['ratio'][PEERS[0]]:.2f}x" in lines[3]
    assert f"within {result['agreement'][PEERS[0]]:.0e}" in lines[3]
    assert lines[-1] == f"ratio to the faster peer: {result['ratio_to_faster_peer']:.2f}x"


def test_what_is_measured_on_can_be_answered() -> None:
    data = bench.reading_data(6)
    questions = [question for exercise in data.train for question in exercise.questions]
    assert len(data.train) == 6
    assert questions
    assert all(question.answer for question in questions)


def test_a_public_model_takes_a_quarter_of_the_tokens(
    reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a hundred times as large."""
    taken = []

    def stop(*_: object, **__: object) -> None:
        raise InterruptedError

    class Config(bench.FineTuneConfig):
        def __post_init__(self) -> None:
            taken.append(self.tokens_per_batch)

    monkeypatch.setattr(bench, "FineTuneConfig", Config)
    monkeypatch.setattr(bench, "reading_data", stop)
    for knows in (True, False):
        monkeypatch.setattr(bench, "knows_reading", lambda _, knows=knows: knows)
        with pytest.raises(InterruptedError):
            bench.bench_finetune(reader)
    assert taken[1::2] == [4096, 1024]
