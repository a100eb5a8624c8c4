"""Muon: orthogonal steps against singular values, against torch's own, and resumed."""

import pytest
import small_bases
import torch
from torch import nn

from minirag.errors import UsageError
from minirag.finetuning.freezing import untie
from minirag.training.loop import Optimization, make_optimizer, training_steps
from minirag.training.muon import Muon, orthogonalized
from minirag.training.resume import load_run, save_run


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 24, 7), (1, 5, 40), (4, 1, 9)])
def test_directions_stay_and_lengths_become_about_one(shape: tuple[int, int, int]) -> None:
    g = torch.Generator().manual_seed(0)
    matrices = torch.randn(shape, generator=g) * torch.tensor(1e-3)
    result = orthogonalized(matrices)
    assert result.shape == matrices.shape
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    lengths = u.mT @ result @ vt.mT  # diagonal, if the directions are kept
    diagonal = lengths.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(lengths, torch.diag_embed(diagonal), atol=1e-3, rtol=0)
    assert diagonal.min() > 0.3
    assert diagonal.max() < 1.3


def test_nothing_to_go_by_gives_no_step() -> None:
    assert orthogonalized(torch.zeros(1, 4, 3)).abs().max() == 0


class _Net(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList(
            [nn.Linear(6, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 16, bias=False)]
        )
        self.head = nn.Linear(16, 11, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.table(x)
        for block in self.blocks:
            x = block(x)
        scores: torch.Tensor = self.head(x)
        return scores

    @property
    def maps(self) -> list[nn.Parameter]:
        return [self.blocks[0].weight, self.blocks[3].weight]


def _loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch), batch)


def _batches(n: int, seed: int = 3) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 11, (32,), generator=g) for _ in range(n)]


