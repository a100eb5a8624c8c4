"""The five claims about fine-tuning: their rules, their choice of a rate, and a run in small."""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_bases
import torch

from minirag.combination.claims import adapting, claims_named, scoring
from minirag.combination.claims import f1_pretrained as f1
from minirag.combination.claims import f2_rate as f2
from minirag.combination.claims import f3_freezing as f3
from minirag.combination.claims import f4_adaptation as f4
from minirag.combination.claims import f5_forgetting as f5
from minirag.combination.claims import x2_too_large as x2
from minirag.combination.claims.adapting import RATES, TINY, Fitting, Training
from minirag.combination.ledger import changed, run_claim
from minirag.combination.seeds import question_seed
from minirag.combination.workbench import Workbench
from minirag.corpus.dice import Dice
from minirag.corpus.questions import ReadingExercise
from minirag.errors import DataError
from minirag.finetuning import freezing
from minirag.finetuning.batches import encode
from minirag.finetuning.config import LaboratoryData, Lora
from minirag.finetuning.laboratory import laboratory_data
from minirag.finetuning.lora import add_lora
from minirag.finetuning.memory import step_memory
from minirag.finetuning.objective import Part, part_loss, share_out
from minirag.intervals import wilson_interval
from minirag.training.batches import cut_into_batches
from minirag.training.evaluate_reading import answer_exercises
from minirag.transformer import checkpoints
from minirag.transformer.models import Decoder


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path / "work", small_bases.CPU)


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base with random weights, as files."""
    directory = tmp_path_factory.mktemp("small-base")
    checkpoints.save(small_bases.decoder(), directory)
    small_bases.tokenizer().save(directory)
    return str(directory)


@pytest.fixture(scope="module")
def tiny(small_base: str) -> Fitting:
    return Fitting(**TINY, models=(small_base,))


def _outcome(domain: list[int], general: list[int] = [1], asked: str = "a", **more: Any) -> dict:  # noqa: B006
    return {
        "domain": {"en/medicine, 3 passages": domain[:2], "es/medicine, 3 passages": domain[2:],
                   "en/medicine, unanswerable, 3 passages": [1, 0, 0]},
        "general": {"en/1 passage": general},
        "asked": asked,
        **more,
    }  # fmt: skip


# ---------------------------------------------------------------------------------- scores, pairs


def test_refusals_are_told_apart() -> None:
    outcome = _outcome([1, 0, 1, 1], [0, 1, 1])
    assert scoring.domain(outcome) == [1, 0, 1, 1]
    assert scoring.refusing(outcome) == [1, 0, 0]
    assert scoring.general(outcome) == [0, 1, 1]
    cell = scoring.spread([outcome, _outcome([0, 0, 0, 1])])
    assert (cell["score"][0], cell["by seed"], cell["n"]) == (0.5, [0.75, 0.25], 4)


def test_scores_are_paired_question_by_question() -> None:
    """A shift that every question shares is certain, however different the questions are."""
    low = [_outcome([0, 0, 0, 0]), _outcome([0, 0, 0, 0], asked="b")]
    high = [_outcome([1, 1, 1, 1]), _outcome([1, 1, 1, 1], asked="b")]
    assert tuple(scoring.difference(high, low)) == (1.0, 1.0, 1.0)
    rng = np.random.default_rng(0)
    scores = rng.integers(2, size=(3, 2, 5))  # term, seed, question
    terms = [
        (weight, [_outcome(list(map(int, run)), asked=str(seed)) for seed, run in enumerate(some)])
        for weight, some in zip((1.0, -0.8, -0.2), scores, strict=True)
    ]
    value = scoring.combination(terms)
    per_question = np.tensordot([1.0, -0.8, -0.2], scores, axes=1)  # (seed, question)
    assert value.value == pytest.approx(per_question.mean())
    resampled = [
        np.mean([rng.choice(per_question[seed], 5).mean() for seed in rng.integers(2, size=2)])
        for _ in range(4000)
    ]
    assert value.low == pytest.approx(np.quantile(resampled, 0.025), abs=0.06)
    assert value.high == pytest.approx(np.quantile(resampled, 0.975), abs=0.06)


def test_a_fact_asked_for_in_two_languages_is_drawn_once() -> None:
    """Both languages alike say no more than one of them does."""
    rng = np.random.default_rng(1)
    marks = [list(map(int, rng.integers(2, size=60))) for _ in range(3)]

    def outcome(some: list[int], languages: str) -> dict[str, Any]:
        tests = {f"{language}/medicine, no passage": some for language in languages.split()}
        return {"domain": tests, "asked": "a"}

    one, both = (
        scoring.spread([outcome(some, languages) for some in marks])
        for languages in ("en", "en es")
    )
    assert (one["n"], both["n"]) == (60, 120)
    assert both["score"] == pytest.approx(one["score"], abs=0.005)
    zeros = [outcome([0] * 60, "en es")] * 3
    assert scoring.spread(zeros)["score"] == scoring.rounded(wilson_interval(0, 180))


def test_a_training_is_done_again_in_other_words(
    bench: Workbench, tiny: Fitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    monkeypatch.setattr(adapting, "_train", lambda what, machine: done.append(what) or {})
    what = adapting.training(tiny, 301, 1e-3)
    for words in ("a", "a", "b"):
        monkeypatch.setattr(adapting, "wordings", lambda: words)  # noqa: B023
        adapting.train(bench, tiny, what)
    assert len(done) == 2


def test_other_questions_are_not_paired() -> None:
    with pytest.raises(DataError, match=r"asked different questions.*same seeds"):
        scoring.difference([_outcome([1, 1])], [_outcome([1, 1], asked="b")])


# ------------------------------------------------------------------------------------------- rates


def _choose(
    monkeypatch: pytest.MonkeyPatch,
    scores: Callable[[float], tuple[int, float]],
    settings: Fitting | None = None,
) -> tuple[float, list[float]]:
    settings, tried = settings or Fitting(), []

    def train(bench: Any, settings: Any, what: Training) -> dict[str, Any]:
        assert what.data.world_seed == what.config.seed in settings.development
        tried.append(what.config.rate)
        right, loss = scores(what.config.rate)
        return _outcome([1] * right + [0] * (10 - right), loss=loss, surprise={"en/texts": [loss]})

    monkeypatch.setattr(adapting, "train", train)
    choice = adapting.best_rate(
        None, settings, lambda seed, rate: adapting.training(settings, seed, rate)
    )  # type: ignore[arg-type]
    assert choice.as_json()["rate"] == choice.rate
    return choice.rate, tried


def test_the_best_rate_lies_between_two_that_are_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = {2e-4: (3, 1.0), 6e-4: (5, 1.0), 2e-3: (4, 1.0)}
    assert _choose(monkeypatch, inside.__getitem__) == (6e-4, [2e-4, 6e-4, 2e-3])
    rising = {2e-4: 1, 6e-4: 2, 2e-3: 3, 6e-3: 5, 2e-2: 4}
    best, tried = _choose(monkeypatch, lambda rate: (rising[rate], 1.0))
    assert (best, tried) == (6e-3, [2e-4, 6e-4, 2e-3, 6e-3, 2e-2])
    falling = {2e-5: 6, 6e-5: 5, 2e-4: 4, 6e-4: 2, 2e-3: 1}
    best, tried = _choose(monkeypatch, lambda rate: (falling[rate], 1.0))
    assert (best, tried[3:]) == (2e-5, [6e-5, 2e-5])  # the end of the grid
    # none answers anything: the lower loss is better
    assert _choose(monkeypatch, lambda rate: (0, abs(rate - 6e-4)))[0] == 6e-4


def test_texts_are_judged_by_how_little_they_surprise(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Fitting(data=LaboratoryData(way="pretraining"))
    # right answers would say otherwise
    best, _ = _choose(monkeypatch, lambda rate: (int(rate < 6e-4), abs(rate - 2e-3)), settings)
    assert best == 2e-3


# ------------------------------------------------------------------------------------------- rules


def test_f1_holds_where_the_interval_lies_above_0() -> None:
    assert f1.judge({"a": True, "b": True}) == ("holds", "")
    assert f1.judge({"there is 10% of the data": True, "b": False}) == (
        "holds only when", "there is 10% of the data"
    )  # fmt: skip
    assert f1.judge({"a": False, "b": False}) == ("does not hold", "")


@pytest.mark.parametrize(
    ("gained", "kept_low", "says"),
    [
        ((0.02, 0.1), -0.5, "holds"),  # better in the domain, whatever it forgets
        ((-0.02, 0.1), 0.01, "holds"),  # as good, and forgets less
        ((-0.02, 0.1), -0.01, "does not hold"),  # as good in all respects
        ((-0.2, -0.1), 0.01, "holds only when"),
        ((-0.2, -0.1), -0.01, "does not hold"),
    ],
)
def test_f2_weighs_the_domain_first(
    gained: tuple[float, float], kept_low: float, says: str
) -> None:
    assert f2.judge(*gained, kept_low)[0] == says


def test_f3_asks_for_gain_memory_and_generality() -> None:
    everything = {"memory": {"gradients": 10, "activations": 10}}
    row = {
        "gain beyond the bound": [0.2, 0.01, 0.3],
        "general beside all layers": [0.2, 0.01, 0.3],
        "memory": {"gradients": 9, "activations": 10},
    }
    assert f3.is_good(row, everything)
    assert not f3.is_good({**row, "gain beyond the bound": [0.2, -0.01, 0.3]}, everything)
    assert not f3.is_good({**row, "general beside all layers": [0.2, -0.01, 0.3]}, everything)
    assert not f3.is_good({**row, "memory": everything["memory"]}, everything)
    assert f3.judge(["LoRA", "head only"], ["LoRA", "head only"]) == ("holds", "")
    assert f3.judge(["LoRA", "head only"], ["LoRA"]) == ("holds only when", "what moves is: LoRA")
    assert f3.judge(["LoRA"], []) == ("does not hold", "")


def test_f3_moves_what_it_says() -> None:
    """Of 8 layers: the upper half is 4-7, the upper quarter 6-7; the embeddings stay."""
    model = small_bases.decoder(n_layers=8)
    freezing.untie(model)
    blocks = {
        name: {
            n.split(".")[2]
            for n, _ in model.named_parameters()
            if n not in freezing.weights_named(model, options["freeze"]) and ".blocks." in n
        }
        for name, options in f3.variants(8).items()
        if "freeze" in options
    }
    assert blocks == {"upper half": set("4567"), "upper quarter": set("67"), "head only": set()}
    assert f3.variants(5)["upper half"]["freeze"] == "embeddings,0-2"
    assert f3.variants(1)["upper half"] == {
        "freeze": "embeddings", "untie_head": True, "cache_frozen": False,
    }  # fmt: skip


def test_f4_asks_of_each_way_what_it_is_for() -> None:
    row = {"score gained": [0.1, 0.01, 0.2], "perplexity divided by": [0.9, 0.8, 0.95]}
    assert f4.is_good({**row, "way": "raft"})
    assert not f4.is_good({**row, "way": "pretraining"})
    other = {"score gained": [-0.1, -0.2, 0.0], "perplexity divided by": [1.5, 1.1, 2.0]}
    assert not f4.is_good({**other, "way": "closed-book"})
    assert f4.is_good({**other, "way": "pretraining"})
    assert f4.judge(["a", "b"], ["b"]) == ("holds only when", "the way is b")
    assert f4.judge(["a", "b"], ["a", "b"])[0] == "holds"
    assert f4.judge(["a", "b"], [])[0] == "does not hold"


def _f5_rows(kept: dict[str, float], nothing_high: float = -0.1) -> list[dict[str, Any]]:
    rows = []
    for way in f5.LEARNED:
        for remedy in (f5.NOTHING, *f5.REMEDIES):
            low, high = (
                (-0.3, nothing_high) if remedy == f5.NOTHING else (kept.get(remedy, -0.1), 0.1)
            )
            rows.append({"way": way, "remedy": remedy, "change in general": [0.0, low, high],
                         "gained in the domain": [0.2, 0.1, 0.3]})  # fmt: skip
    return rows


def test_f5_needs_something_to_keep_and_a_remedy_that_keeps_it() -> None:
    every = dict.fromkeys(f5.REMEDIES, -0.02)
    assert f5.judge(_f5_rows(every), 0.03) == ("holds", "")
    assert f5.judge(_f5_rows(every, nothing_high=0.01), 0.03) == ("does not hold", "")
    some = {"rehearsal": -0.02, "both": -0.01}
    assert f5.judge(_f5_rows(some), 0.03) == (
        "holds only when", "the remedy is: rehearsal, both",
    )  # fmt: skip
    assert f5.judge(_f5_rows({}), 0.03) == ("does not hold", "")
    rows = _f5_rows(every)
    rows[-1]["gained in the domain"] = [0.0, -0.1, 0.1]  # both, by heart: nothing is learned
    assert f5.judge(rows, 0.03) == (
        "holds only when", "the remedy is: early stopping, rehearsal",
    )  # fmt: skip


def test_f5_weighs_a_rate_by_the_domain_only_if_the_rest_is_kept() -> None:
    def outcome(domain: float, general: float) -> dict[str, Any]:
        marks = {"domain": domain, "general": general}
        return {
            "asked": "the same",
            **{part: {"en/1": [int(i < 100 * share) for i in range(100)]}
               for part, share in marks.items()},
        }  # fmt: skip

    before = [outcome(0.1, 0.9)]
    assert f5.score_if_kept([outcome(0.6, 0.9)], before, 0.03) == pytest.approx(0.6)
    assert f5.score_if_kept([outcome(0.0, 0.9)], before, 0.03) == 0
    # Two points are lost, and it might be five.
    little = f5.score_if_kept([outcome(0.6, 0.88)], before, 0.03)
    much = f5.score_if_kept([outcome(0.9, 0.5)], before, 0.03)
    assert much < little < -0.03


def test_f5_gives_each_remedy_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(domain: float, general: float) -> dict[str, Any]:
        parts = {"domain": domain, "general": general}
        return {
            "asked": "the same", "loss": 0.0, "kept step": 1, "steps": 1,
            **{part: {"en/1": [int(i < 1000 * share) for i in range(1000)]}
               for part, share in parts.items()},
        }  # fmt: skip

    def train(bench: object, settings: f5.Settings, what: adapting.Training) -> dict[str, Any]:
        # The faster, the more is learned and the more is lost; who rehearses may go faster.
        speed = RATES.index(what.config.rate)
        free = 3 if what.config.rehearsal else 1
        return outcome(0.1 * (1 + speed), 0.9 - 0.2 * max(0, speed - free))

    monkeypatch.setattr(adapting, "train", train)
    monkeypatch.setattr(adapting, "measure_base", lambda *_: outcome(0.0, 0.9))
    rows = f5.run(f5.CLAIM.full, None).results["trainings"]  # type: ignore[arg-type]
    found = {(row["way"], row["remedy"]): row["rate"]["rate"] for row in rows}
    for way in f5.LEARNED:
        assert found[way, f5.NOTHING] == RATES[-1]
        assert found[way, f5.LOWER] == found[way, "early stopping"] == RATES[1]
        assert found[way, "rehearsal"] == found[way, "both"] == RATES[3]


# ----------------------------------------------------------------------------------------- budgets


def test_trainings_are_short_and_shared() -> None:
    """What several claims train is one training: the same in every part."""
    full = {claim.id: claim.full for claim in claims_named()}
    seed, rate = full["F1"].seeds[0], 6e-4
    whole = f1._training(full["F1"], "fine-tuned", seed, rate, 1.0)
    assert whole == adapting.training(full["F2"], seed, rate)
    assert whole == f4.maker(full["F4"], "raft")(seed, rate)
    assert whole == f5._training(full["F5"], "raft", f5.NOTHING, seed, rate)
    assert whole == f5._training(full["F5"], "raft", f5.LOWER, seed, rate)
    longest = f1._training(full["F1"], "fine-tuned", seed, rate, 1.0, 2.0)
    by_heart = f4.maker(full["F4"], "closed-book")(seed, rate)
    assert by_heart == f5._training(full["F5"], "closed-book", f5.NOTHING, seed, rate)
    for what in (longest, by_heart, f5._training(full["F5"], "raft", "both", seed, rate)):
        assert what.config.max_steps * what.config.tokens_per_batch <= 600_000
    for settings in full.values():
        assert len(settings.seeds) >= 3
        assert not set(settings.seeds) & set(settings.development)


def test_an_experiment_rehearses_only_where_that_is_its_remedy() -> None:
    """The recipes rehearse by themselves: "no remedy" was a fifth of general exercises once."""
    settings = f5.CLAIM.full
    for way in f5.LEARNED:
        assert settings.recipes[way].rehearsal > 0
        assert f4.maker(f4.CLAIM.full, way)(301, 1e-3).config.rehearsal == 0
        nothing, *remedies = (
            f5._training(settings, way, remedy, 301, 1e-3).config
            for remedy in (f5.NOTHING, *f5.REMEDIES)
        )
        assert (nothing.rehearsal, nothing.patience, nothing.max_forgetting) == (0, None, None)
        assert [config.rehearsal for config in remedies] == [0, 0.25, 0.25]
        assert [config.max_forgetting for config in remedies] == [0.03, None, 0.03]
        assert [config.patience for config in remedies] == [3, None, 3]
    assert f1._training(f1.CLAIM.full, "from scratch", 301, 1e-3, 1.0).config.rehearsal == 0
    # Facts learned by heart are asked with passages, too: there the recipe is kept whole.
    by_heart = x2.by_heart.training(x2.CLAIM.full, 301, 1e-3, 48).config
    assert by_heart.rehearsal == x2.CLAIM.full.recipes["closed-book"].rehearsal > 0


def test_from_scratch_differs_in_its_beginning_and_its_loss_alone() -> None:
    settings = f1.CLAIM.full
    tuned, scratch = (f1._training(settings, side, 301, 1e-3, 0.1) for side in f1.SIDES)
    assert dataclasses.replace(
        scratch, scratch=False, config=dataclasses.replace(scratch.config, rest_weight=0.0)
    ) == tuned  # fmt: skip
    assert (tuned.data.exercises, tuned.config.max_steps) == (100, 200_000 // 4096)
    assert (scratch.scratch, scratch.config.rest_weight) == (True, 0.3)


# ------------------------------------------------------------------------------- a training, small


def test_an_outcome_keeps_every_question(bench: Workbench, tiny: Fitting) -> None:
    """A training that moves nothing leaves the base's answers, and a fresh model's from scratch."""
    data = adapting.data_for(tiny, "closed-book")
    base = adapting.measure_base(bench, tiny, 301, data)
    still, fresh = (
        adapting.train(
            bench,
            tiny,
            adapting.training(tiny, 301, 1e-12, data=data, scratch=scratch, tokens=512),
        )
        for scratch in (False, True)
    )
    test = laboratory_data(
        dataclasses.replace(data, world_seed=301), test_seed=question_seed(301)
    ).test
    for model, outcome in (
        (small_bases.decoder(), base),
        (small_bases.decoder(), still),
        (small_bases.decoder(301), fresh),
    ):
        for tests, part in ((test.domain, "domain"), (test.general, "general")):
            assert outcome[part] == {
                t.name: [
                    int(a.right)
                    for a in answer_exercises(model, small_bases.tokenizer(), t.exercises)
                ]
                for t in tests
            }
        assert outcome["surprise"]["en/texts"][:3] == pytest.approx(
            [_mean_loss(model, text) for text in test.domain_text[:6:2]], abs=1e-4
        )
    assert base["asked"] == still["asked"] == fresh["asked"]
    assert base["surprise"] != fresh["surprise"]
    assert (still["steps"], still["kept step"]) == (1, 1)
    assert still["memory"]["gradients"] == 4 * still["trainable"]
    before = len(list(bench.place.iterdir()))
    adapting.measure_base(bench, tiny, 301, data)
    assert len(list(bench.place.iterdir())) == before == 3


def _mean_loss(model: Decoder, text: ReadingExercise) -> float:
    _, (sequence,), _ = encode(model, small_bases.tokenizer(), [text], Dice("any"))
    ids = torch.as_tensor(sequence)
    with torch.inference_mode():
        logits = model.logits(model(ids[None, :-1]))[0]
    return torch.nn.functional.cross_entropy(logits, ids[1:]).item()


def _kept_bytes(loss: torch.Tensor, model: Decoder) -> int:
    """What hangs on the graph of a loss, found by walking it; plain factors (float64) aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes: dict[int, int] = {}
    seen, left = set(), [loss.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        left += [following for following, _ in node.next_functions]
        for name in dir(node):
            if not name.startswith("_saved_"):
                continue
            value = getattr(node, name)
            for tensor in value if isinstance(value, tuple | list) else [value]:
                if isinstance(tensor, torch.Tensor) and tensor.dtype != torch.float64:
                    storage = tensor.untyped_storage()
                    if storage.data_ptr() not in own:
                        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


@pytest.mark.parametrize("moving", ["all", "head", "lora"])
def test_the_memory_of_a_step(moving: str) -> None:
    model = small_bases.decoder()
    if moving == "head":
        freezing.untie(model)
        freezing.freeze(model, freezing.weights_named(model, "all-but-head"))
    if moving == "lora":
        add_lora(model, Lora(rank=2), 0)
    exercises = small_bases.data().train[:7]
    memory = step_memory(
        model, small_bases.tokenizer(), exercises, small_bases.CPU, tokens_per_batch=10_000
    )
    n_moving = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert (memory.gradients, memory.optimizer) == (4 * n_moving, 8 * n_moving)
    assert memory.weights == 4 * sum(p.numel() for p in model.parameters())
    form, sequences, _ = encode(model, small_bases.tokenizer(), exercises, Dice("any"))
    (group,) = cut_into_batches(sequences, form.length, 10_000)
    batch: Any = form.batch(group)
    freezing.training_mode(model)
    loss = part_loss(model, Part(batch, share_out([batch], 0.0)[0]))
    assert memory.activations == _kept_bytes(loss, model)
    assert memory.total == sum(dataclasses.astuple(memory))


def test_the_memory_of_adapters_is_told_though_they_are_merged(small_base: str) -> None:
    settings = dataclasses.replace(f3.CLAIM.reduced, models=(small_base,))
    what = adapting.training(settings, 301, 1e-3, lora=Lora(rank=2))
    outcome = adapting._train(what, small_bases.CPU)
    assert outcome["memory"]["gradients"] == 4 * outcome["trainable"]
    assert outcome["memory"]["weights"] > 10 * outcome["memory"]["gradients"]


def test_measuring_a_step_leaves_nothing_behind() -> None:
    """A claim measures a hundred of them in one process: it ended in want of 22 GB."""
    model, exercises = small_bases.decoder(), small_bases.data().train[:7]

    def tensors() -> int:
        step_memory(
            model, small_bases.tokenizer(), exercises, small_bases.CPU, tokens_per_batch=10_000
        )
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    first, second = tensors(), tensors()
    assert second <= first  # what an earlier test left behind may go in between


# ---------------------------------------------------------------------------- the whole, in small


@pytest.mark.slow
@pytest.mark.parametrize("id", ["F1", "F2", "F3", "F4", "F5"])
def test_a_claim_runs_in_small(
    id: str, tmp_path_factory: pytest.TempPathFactory, small_base: str
) -> None:
    pytest.importorskip("matplotlib")
    place = tmp_path_factory.getbasetemp() / "claims"  # the five share what they train
    (claim,) = claims_named([id])
    settings = dataclasses.replace(claim.reduced, models=(small_base,))
    claim = dataclasses.replace(claim, reduced=settings)
    result = run_claim(claim, Workbench(place / "work", small_bases.CPU), place, reduced=True)
    low, high = result["interval"]
    assert low <= result["number"] <= high
    assert all(map(math.isfinite, (low, high, result["seconds"])))
    assert result["verdict"].startswith(("holds", "does not hold"))
    assert changed(claim, result) == []
    assert (place / f"{id}.png").stat().st_size > 10_000
    pieces = sorted((place / "work").iterdir())
    again = run_claim(claim, Workbench(place / "work", small_bases.CPU), place, reduced=True)
    assert again == result  # every piece comes from the disk, its seconds with it
    assert sorted((place / "work").iterdir()) == pieces
