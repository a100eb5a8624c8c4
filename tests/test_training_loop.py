"""The loop, its schedule, its optimizer, and resumption: values against written-out references."""

from __future__ import annotations

import itertools
import math

import pytest
import safetensors.torch
import torch
from torch import nn

from minirag.errors import CheckpointError, StoreError, TrainingError, UsageError
from minirag.training import resume
from minirag.training.loop import Optimization, make_optimizer, training_steps
from minirag.training.resume import difference, load_run, read_run, save_run
from minirag.training.schedules import Schedule


def _net(seed: int, dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(5, 7), nn.LayerNorm(7), nn.Dropout(dropout), nn.GELU(), nn.Linear(7, 3)
        )


def _batches(n: int, seed: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(11, 5, generator=generator) for _ in range(n)]


def _loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return (model(batch) - batch[:, :3].sin()).square().mean()


# ------------------------------------------------------------------------------------- schedules


def test_schedule_values_against_the_formula() -> None:
    schedule = Schedule(total_steps=110, warmup_steps=10, decay_share=0.4, floor=0.1)
    assert [schedule(step) for step in range(3)] == [0.1, 0.2, 0.3]
    assert schedule(9) == 1.0
    assert schedule(70) == 1.0  # 60 steps of plateau after the warm-up
    half = 0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2
    assert schedule(90) == pytest.approx(half)
    assert schedule(100) == pytest.approx(0.1 + 0.9 * (1 + math.cos(0.75 * math.pi)) / 2)
    assert schedule(110) == pytest.approx(0.1)
    assert schedule(5000) == pytest.approx(0.1)