MUON = Optimization(rate=0.02, matrices="muon", weight_decay=0.3)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has no Muon")
def test_the_same_steps_as_torchs_muon_and_adamw() -> None:
    ours, theirs = _Net(0), _Net(0)
    batches = _batches(5)
    schedule = lambda step: 1 / (1 + step)  # noqa: E731
    list(training_steps(ours, batches, _loss, make_optimizer(ours, MUON), schedule, max_norm=1e9))

    muon = torch.optim.Muon(
        theirs.maps, lr=0.02, weight_decay=0.3, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    vectors = [p for p in theirs.parameters() if p.dim() == 1]
    tables = [theirs.table.weight, theirs.head.weight]
    groups = [{"params": tables, "weight_decay": 0.3}, {"params": vectors}]
    adamw = torch.optim.AdamW(groups, lr=0.02, betas=MUON.betas, weight_decay=0.0)
    for step, batch in enumerate(batches):
        for optimizer in (muon, adamw):
            for group in optimizer.param_groups:
                group["lr"] = 0.02 * schedule(step)
            optimizer.zero_grad()
        _loss(theirs, batch).backward()
        muon.step()
        adamw.step()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        # torch orthogonalizes in bfloat16
        torch.testing.assert_close(p, q, rtol=0.02, atol=2e-3, msg=name)


def _steps(weights: list[nn.Parameter], gradients: list[list[torch.Tensor]]) -> None:
    """Orthogonal steps with these gradients, at the rates 0.02, 0.01, ..."""
    groups = [{"params": weights, "orthogonal": True, "weight_decay": 0.3}]
    optimizer = Muon(groups, lr=0.02)
    for step, given in enumerate(gradients):
        optimizer.param_groups[0]["lr"] = 0.02 / (1 + step)
        for weight, gradient in zip(weights, given, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()


def test_average_nesterov_and_decay_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is orthogonalized, and what becomes of it; two matrices share a shape."""
    monkeypatch.setattr("minirag.training.muon.orthogonalized", lambda matrices: matrices)
    g = torch.Generator().manual_seed(1)
    shapes = [(4, 9), (4, 9), (16, 3)]
    gradients = [[torch.randn(shape, generator=g) for shape in shapes] for _ in range(3)]
    weights = [nn.Parameter(torch.randn(shape, generator=g)) for shape in shapes]
    expected = [weight.detach().clone() for weight in weights]
    _steps(weights, gradients)
    for place, longest in enumerate((9, 9, 16)):
        average = torch.zeros(shapes[place])
        for step, given in enumerate(gradients):
            rate, gradient = 0.02 / (1 + step), given[place]
            average = 0.95 * average + 0.05 * gradient
            ahead = 0.95 * average + 0.05 * gradient  # as if the gradient came once more
            decayed = (1 - rate * 0.3) * expected[place]
            expected[place] = decayed - rate * 0.2 * longest**0.5 * ahead
        torch.testing.assert_close(weights[place].detach(), expected[place], rtol=1e-6, atol=1e-6)


def test_without_a_gradient_a_weight_decays_and_nothing_else() -> None:
    weight = nn.Parameter(torch.randn(5, 8, generator=torch.Generator().manual_seed(1)))
    before = weight.detach().clone()
    _steps([weight], [[torch.zeros(5, 8)]])
    assert torch.equal(weight, before * (1 - 0.02 * 0.3))


def test_tables_heads_and_vectors_are_adamws() -> None:
    model = _Net(0)
    optimizer = make_optimizer(model, MUON)
    groups = {True: [], False: []}
    for group in optimizer.param_groups:
        groups[group["orthogonal"]] += map(id, group["params"])
    assert groups[True] == [id(p) for p in model.maps]
    everything = [id(p) for p in model.parameters()]
    assert sorted(groups[True] + groups[False]) == sorted(everything)


def test_an_untied_head_is_adamws_and_a_tied_model_is_moved_as_before() -> None:
    model = small_bases.decoder()
    names = {id(p): name for name, p in model.named_parameters()}

    def muons() -> set[str]:
        groups = make_optimizer(model, MUON).param_groups
        return {names[id(p)] for group in groups if group["orthogonal"] for p in group["params"]}

    matrices = {name for name, p in model.named_parameters() if p.dim() == 2}
    assert muons() == matrices - {"tower.embeddings.token.weight"}
    untie(model)
    names[id(model.head.matrix.weight)] = "head.matrix.weight"
    assert muons() == matrices - {"tower.embeddings.token.weight"}


def test_optimizers_that_there_are_not_are_refused() -> None:
    with pytest.raises(UsageError, match="the optimizer is 'sgd': give one of adamw, muon"):
        Optimization(matrices="sgd")


def test_a_frozen_matrix_stays_and_has_no_state() -> None:
    model = _Net(0)
    frozen = model.maps[0].requires_grad_(False)
    before = frozen.clone()
    optimizer = make_optimizer(model, MUON)
    list(training_steps(model, _batches(3), _loss, optimizer, lambda _: 1.0))
    assert torch.equal(before, frozen)
    assert frozen not in optimizer.state


def test_a_resumed_run_takes_the_same_steps(tmp_path) -> None:
    whole = _Net(0)
    optimizer = make_optimizer(whole, MUON)
    list(training_steps(whole, _batches(4), _loss, optimizer, lambda _: 1.0))
    save_run(tmp_path, whole, optimizer, {"step": 4})
    rest = _batches(4, seed=4)
    list(training_steps(whole, rest, _loss, optimizer, lambda _: 1.0))

    half = _Net(9)
    again = make_optimizer(half, MUON)
    assert load_run(tmp_path, half, again) == {"step": 4}
    list(training_steps(half, rest, _loss, again, lambda _: 1.0))
    for p, q in zip(whole.parameters(), half.parameters(), strict=True):
        assert torch.equal(p, q)


def test_it_lowers_the_loss() -> None:
    model = _Net(0)
    steps = list(
        training_steps(model, _batches(60), _loss, make_optimizer(model, MUON), lambda _: 1.0)
    )
    assert steps[-1].loss < 0.5 * steps[0].loss
