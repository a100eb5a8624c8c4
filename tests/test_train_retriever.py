"""A whole training of a retriever, made small."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training_pretrain import half_a_second_a_step

from minirag.cli.main import main
from minirag.corpus.dice import Dice
from minirag.corpus.medicine import MEDICINE
from minirag.corpus.retrieval import RetrievalMix
from minirag.errors import DataError, TrainingError, UsageError
from minirag.files import sha256_of
from minirag.retrieval.bi_encoder import load_base
from minirag.retrieval.contrast import info_nce
from minirag.retrieval.contrast_plot import compare_runs, differing, save_comparison
from minirag.retrieval.encoder import QUESTIONS, BiEncoder
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.retrieval.retrieval_tests import evaluate_retriever
from minirag.retrieval.retriever_card import retriever_card, retriever_card_agrees
from minirag.retrieval.retriever_recipe import RetrieverRecipe, domain_retriever
from minirag.retrieval.retriever_run import RetrieverTraining, families_of
from minirag.retrieval.train_retriever import Watching, steps_in, train_retriever
from minirag.text.documents import Document
from minirag.training import resumable, watch
from minirag.training.loop import Optimization
from minirag.training.weights import locate_weights, problems, shipped
from minirag.transformer.machine import Machine, this_machine
from tests.tiny_retriever import save_base

CPU = Machine(torch.device("cpu"), bf16=False)
pytestmark = pytest.mark.filterwarnings("ignore::minirag.retrieval.encoder.TruncationWarning")
QUIET = Watching(validate_every=0, checkpoint_every=0, report_questions=0, bar=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("weights") / "tiny-base")


@pytest.fixture(scope="module")
def with_dropout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It draws from torch's random state, which has to come back, too."""
    return save_base(tmp_path_factory.mktemp("weights") / "tiny-base", dropout=0.1)


def _recipe(base: Path, **changes: object) -> RetrieverRecipe:
    """Pools of about three batches: nine steps go through three, two of them mined."""
    values: dict[str, object] = {
        "base": str(base),
        "batch": 5,
        "families": 6,
        "steps": 9,
        "warmup_steps": 2,
        "max_tokens": 64,
        "mine_from": 1,
        **changes,
    }
    return RetrieverRecipe(**values)  # type: ignore[arg-type]


class _Killed(Exception):
    pass


def _losses(out: Path) -> list[float]:
    losses: list[float] = json.loads((out / "curve.json").read_text("utf-8"))["first_losses"]
    return losses


@pytest.mark.parametrize("towers", ["shared", "separate"])
def test_the_same_again_and_after_a_kill(
    tmp_path: Path, with_dropout: Path, monkeypatch: pytest.MonkeyPatch, towers: str
) -> None:
    recipe = _recipe(with_dropout, towers=towers)
    watching = dataclasses.replace(QUIET, checkpoint_every=2)
    for name in ("first", "second"):
        train_retriever(recipe, tmp_path / name, seed=3, machine=CPU, watching=watching)
    whole = _losses(tmp_path / "first")
    assert len(whole) == 9
    assert _losses(tmp_path / "second") == whole

    # Killed without warning after step 7: what counts is the checkpoint after step 6, in the middle
    # of a pool whose negatives were mined by weights that are gone.
    save_run = resumable.save_run
    saved = {}

    def save_until_killed(directory, model, optimizer, run):
        if run["progress"]["step"] == 7:
            raise _Killed
        saved[run["progress"]["step"]] = run["progress"]["position"]
        save_run(directory, model, optimizer, run)

    monkeypatch.setattr(resumable, "save_run", save_until_killed)
    show = watch.Meter.show

    def show_until_killed(self, step):
        if step.number == 6:
            raise _Killed
        show(self, step)

    monkeypatch.setattr(watch.Meter, "show", show_until_killed)
    with pytest.raises(_Killed):
        train_retriever(recipe, tmp_path / "third", seed=3, machine=CPU, watching=watching)
    assert list(saved) == [2, 4, 6]
    assert saved[6]["mined"] is not None
    assert saved[6]["batch"] > 0
    monkeypatch.undo()
    train_retriever(recipe, tmp_path / "third", seed=3, machine=CPU, watching=watching, resume=True)
    assert _losses(tmp_path / "third") == whole
    for file in ("model.safetensors", *([QUESTIONS] if towers == "separate" else [])):
        first, third = ((tmp_path / name / file).read_bytes() for name in ("first", "third"))
        assert first == third