def test_schedule_agrees_with_torchs_cosine() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=37)
    schedule = Schedule(total_steps=37)
    for step in range(37):
        assert schedule(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        reference.step()


def test_linear_schedule_and_a_plateau_that_does_not_depend_on_the_length() -> None:
    linear = Schedule(total_steps=20, shape="linear")
    assert [linear(s) for s in (0, 5, 10, 20)] == [1.0, 0.75, 0.5, 0.0]
    short, long = (Schedule(n, warmup_steps=7, decay_share=0.25) for n in (100, 9000))
    assert [short(s) for s in range(70)] == [long(s) for s in range(70)]


def test_without_a_decay_the_rate_stays_after_the_last_step() -> None:
    constant = Schedule(total_steps=10, decay_share=0.0)
    assert [constant(step) for step in (0, 9, 10, 11, 500)] == [1.0] * 5


@pytest.mark.parametrize(
    "wrong",
    [{"total_steps": 0}, {"warmup_steps": -1}, {"decay_share": 1.5}, {"floor": -0.1}],
)
def test_schedules_that_cannot_be_meant_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Schedule(**{"total_steps": 10, **wrong})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ loop


def test_the_loop_is_clip_and_adamw_written_out() -> None:
    """Adam's two averages, their correction and the decoupled decay, by hand (Algorithm 2)."""
    how = Optimization(rate=0.02, betas=(0.8, 0.9), weight_decay=0.3)
    model, reference = _net(0), _net(0)
    batches = _batches(6)
    schedule = Schedule(total_steps=6, warmup_steps=2)
    list(training_steps(model, batches, _loss, make_optimizer(model, how), schedule, max_norm=0.05))
    weights = list(reference.parameters())
    first = [torch.zeros_like(w) for w in weights]
    second = [torch.zeros_like(w) for w in weights]
    for step, batch in enumerate(batches):
        gradients = torch.autograd.grad(_loss(reference, batch), weights)
        norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(())))
        assert norm > 0.05  # else this test would not notice a missing clip
        scale, rate = 0.05 / (norm + 1e-6), 0.02 * schedule(step)
        with torch.no_grad():
            for w, g, m, v in zip(weights, gradients, first, second, strict=True):
                g = g * scale
                m.mul_(0.8).add_(0.2 * g)
                v.mul_(0.9).add_(0.1 * g * g)
                decay = 0.3 if w.dim() >= 2 else 0.0
                w.mul_(1 - rate * decay)
                corrected = (v / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8
                w.sub_(rate * (m / (1 - 0.8 ** (step + 1))) / corrected)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_steps_report_what_happened() -> None:
    model = _net(0)
    batches = _batches(3)
    before = _loss(model, batches[0]).item()
    steps = list(
        training_steps(
            model,
            batches,
            _loss,
            make_optimizer(model, Optimization(rate=0.5)),
            lambda step: 0.1 * step,
            first_step=4,
        )
    )
    assert [s.number for s in steps] == [4, 5, 6]
    assert [s.rate for s in steps] == pytest.approx([0.2, 0.25, 0.3])
    assert steps[0].loss == before


def test_weight_decay_only_on_matrices_and_frozen_weights_left_out() -> None:
    model = _net(0)
    model[0].weight.requires_grad_(False)
    optimizer = make_optimizer(model, Optimization(weight_decay=0.7))
    matrices, vectors = optimizer.param_groups
    assert matrices["weight_decay"] == 0.7
    assert vectors["weight_decay"] == 0.0
    assert [id(p) for p in matrices["params"]] == [id(model[4].weight)]
    expected = {id(model[0].bias), id(model[1].weight), id(model[1].bias), id(model[4].bias)}
    assert {id(p) for p in vectors["params"]} == expected


def test_nothing_to_train_is_said() -> None:
    model = _net(0).requires_grad_(False)
    with pytest.raises(TrainingError, match="frozen"):
        make_optimizer(model, Optimization())


def test_a_loss_that_is_no_number_stops_before_it_does_harm() -> None:
    model = _net(0)
    batches = _batches(4)
    batches[2] = batches[2] * float("nan")
    steps = training_steps(
        model, batches, _loss, make_optimizer(model, Optimization()), lambda _: 1.0
    )
    next(steps), next(steps)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(TrainingError, match=r"step 2: the loss is nan"):
        next(steps)
    for now, then in zip(model.parameters(), before, strict=True):
        assert torch.equal(now, then)


# ---------------------------------------------------------------------------------------- resume


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, n: int) -> list[float]:
    batches = itertools.islice(_batches(12), first, first + n)
    schedule = Schedule(12, warmup_steps=3)
    steps = training_steps(model, batches, _loss, optimizer, schedule, first_step=first)
    return [step.loss for step in steps]


def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(tmp_path) -> None:
    """With dropout, so that the random state counts, and in a fresh model and optimizer."""
    torch.manual_seed(5)
    whole = _net(1, dropout=0.3)
    losses = _train(whole, make_optimizer(whole, Optimization()), 0, 12)

    torch.manual_seed(5)
    model = _net(1, dropout=0.3)
    optimizer = make_optimizer(model, Optimization())
    first = _train(model, optimizer, 0, 5)
    save_run(tmp_path, model, optimizer, {"step": 5})
    torch.manual_seed(99)  # whatever another process would have

    model = _net(2, dropout=0.3)
    optimizer = make_optimizer(model, Optimization())
    run = load_run(tmp_path, model, optimizer)
    assert run == {"step": 5} == read_run(tmp_path)
    assert first + _train(model, optimizer, 5, 7) == losses
    for resumed, uninterrupted in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(resumed, uninterrupted)


def test_nothing_of_a_resumed_run_is_a_part_of_its_file(tmp_path, monkeypatch) -> None:
    """A file that something is mapped to can't be removed on Windows."""
    model = _net(1)
    optimizer, read = make_optimizer(model, Optimization()), list[torch.Tensor]()
    _train(model, optimizer, 0, 2)
    save_run(tmp_path, model, optimizer, {})

    def load_file(path):
        read.extend((tensors := safetensors.torch.load_file(path)).values())
        return tensors

    monkeypatch.setattr(resume, "load_file", load_file)
    load_run(tmp_path, model, optimizer)
    places = {tensor.data_ptr() for tensor in read}
    state = [t for entries in optimizer.state.values() for t in entries.values()]
    assert state
    assert places.isdisjoint(t.data_ptr() for t in [*state, *model.parameters()])


