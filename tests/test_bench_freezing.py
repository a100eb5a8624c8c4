"""What freezing saves: counted as torch counts, the same losses, and every byte accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_bases
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from minirag.cli import bench_freezing
from minirag.cli.main import main
from minirag.errors import UsageError
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.objective import Part, part_loss
from minirag.finetuning.writer_run import FineTuning
from minirag.transformer import attention
from minirag.transformer.models import Decoder

FOUR = {"n_layers": 4, "d_model": 32, "n_heads": 4, "d_ff": 40}


def _run(model: Decoder, place: Path, **options: object) -> FineTuning:
    config = FineTuneConfig(epochs=1, tokens_per_batch=600, **options)  # type: ignore[arg-type]
    run = FineTuning(
        small_bases.base(model), small_bases.data("raft"), config, place, small_bases.CPU
    )
    run.fill_cache()
    return run


@pytest.mark.parametrize("shape", [{}, {"gated": True, "n_kv_heads": 2, "activation": "silu"}])
@pytest.mark.parametrize(("frozen", "cached"), [(0, False), (1, False), (3, False), (3, True)])
def test_operations_are_those_that_torch_counts(
    frozen: int, cached: bool, shape: dict[str, object], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(attention, "fused_is_faster", lambda _: False)  # all of the square
    model = small_bases.decoder(2, **{**FOUR, **shape})
    freeze = f"embeddings,0-{frozen - 1}" if frozen else ""
    run = _run(model, tmp_path, untie_head=True, freeze=freeze, cache_frozen=cached)
    part = next(iter(run.epochs.batches()))
    assert isinstance(part, Part)
    assert (part.cached is not None) == cached
    with FlopCounterMode(display=False) as counter:
        part_loss(run.model, part).backward()
    B, T = part.batch.ids.shape
    count = bench_freezing.operations(
        run.model.config, [(B, T, int((part.shares > 0).sum()))], frozen=frozen, cached=cached
    )
    assert count == counter.get_total_flops()


@pytest.fixture(scope="module")
def result() -> dict[str, object]:
    return bench_freezing.bench_freezing(
        small_bases.base(small_bases.decoder(2, **FOUR)), small_bases.data("raft"), rounds=2,
        tokens_per_batch=600,
    )  # fmt: skip


def test_losses_are_the_same_with_a_cache(result) -> None:
    assert result["loss_gap"] < 1e-6
    assert result["loss_gap_at_one_length"] == 0.0


def test_times_and_counts_are_of_whole_epochs(result, tmp_path: Path) -> None:
    run = _run(small_bases.decoder(2, **FOUR), tmp_path, untie_head=True)
    assert result["steps_per_epoch"] == run.ends[0] > 2
    assert result["frozen_layers"] == 3
    full, upper, cached = result["modes"].values()
    counts = [mode["operations_per_epoch"] for mode in (full, upper, cached)]
    shapes = bench_freezing._shapes(run)
    assert len(shapes) == run.ends[0]
    assert sum(n for _, _, n in shapes) == sum(
        int(part.batch.in_answer.sum())
        for part, _ in zip(run.epochs.batches(), shapes, strict=False)
    )
    assert counts[0] == bench_freezing.operations(run.model.config, shapes)
    for mode, count in zip((full, upper, cached), counts, strict=True):
        assert mode["predicted"] == round(counts[0] / count, 3)
        assert len(mode["seconds_per_epoch"]) == 2
        assert min(mode["seconds_per_epoch"]) > 0
    assert (full["times_faster"], full["predicted"]) == (1.0, 1.0)
    assert 1.5 < upper["predicted"] < 2.1 < 3 < cached["predicted"] < 4.1
    assert (
        full["seconds_for_cache"] == upper["seconds_for_cache"] == 0 < cached["seconds_for_cache"]
    )


def test_memory_is_that_of_what_moves(result, tmp_path: Path) -> None:
    run = _run(small_bases.decoder(2, **FOUR), tmp_path, untie_head=True, freeze="embeddings,0-2")
    full, upper, cached = (mode["memory"] for mode in result["modes"].values())
    everything = list(run.model.parameters())
    moving = [p for p in everything if p.requires_grad]
    for memory, weights in ((full, everything), (upper, moving), (cached, moving)):
        n = sum(p.numel() for p in weights)
        assert memory["weights"] == 4 * sum(p.numel() for p in everything)
        assert memory["gradients"] == 4 * n
        assert memory["optimizer"] == 8 * n + 4 * len(weights)  # and each weight's step
        assert memory["total"] == sum(n for name, n in memory.items() if name != "total")
    assert upper["activations"] < full["activations"] / 2.5
    tokens = sum(map(run.epochs.form.length, run.epochs.sequences))
    assert (upper["cache"], cached["cache"]) == (0, 4 * 32 * tokens)


def test_a_cache_changes_nothing_in_what_a_step_keeps(result, tmp_path: Path) -> None:
    """So the activations that are measured without one are those with one."""

    def kept(cached: bool) -> int:
        run = _run(
            small_bases.decoder(2, **FOUR), tmp_path, untie_head=True, freeze="embeddings,0-2",
            cache_frozen=cached,
        )  # fmt: skip
        part = next(iter(run.epochs.batches()))
        assert isinstance(part, Part)
        own = {p.untyped_storage().data_ptr() for p in run.model.parameters()}
        held: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            loss = part_loss(run.model, part)
        assert loss > 0
        return sum(held.values())

    assert kept(cached=True) == kept(cached=False)


def test_the_default_is_eight_layers_of_the_readers_kind() -> None:
    base = bench_freezing.eight_layers()
    config = base.model.config
    assert (config.n_layers, config.d_model, config.head_dim) == (8, 256, 64)
    assert config.vocab_size == base.tokenizer.vocab_size == 1024
    block = 4 * 256 * 257 + 256 * 1025 + 1024 * 257 + 4 * 256
    assert base.model.n_parameters == 8 * block + 1024 * 256 + 2 * 256


def test_too_little_to_measure_is_said() -> None:
    with pytest.raises(UsageError, match="0 rounds: give 1 or more"):
        bench_freezing.bench_freezing(small_bases.base(), small_bases.data("raft"), rounds=0)
    for model in (small_bases.decoder(n_layers=1), small_bases.encoder_decoder()):
        with pytest.raises(UsageError, match="small has no lower layers to freeze"):
            bench_freezing.bench_freezing(small_bases.base(model), small_bases.data("raft"))


def test_the_verb_prints_a_table_or_one_json_object(
    result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def measure(**how: object) -> object:
        asked.append(how)
        return result

    monkeypatch.setattr(bench_freezing, "bench_freezing", measure)
    threads = ["--threads", str(torch.get_num_threads())]
    assert main(["bench", "finetune", "--freeze", "--rounds", "2", "--json", *threads]) == 0
    command = f"minirag bench finetune --freeze --rounds 2 {' '.join(threads)}"
    assert json.loads(capsys.readouterr().out) == {
        "command": command,
        **json.loads(json.dumps(result)),
    }
    assert main(["bench", "finetune", "--freeze", "--batch-tokens", "70", *threads]) == 0
    assert [(how["rounds"], how["tokens_per_batch"]) for how in asked] == [(2, None), (3, 70)]
    lines = capsys.readouterr().out.splitlines()
    assert [line[:24].strip() for line in lines[2:5]] == list(result["modes"])
    cached = result["modes"][bench_freezing.CACHED]
    assert f"{cached['times_faster']:.2f}x" in lines[4]
    assert f"{cached['predicted']:.2f}x" in lines[4]
    assert f"{cached['memory']['activations'] / 2**20:.1f}" in lines[4]
    assert lines[-1].endswith("of one length within 0e+00")