def test_what_is_asked_for_must_fit_what_is_there(tmp_path: Path, base: Path) -> None:
    recipe = _recipe(base, steps=2, warmup_steps=0, decay_share=1.0)
    with pytest.raises(UsageError, match="no run to resume"):
        train_retriever(recipe, tmp_path, machine=CPU, watching=QUIET, resume=True)
    train_retriever(recipe, tmp_path, machine=CPU, watching=QUIET)
    with pytest.raises(UsageError, match="--resume"):
        train_retriever(recipe, tmp_path, machine=CPU, watching=QUIET)
    sharper = dataclasses.replace(recipe, temperature=0.01)
    with pytest.raises(UsageError, match=r"temperature: 0.05 then, 0.01 now"):
        train_retriever(sharper, tmp_path, machine=CPU, watching=QUIET, resume=True)
    with pytest.raises(UsageError, match="another seed"):
        train_retriever(recipe, tmp_path, seed=1, machine=CPU, watching=QUIET, resume=True)
    with pytest.raises(UsageError, match="has done 2 of 2 steps; a run of 9 would"):
        train_retriever(recipe.with_steps(9), tmp_path, machine=CPU, watching=QUIET, resume=True)
    with pytest.raises(TrainingError, match="give a smaller batch"):
        train_retriever(_recipe(base, batch=99), tmp_path / "b", machine=CPU, watching=QUIET)


def test_a_retriever_keeps_its_pooling(tmp_path: Path, base: Path) -> None:
    out = tmp_path / "by-cls"
    train_retriever(_recipe(base, pooling="cls", steps=1), out, machine=CPU, watching=QUIET, seed=2)
    with pytest.raises(UsageError, match="by-cls pools by cls, this training by mean: go on with"):
        train_retriever(_recipe(out), tmp_path / "on", machine=CPU, watching=QUIET)
    on = _recipe(out, pooling="cls", steps=1, domain="law")
    train_retriever(on, tmp_path / "on", machine=CPU, watching=QUIET)
    body = json.loads((tmp_path / "on" / "training.json").read_text("utf-8"))
    assert body["base"] == {
        "name": "by-cls",
        "sha256": sha256_of(out / "model.safetensors"),
    }


def test_recipes_refuse_what_can_not_be_meant() -> None:
    for wrong, match in (
        ({"batch": 1}, "batch is 1; 2 is the least"),
        ({"negatives": -1}, "negatives is -1; 0 is the least"),
        ({"temperature": 0.0}, "temperature is 0.0: give a number above 0"),
        ({"rehearsal": 2.0}, "rehearsal is 2.0: give a share"),
        ({"domain": "cooking"}, "give medicine or law"),
    ):
        with pytest.raises(UsageError, match=match):
            RetrieverRecipe(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="minutes is 0"):
        steps_in(0, RetrieverRecipe(), CPU)


def test_a_domain_is_trained_on_its_own_families_and_some_general_ones() -> None:
    recipe = dataclasses.replace(domain_retriever("medicine"), rehearsal=0.3)
    draw, dice = families_of(recipe), Dice(1)
    facts = [draw(dice, str(i)).pages[0].states for i in range(200)]
    attributes = {key for kind in MEDICINE.kinds.values() for key in kind}
    medical = sum(any(fact.rpartition("/")[2] in attributes for fact in f) for f in facts)
    assert medical / 200 == pytest.approx(0.7, abs=0.1)
    assert recipe.base == "retriever"