def test_buffers_belong_to_a_run_and_a_checkpoint_without_them_can_be_read(
    tmp_path, monkeypatch
) -> None:
    def net(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Sequential(_net(seed), nn.BatchNorm1d(3))
        model.register_buffer("computed", torch.tensor(float(seed)), persistent=False)
        return model, make_optimizer(model, Optimization())

    model, optimizer = net(0)
    _train(model, optimizer, 0, 2)
    save_run(tmp_path, model, optimizer, {})
    again, other = net(1)
    load_run(tmp_path, again, other)
    assert model[1].running_mean.abs().max() > 0
    assert torch.equal(again[1].running_mean, model[1].running_mean)
    assert again.computed == 1
    assert _train(again, other, 2, 3) == _train(model, optimizer, 2, 3)
    with monkeypatch.context() as patched:  # as an older minirag saved it
        patched.setattr(resume, "_buffers", lambda _: {})
        save_run(tmp_path, model, optimizer, {})
    again, other = net(1)
    load_run(tmp_path, again, other)
    assert torch.equal(again[0][0].weight, model[0][0].weight)
    assert (again[1].running_mean == 0).all()


def test_on_a_gpu_its_own_random_state_is_kept(monkeypatch) -> None:
    """Without a GPU: what is asked of torch, and what of an older checkpoint is not."""
    put: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([device.index]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *given: put.append(given))
    gpu = torch.device("cuda", 3)
    state = resume._random_state(gpu)
    resume._set_random_state(state, gpu)
    assert put == [(state["cuda_random_state"], gpu)]
    assert state["cuda_random_state"].tolist() == [3]
    old = resume._random_state(torch.device("cpu"))
    assert list(old) == ["random_state"]
    resume._set_random_state(old, gpu)
    assert len(put) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_resumed_run_on_a_gpu_draws_the_same(tmp_path) -> None:
    def net(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = _net(seed, dropout=0.3).cuda()
        return model, make_optimizer(model, Optimization())

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, n: int):
        batches = [batch.cuda() for batch in _batches(12)[first : first + n]]
        loss = training_steps(model, batches, _loss, optimizer, lambda _: 1.0, first_step=first)
        return [step.loss for step in loss]

    model, optimizer = net(0)
    train(model, optimizer, 0, 3)
    save_run(tmp_path, model, optimizer, {})
    losses = train(model, optimizer, 3, 5)
    torch.manual_seed(99)
    again, other = net(1)
    load_run(tmp_path, again, other)
    assert train(again, other, 3, 5) == pytest.approx(losses, rel=1e-5)


def test_what_two_recipes_differ_in_can_be_gone() -> None:
    assert difference({"a": 1, "b": 2}, {"a": 1, "b": 3}) == "b: 2 then, 3 now"
    assert difference({"a": 1, "gone": 2}, {"a": 1}) == "gone: 2 then, nothing now"
    assert difference({"a": 1}, {"a": 1, "new": None}) == "new: nothing then, None now"
    assert difference(3, 4) == "3 then, 4 now"


def test_a_checkpoint_of_another_model_or_a_damaged_one_is_refused(tmp_path) -> None:
    model = _net(0)
    optimizer = make_optimizer(model, Optimization())
    _train(model, optimizer, 0, 1)
    save_run(tmp_path, model, optimizer, {})
    other = nn.Sequential(nn.Linear(5, 6))
    with pytest.raises(CheckpointError, match=r"0\.weight has shape \(6, 5\) here, \(7, 5\)"):
        load_run(tmp_path, other, make_optimizer(other, Optimization()))
    state = next(tmp_path.glob("state-*.safetensors"))
    data = bytearray(state.read_bytes())
    data[-3] ^= 1
    state.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        load_run(tmp_path, model, optimizer)