def test_a_finished_run_is_a_retriever_with_a_card(tmp_path: Path, base: Path) -> None:
    watching = Watching(
        validate_every=4, passages=20, questions=6, checkpoint_every=0,
        report_passages=40, report_questions=12, bar=False,
    )  # fmt: skip
    out = tmp_path / "retriever-law"
    recipe = _recipe(base, name="retriever-law", domain="law", rehearsal=0.5)
    scores = train_retriever(recipe, out, machine=CPU, watching=watching, command="minirag test")
    assert {s.domain for s in scores} == {"general", "medicine", "law"}
    assert problems(out) == []
    assert retriever_card_agrees(out)
    text = retriever_card(out)
    assert "`minirag test`" in text
    assert "1 hard negative, mined" in text
    assert "about the entities of world 0" in text
    law = next(s for s in scores if (s.domain, s.asked_in, s.found_in) == ("law", "en", "es"))
    recall = law.recall[1]
    row = f"| law | en → es | dense | {recall.value:.3f} [{recall.low:.3f}, {recall.high:.3f}] |"
    assert row in text

    # It is what a knowledge base and the evaluation take for an encoder.
    encoder = BiEncoder.load(str(out))
    knowledge = KnowledgeBase(encoder)
    knowledge.add([Document("a", "The river Tor is long."), Document("b", "El club Bel es viejo.")])
    knowledge.save(tmp_path / "kb")
    assert len(KnowledgeBase.load(tmp_path / "kb", encoder).search("Tor?", 2)) == 2
    again = evaluate_retriever(encoder, "law", seed=1001, passages=40, questions=12)
    assert again == [s for s in scores if s.domain == "law"]

    curve = json.loads((out / "curve.json").read_text("utf-8"))
    assert [entry["step"] for entry in curve["validations"]] == [4, 8]
    assert len(curve["validations"][0]["scores"]) == 8
    body = json.loads((out / "training.json").read_text("utf-8"))
    assert body["parameters"] == encoder.model.n_parameters
    assert body["questions"] > 9 * 5
    assert body["base"]["name"] == "tiny-base"

    marred = json.loads((out / "scores.json").read_text("utf-8"))
    marred["scores"][3]["recall@1"][0] = 0.987
    (out / "scores.json").write_text(json.dumps(marred), encoding="utf-8")
    assert not retriever_card_agrees(out)
    (out / "scores.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="lack what a retriever's card says"):
        retriever_card(out)
    (out / "scores.json").unlink()
    with pytest.raises(DataError, match="can't be read"):
        retriever_card(out)


def test_watching_changes_no_weight(tmp_path: Path, with_dropout: Path) -> None:
    watched = dataclasses.replace(QUIET, validate_every=2, passages=12, questions=4)
    for name, watching in (("blind", QUIET), ("watched", watched)):
        recipe = _recipe(with_dropout, steps=5)
        train_retriever(recipe, tmp_path / name, machine=CPU, watching=watching)
    assert _losses(tmp_path / "blind") == _losses(tmp_path / "watched")


def test_some_seconds_of_training_double_the_recall(tmp_path: Path) -> None:
    wide = save_base(tmp_path / "base", d_model=64, d_ff=128, n_layers=1)
    recipe = _recipe(
        wide, mix=RetrievalMix(nonce=0.0, everyday=0.0, facts=(1, 3)), batch=32, negatives=0,
        families=60, steps=60, max_tokens=96, optimization=Optimization(rate=4e-3),
    )  # fmt: skip

    def recall(encoder: BiEncoder) -> float:
        """Recall@1, the mean over both languages and both ways across them."""
        scores = evaluate_retriever(
            encoder, "general", seed=9, passages=150, questions=100, ways=("dense",),
            rare_names=False,
        )  # fmt: skip
        return sum(s.recall[1].value for s in scores) / len(scores)

    begun = RetrieverTraining(recipe, load_base(str(wide)), 0, tmp_path, CPU)
    before = recall(begun.model.eval().as_encoder(begun.tokenizer, 96))
    train_retriever(recipe, tmp_path / "out", machine=CPU, watching=QUIET)
    after = recall(BiEncoder.load(str(tmp_path / "out")))
    assert after > 2 * before > 0.1  # names alone, unlearned, find some


def test_hard_negatives_and_their_number_reach_the_loss(tmp_path: Path, base: Path) -> None:
    first = {}
    for negatives in (0, 1, 3):
        out = tmp_path / str(negatives)
        recipe = _recipe(base, negatives=negatives, steps=1)
        train_retriever(recipe, out, machine=CPU, watching=QUIET)
        first[negatives] = _losses(out)[0]
    assert first[0] < first[1] < first[3]  # more to choose from: more to lose


@pytest.mark.parametrize(("temperature", "symmetric"), [(0.05, False), (0.2, False), (0.2, True)])
def test_temperature_and_directions_reach_the_loss(
    tmp_path: Path, base: Path, temperature: float, symmetric: bool
) -> None:
    recipe = _recipe(base, temperature=temperature, symmetric=symmetric)
    run = RetrieverTraining(recipe, load_base(str(base)), 0, tmp_path, CPU)
    batch = next(iter(run.batches()))
    expected = info_nce(
        run.model.encode_questions(batch.questions),
        run.model.encode_passages(batch.passages),
        batch.golden,
        batch.ignored,
        temperature=temperature,
        symmetric=symmetric,
    )
    assert run.loss(run.model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_runs_are_compared_and_drawn(tmp_path: Path, base: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    watching = dataclasses.replace(QUIET, report_passages=10, report_questions=4)
    runs = []
    for negatives, batch in ((1, 8), (0, 8), (0, 4)):
        runs.append(tmp_path / f"r-{negatives}-{batch}")
        recipe = _recipe(base, negatives=negatives, batch=batch, steps=1)
        train_retriever(recipe, runs[-1], machine=CPU, watching=watching)
    found = save_comparison(runs, tmp_path)
    assert [(run["negatives"], run["batch"]) for run in found] == [(0, 4), (0, 8), (1, 8)]
    assert json.loads((tmp_path / "comparison.json").read_text("utf-8")) == found
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    scores = json.loads((runs[0] / "scores.json").read_text("utf-8"))["scores"]
    row = next(
        s for s in scores
        if (s["domain"], s["asked_in"], s["found_in"], s["names"], s["way"])
        == ("general", "es", "en", "all", "dense")
    )  # fmt: skip
    assert found[2]["recall@3"]["es → en"] == row["recall@3"]
    assert [run["mined"] for run in found] == [False] * 3  # one step: none were
    assert "1 hard negative, of the same family" in (runs[0] / "README.md").read_text("utf-8")
    assert differing(found) == []
    longer = [{**found[0], "steps": 7, "seed": 8}, *found[1:]]
    assert differing(longer) == ["steps (7, 1)"]
    with pytest.raises(DataError, match="holds no finished and tested run"):
        compare_runs([tmp_path])
    with pytest.raises(UsageError, match="no runs to compare"):
        save_comparison([], tmp_path)


def test_the_command_line(tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    few = ["--batch", "4", "--passages", "8", "--questions", "3", "--precision", "fp32"]
    what = ["train-retriever", "--base", str(base), "--steps", "2", "--out", str(out), *few]
    assert main([*what, "--negatives", "0", "--pooling", "cls", "--symmetric", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["steps"] == 2
    assert len(body["scores"]) == 3 * 24
    recipe = json.loads((out / "training.json").read_text("utf-8"))["recipe"]
    assert (recipe["negatives"], recipe["pooling"], recipe["symmetric"]) == (0, "cls", True)
    assert BiEncoder.load(str(out)).pooling == "cls"
    command = json.loads((out / "training.json").read_text("utf-8"))["command"]
    assert command == (
        f"minirag train-retriever --base {base} --batch 4 --negatives 0 --pooling cls "
        "--symmetric --steps 2 --seed 0"
    )
    for mine_from, mined in ((1, False), (0, True)):
        short = tmp_path / f"mined-{mined}"
        given = ["--families", "16", "--mine-from", str(mine_from), "--out", str(short)]
        assert main([*what[:-8], *given, *few]) == 0
        assert ("ended before negatives were mined" in capsys.readouterr().err) is not mined
        training = json.loads((short / "training.json").read_text("utf-8"))
        assert training["mined"] is mined
        assert f"--families 16 --mine-from {mine_from}" in training["command"]
    assert main(what) == 64
    assert "--resume" in capsys.readouterr().err
    assert main([*what[:-6], "--questions", "9", "--passages", "8"]) == 64
    assert "9 questions, one a passage, can't be asked of 8 passages" in capsys.readouterr().err
    assert main(["train-retriever", "--base", "nobody", "--out", str(tmp_path / "x")]) == 2
    assert "train-retriever" in capsys.readouterr().err
    compared = main(["train-retriever", "--compare", str(out), "--out", str(tmp_path)])
    if importlib.util.find_spec("matplotlib") is None:
        assert compared == 64
        assert "matplotlib" in capsys.readouterr().err
        return
    assert compared == 0
    assert "0 negatives, batch    4, seed 0: en → en" in capsys.readouterr().out


def test_a_run_of_no_length_is_told_by_its_option(tmp_path: Path, base: Path, capsys) -> None:
    for option, value, says in (
        ("--steps", "0", "--steps is 0: give 1 or more."),
        ("--minutes", "-1", "--minutes is -1.0: give a number above 0."),
    ):
        out = tmp_path / "none"
        assert (
            main(["train-retriever", "--base", str(base), "--out", str(out), option, value]) == 64
        )
        assert capsys.readouterr().err == f"minirag: {says}\n"
        assert not out.exists()


def test_what_holds_no_run_is_not_compared(tmp_path: Path, capsys) -> None:
    assert main(["train-retriever", "--compare", str(tmp_path), "--out", str(tmp_path)]) == 7
    said = capsys.readouterr().err
    assert f"{tmp_path} holds no finished and tested run of train-retriever" in said
    assert "Errno" not in said


def test_bars_are_not_for_pipes(tmp_path: Path, base: Path, capsys) -> None:
    few = ["--steps", "1", "--batch", "4", "--families", "4", "--questions", "0"]
    assert main(["train-retriever", "--base", str(base), "--out", str(tmp_path / "out"), *few]) == 0
    assert "step/s" not in capsys.readouterr().err


@pytest.mark.parametrize(("minutes", "steps"), [(1.0, 120), (0.001, 2)])
def test_minutes_become_steps(
    base: Path, monkeypatch: pytest.MonkeyPatch, minutes: float, steps: int
) -> None:
    """The first pool, which warms caches up, is no measure; no run is shorter than its warm-up."""
    half_a_second_a_step(monkeypatch)
    assert steps_in(minutes, _recipe(base, batch=4), CPU) == steps


def test_bf16_where_the_machine_has_it(tmp_path: Path, base: Path) -> None:
    machine = this_machine("bf16")
    train_retriever(_recipe(base), tmp_path, machine=machine, watching=QUIET)
    losses = _losses(tmp_path)
    train_retriever(_recipe(base), tmp_path / "fp32", machine=CPU, watching=QUIET)
    exact = _losses(tmp_path / "fp32")
    assert losses != exact
    np.testing.assert_allclose(losses, exact, rtol=0.1)


def test_the_shipped_retrievers_cards_agree_with_their_files():
    retrievers = [path for path in shipped() if path.name.startswith("retriever")]
    assert retrievers
    for directory in retrievers:
        assert retriever_card_agrees(directory)
        base = json.loads((directory / "training.json").read_text("utf-8"))["base"]
        if base["name"] in {path.name for path in shipped()}:  # it stands on what is shipped
            weights = locate_weights(base["name"]) / "model.safetensors"
            assert sha256_of(weights) == base["sha256"]


def test_the_shipped_retriever_still_finds() -> None:
    """Its card says what it could when it was made; this is what it can now."""
    scores = evaluate_retriever(
        BiEncoder.load("retriever"), "general", seed=1001, passages=40, questions=40,
        ways=("dense",), rare_names=False,
    )  # fmt: skip
    assert len(scores) == 4
    for s in scores:
        assert s.recall[1].value >= 0.9, s
