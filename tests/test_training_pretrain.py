"""A whole pretraining, made small: the same to the last bit again and after a kill."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from minirag.cli.main import main
from minirag.corpus.dice import Dice
from minirag.corpus.exercises import ExerciseMix, draw_exercise
from minirag.errors import ModelUnavailable, UsageError
from minirag.text.tokenizer import Tokenizer
from minirag.training import batches, resumable, vocabulary, watch
from minirag.training import report as reporting
from minirag.training.batches import NO_TARGET, Position
from minirag.training.card import card, card_agrees
from minirag.training.curves import History, save_curve
from minirag.training.evaluate_reading import (
    answer_exercises,
    evaluate_reading,
    reading_tests,
    validation_tests,
)
from minirag.training.muon import Muon
from minirag.training.pretrain import Watching, pretrain, steps_in
from minirag.training.recipes import GPT_BASE, RECIPES, Recipe, Stage, recipe_named
from minirag.training.report import well_known_fingerprint
from minirag.training.resume import read_run
from minirag.training.run import Pretraining, train_tokenizer
from minirag.training.vocabulary import compare_vocabularies
from minirag.training.weights import (
    inspect_weights,
    locate_weights,
    problems,
    seal,
    shipped,
    weights_root,
)
from minirag.transformer.checkpoints import load
from minirag.transformer.machine import Machine, this_machine
from minirag.transformer.models import Decoder

CPU = Machine(torch.device("cpu"), bf16=False)
QUIET = Watching(validate_every=0, checkpoint_every=0, report_questions=0, bar=False)
TINY = Recipe(
    name="tiny",
    vocab_size=320,
    tokenizer_exercises=60,
    d_model=32,
    n_layers=2,
    n_heads=2,
    d_ff=48,
    max_length=900,
    steps=6,
    tokens_per_batch=1200,
    warmup_steps=2,
    stages=(
        Stage(ExerciseMix(passages=(1.0,), facts=(2, 2))),
        Stage(ExerciseMix(passages=(0.5, 0.5), facts=(2, 3)), after_share=0.5, at_latest=100),
    ),
)


class _Killed(Exception):
    pass


def _losses(out: Path) -> list[float]:
    losses: list[float] = json.loads((out / "curve.json").read_text("utf-8"))["first_losses"]
    return losses


def test_the_same_again_and_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = dataclasses.replace(QUIET, checkpoint_every=2)
    for name in ("first", "second"):
        pretrain(TINY, tmp_path / name, seed=3, machine=CPU, watching=watching)
    whole = _losses(tmp_path / "first")
    assert len(whole) == 6
    assert _losses(tmp_path / "second") == whole

    # Killed without warning after step 5: what counts is the checkpoint after step 4.
    save_run = resumable.save_run
    steps_saved = []

    def save_until_killed(directory, model, optimizer, run):
        if run["progress"]["step"] == 5:
            raise _Killed
        steps_saved.append(run["progress"]["step"])
        save_run(directory, model, optimizer, run)

    monkeypatch.setattr(resumable, "save_run", save_until_killed)
    show = watch.Meter.show

    def show_until_killed(self, step):
        if step.number == 4:
            raise _Killed
        show(self, step)

    monkeypatch.setattr(watch.Meter, "show", show_until_killed)
    with pytest.raises(_Killed):
        pretrain(TINY, tmp_path / "third", seed=3, machine=CPU, watching=watching)
    assert steps_saved == [2, 4]
    monkeypatch.undo()
    pretrain(TINY, tmp_path / "third", seed=3, machine=CPU, watching=watching, resume=True)
    assert _losses(tmp_path / "third") == whole
    first, third = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "third")
    )
    assert first == third


@pytest.mark.parametrize("rest_weight", [0.0, 0.3])
def test_what_is_no_answer_counts_as_the_recipe_says(tmp_path: Path, rest_weight: float) -> None:
    recipe = dataclasses.replace(TINY, rest_weight=rest_weight)
    run = Pretraining(recipe, train_tokenizer(TINY), 0, tmp_path, CPU)
    batch = next(iter(run.batches()))
    log_p = run.model.logits(run.model(batch.ids)).log_softmax(-1)
    losses = -log_p.gather(2, batch.targets.clamp(min=0)[..., None])[..., 0]
    rest = (batch.targets != NO_TARGET) & ~batch.in_answer
    expected = losses[batch.in_answer].mean() + rest_weight * losses[rest].mean()
    assert run.loss(run.model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_exercises_are_of_the_stage_in_which_their_pool_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixes: list[ExerciseMix] = []

    def noted(dice, mix):
        mixes.append(mix)
        return draw_exercise(dice, mix)

    run = Pretraining(TINY, train_tokenizer(TINY), 0, tmp_path, CPU)
    monkeypatch.setattr(batches, "draw_exercise", noted)
    for began, stage in ((0, 0), (2, 0), (3, 1), (5, 1)):
        mixes.clear()
        run.progress.position = Position(pool=began, pool_began=began)
        stream = run.batches()
        stream.pool_size = 9
        next(iter(stream))
        assert mixes == [TINY.stages[stage].mix] * 9


def _whole(tmp_path: Path) -> tuple[list[float], int, bytes]:
    return (
        _losses(tmp_path),
        json.loads((tmp_path / "training.json").read_text("utf-8"))["tokens"],
        (tmp_path / "model.safetensors").read_bytes(),
    )


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """As in a terminal: a process in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_the_middle_of_a_step_saves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first waits for the end of the step; the second doesn't, and nothing is saved then."""
    recipe, watching = TINY.with_steps(5), dataclasses.replace(QUIET, checkpoint_every=2)
    pretrain(recipe, tmp_path / "whole", seed=3, machine=CPU, watching=watching)

    def interrupted(owner: type, name: str, times: int, out: Path) -> int:
        """Press so many times in step 3; the step of the checkpoint that is left."""
        original, calls = getattr(owner, name), []

        def pressed(*args):
            done = original(*args)
            calls.append(1)
            if len(calls) == 4:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            return done

        monkeypatch.setattr(owner, name, pressed)
        with pytest.raises(KeyboardInterrupt):
            pretrain(recipe, out, seed=3, machine=CPU, watching=watching)
        monkeypatch.undo()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        step: int = read_run(out / resumable.CHECKPOINT)["progress"]["step"]
        return step

    for owner, name, times, saved in (
        (Pretraining, "loss", 1, 4),
        (Pretraining, "loss", 2, 2),
        (Muon, "_orthogonal_step", 2, 2),  # the matrices have moved, AdamW's weights not yet
    ):
        out = tmp_path / f"{name} {times}"
        assert interrupted(owner, name, times, out) == saved
        pretrain(recipe, out, seed=3, machine=CPU, watching=watching, resume=True)
        assert _whole(out) == _whole(tmp_path / "whole")


@pytest.mark.usefixtures("ctrl_c")
def test_outside_the_main_thread_ctrl_c_is_left_alone() -> None:
    def look() -> None:
        with watch.ctrl_c_waits() as stop_if_pressed:
            found.append(signal.getsignal(signal.SIGINT))
            stop_if_pressed()

    found: list[object] = []
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_what_is_asked_for_must_fit_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run to resume"):
        pretrain(TINY, tmp_path, machine=CPU, watching=QUIET, resume=True)
    pretrain(TINY.with_steps(2), tmp_path, machine=CPU, watching=QUIET)
    with pytest.raises(UsageError, match="--resume"):
        pretrain(TINY.with_steps(2), tmp_path, machine=CPU, watching=QUIET)
    wider = dataclasses.replace(TINY.with_steps(2), d_ff=64)
    with pytest.raises(UsageError, match="d_ff: 48 then, 64 now"):
        pretrain(wider, tmp_path, machine=CPU, watching=QUIET, resume=True)
    with pytest.raises(UsageError, match=r"has done 2 of 2 steps; a run of 6 would"):
        pretrain(TINY, tmp_path, machine=CPU, watching=QUIET, resume=True)
    with pytest.raises(UsageError, match="another seed"):
        pretrain(TINY.with_steps(2), tmp_path, seed=1, machine=CPU, watching=QUIET, resume=True)
    in_bf16 = dataclasses.replace(CPU, bf16=True)  # as auto may find on another machine
    with pytest.raises(UsageError, match=r"in fp32, .* in bf16: add --precision fp32"):
        pretrain(TINY.with_steps(2), tmp_path, machine=in_bf16, watching=QUIET, resume=True)


def test_a_finished_run_is_a_model_with_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [dataclasses.replace(t, exercises=t.exercises[:2]) for t in reading_tests(5, 2)]
    monkeypatch.setattr(reporting, "reading_tests", lambda *_: few)
    watching = dataclasses.replace(QUIET, report_questions=2)
    scores = pretrain(TINY, tmp_path, machine=CPU, watching=watching, command="minirag test")
    assert len(scores) == len(few) == 38
    assert {s.n for s in scores} == {2}
    model = load(tmp_path)
    assert isinstance(model, Decoder)
    tokenizer = Tokenizer.load(tmp_path)
    assert model.config.eos_ids == (tokenizer.eos_id,)
    assert model.config.vocab_size == tokenizer.vocab_size == 320
    assert problems(tmp_path) == []
    assert card_agrees(tmp_path)
    assert "`minirag test`" in card(tmp_path)
    training = json.loads((tmp_path / "training.json").read_text("utf-8"))
    assert training["parameters"] == sum(p.numel() for p in model.parameters())

    body = json.loads((tmp_path / "scores.json").read_text("utf-8"))
    body["scores"][3]["right"][0] = 0.987
    (tmp_path / "scores.json").write_text(json.dumps(body), encoding="utf-8")
    assert not card_agrees(tmp_path)
    assert problems(tmp_path) == [
        f"{tmp_path / 'scores.json'} is not the file that checksums.json was made for."
    ]


def half_a_second_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every run from now on, however fast the machine; but the first two take nine."""
    between = itertools.chain([0.0, 9.0, 0.0, 9.0], itertools.cycle([0.0, 0.5]))
    clock = itertools.accumulate(between)  # read at the beginning and at the end of each step
    fake = SimpleNamespace(perf_counter=lambda: next(clock), process_time=lambda: 0.0)
    monkeypatch.setattr(resumable, "time", fake)


@pytest.mark.parametrize(("minutes", "steps"), [(1.0, 120), (0.001, 2)])
def test_minutes_become_steps(monkeypatch: pytest.MonkeyPatch, minutes: float, steps: int) -> None:
    """The first steps, which warm caches up, are no measure; no run is shorter than its warm-up."""
    half_a_second_a_step(monkeypatch)
    assert steps_in(minutes, TINY, CPU) == steps


def test_the_command_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RECIPES, "tiny", TINY)
    few = validation_tests(5, 2, ["es"])
    monkeypatch.setattr(reporting, "reading_tests", lambda *_: few)
    command = ["pretrain", "tiny", "--language", "es", "--seed", "4", "--precision", "fp32"]
    options = ["--steps", "2", "--questions", "2", "--out", str(tmp_path)]
    assert main([*command, *options, "--json"]) == 0
    printed = capsys.readouterr()
    body = json.loads(printed.out)
    assert (body["out"], body["steps"]) == (str(tmp_path), 2)
    assert [(s["name"], s["n"]) for s in body["scores"]] == [(t.name, 2) for t in few]
    assert "step/s" not in printed.err
    training = json.loads((tmp_path / "training.json").read_text("utf-8"))
    assert training["command"] == "minirag pretrain tiny --language es --steps 2 --seed 4"
    assert (training["steps"], training["seed"]) == (2, 4)
    assert training["machine"]["precision"] == "fp32"
    assert "language: [es]" in card(tmp_path)
    assert len(_losses(tmp_path)) == 2
    assert main([*command, *options]) == 64
    assert "--resume" in capsys.readouterr().err
    assert main([*command, *options, "--resume"]) == 0
    printed = capsys.readouterr()
    lines = re.findall(r"^(\S+ \S+) +[01]\.\d+ .*n = 2\)$", printed.out, re.M)
    assert lines == [t.name for t in few]
    assert f"the model is in {tmp_path}" in printed.err


@pytest.mark.parametrize(("language", "word"), [("en", "English"), ("es", "Spanish")])
def test_a_run_may_be_in_one_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, word: str
) -> None:
    assert TINY.languages == ("en", "es")
    alone = TINY.in_language(language).with_steps(2)
    assert alone.languages == (language,)
    drawn = [draw_exercise(Dice(4), alone.mix_at(step)).language for step in (0, 1) * 20]
    assert set(drawn) == {language}
    monkeypatch.setattr(reporting, "reading_tests", validation_tests)
    watching = dataclasses.replace(QUIET, report_questions=2, validate_every=1, questions=1)
    scores = pretrain(alone, tmp_path, machine=CPU, watching=watching)
    assert {s.name[:2] for s in scores} == {language}
    validations = json.loads((tmp_path / "curve.json").read_text("utf-8"))["validations"]
    assert {name[:2] for v in validations for name in v["scores"]} == {language}
    text = card(tmp_path)
    assert f"language: [{language}]" in text
    assert f"reading exercises in {word} (one" in text
    assert card_agrees(tmp_path)
    # Its vocabulary is learned from the same language.
    both, own = train_tokenizer(TINY), Tokenizer.load(tmp_path)
    sentence = "¿En qué ciudad está la posada?" if language == "es" else "In which town is the inn?"
    assert len(own.encode(sentence)) < len(both.encode(sentence))
    other = TINY.in_language("es" if language == "en" else "en").with_steps(2)
    with pytest.raises(UsageError, match="stages"):
        pretrain(other, tmp_path, machine=CPU, watching=QUIET, resume=True)
    with pytest.raises(UsageError, match="'fr'"):
        TINY.in_language("fr")


def test_answers_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    pretrain(TINY.with_steps(2), tmp_path, machine=CPU, watching=QUIET)
    model, tokenizer = load(tmp_path), Tokenizer.load(tmp_path)
    assert isinstance(model, Decoder)
    exercises = validation_tests(5, 3)[1].exercises
    together = answer_exercises(model, tokenizer, exercises)
    alone = [answer_exercises(model, tokenizer, [e])[0] for e in exercises]
    assert [a.exercise for a in together] == exercises
    assert [a.answer for a in together] == [a.answer for a in alone]


def test_a_run_may_get_another_length_before_the_rate_falls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(TINY, stages=TINY.stages[:1], decay_share=0.2)
    pretrain(recipe.with_steps(12), tmp_path / "whole", machine=CPU, watching=QUIET)
    show = watch.Meter.show

    def show_until_killed(self, step):
        if step.number == 4:
            raise _Killed
        show(self, step)

    monkeypatch.setattr(watch.Meter, "show", show_until_killed)
    watching = dataclasses.replace(QUIET, checkpoint_every=2)
    with pytest.raises(_Killed):
        pretrain(recipe.with_steps(9), tmp_path / "longer", machine=CPU, watching=watching)
    monkeypatch.undo()
    pretrain(recipe.with_steps(12), tmp_path / "longer", machine=CPU, watching=QUIET, resume=True)
    assert _losses(tmp_path / "longer") == _losses(tmp_path / "whole")


def test_stages_begin_by_share_or_at_the_latest() -> None:
    mixes = [ExerciseMix(nonce=share) for share in (0.0, 0.1, 0.2)]
    stages = (Stage(mixes[0]), Stage(mixes[1], 0.14, 300), Stage(mixes[2], 0.5, 1100))
    recipe = dataclasses.replace(GPT_BASE, stages=stages)
    short, long = recipe.with_steps(100), recipe.with_steps(100_000)
    assert [s.begins(100) for s in stages] == [0, 14, 50]
    assert [s.begins(100_000) for s in stages] == [0, 300, 1100]
    assert short.mix_at(13) == mixes[0]
    assert short.mix_at(14) == mixes[1]
    assert long.mix_at(1099) == mixes[1]
    assert long.mix_at(99_999) == mixes[2]
    hardest = max(stage.begins(2900) for stage in GPT_BASE.stages[:-1])
    assert hardest == max(stage.begins(100_000) for stage in GPT_BASE.stages[:-1])  # a lesson's run
    assert Stage(stages[0].mix, 0.5).begins(100_000) == 50_000  # no latest step is given
    with pytest.raises(UsageError, match="begin at the steps"):
        dataclasses.replace(GPT_BASE, stages=(stages[1],))
    with pytest.raises(UsageError, match="gpt-base"):
        recipe_named("gpt-vast")


def test_a_curve_is_averaged_in_whole_windows(tmp_path: Path) -> None:
    history = History(losses=[1.0, 2.0, 3.0, 5.0, 8.0])
    assert history.averaged(2) == [(2, 1.5), (4, 4.0)]
    body = json.loads(save_curve(History(losses=[1.0] * 799), tmp_path)[0].read_text("utf-8"))
    assert (body["window"], len(body["loss"])) == (2, 399)
    assert History.from_json(history.as_json()) == history


def test_precision_is_chosen_or_given() -> None:
    assert this_machine("fp32").bf16 is False
    assert this_machine("bf16").bf16 is True
    with pytest.raises(UsageError, match="fp64"):
        this_machine("fp64")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- vocabularies


def test_vocabularies_of_several_sizes_are_compared() -> None:
    small, large = compare_vocabularies(TINY, sizes=(300, 420), n=20)
    assert (small["vocab_size"], large["vocab_size"]) == (300, 420)
    assert small["tokens_per_word"] > large["tokens_per_word"] > 1
    assert small["pieces_per_domain_word"] > large["pieces_per_domain_word"] > 1
    assert small["domain_words"] == large["domain_words"] > 10
    assert 0 <= large["domain_words_in_known_pieces"] <= 1


@pytest.mark.parametrize("language", ["en", "es"])
def test_of_a_recipe_in_one_language_that_language_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    looked_at = []
    monkeypatch.setattr(vocabulary, "_text", lambda e: looked_at.append(e.language) or "one text")
    compare_vocabularies(TINY.in_language(language), sizes=(), n=20)
    assert set(looked_at) == {language}


def test_a_command_leaves_the_comparison_for_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = json.loads((weights_root() / "gpt-base" / "vocabulary.json").read_text("utf-8"))
    monkeypatch.setattr(vocabulary, "compare_vocabularies", lambda recipe: entries)
    command = ["pretrain", "--compare-vocabularies", "--out", str(tmp_path)]
    assert main([*command, "gpt-base"]) == 0
    assert json.loads((tmp_path / "vocabulary.json").read_text("utf-8")) == entries
    assert f"1,024 entries: {entries[2]['tokens_per_word']} tokens a word" in (
        capsys.readouterr().out
    )
    assert main([*command, "bert-base"]) == 64
    assert "takes the vocabulary of gpt-base" in capsys.readouterr().err


# --------------------------------------------------------------------------------------- weights


def test_weights_are_found_listed_and_verified(tmp_path: Path) -> None:
    directory = tmp_path / "gpt-test"
    directory.mkdir()
    (directory / "config.json").write_text("{}", encoding="utf-8")
    (directory / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "no-model").mkdir()
    assert shipped(tmp_path) == [directory]
    assert locate_weights("gpt-test", tmp_path) == directory
    assert "has no checksums.json" in problems(directory)[0]
    seal(directory)
    (model,) = inspect_weights(tmp_path)
    assert model.problems == []
    assert model.bytes == 2 + 7
    # printf weights | sha256sum
    assert model.sha256 == ("9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c")
    (directory / "stray.txt").write_text("?", encoding="utf-8")
    (directory / "config.json").unlink()
    found = problems(directory)
    assert any("stray.txt is not in" in p for p in found)
    assert any("config.json is missing" in p for p in found)
    for wrong in ("gpt-other", "../gpt-test", "gpt-test"):
        with pytest.raises(ModelUnavailable, match="there are no weights"):
            locate_weights(wrong, tmp_path)


def test_the_shipped_weights_are_whole_and_their_cards_agree() -> None:
    directories = shipped()
    assert (weights_root() / "gpt-base") in directories
    for directory in directories:
        assert problems(directory) == []
    for base in (directory for directory in directories if directory.name in RECIPES):
        assert card_agrees(base)
        # What everybody in the invented country knows is in these weights. Whoever changes the
        # well-known entities has to train them again.
        training = json.loads((base / "training.json").read_text("utf-8"))
        assert training["well_known"] == well_known_fingerprint()


@pytest.mark.parametrize("name", ["gpt-base", "bart-base"])
def test_the_shipped_weights_still_read(name: str) -> None:
    """Their cards say what they could when they were made; this is what they can now."""
    directory = locate_weights(name)
    tests = validation_tests(1001, 12)
    scores = evaluate_reading(load(directory), Tokenizer.load(directory), tests)
    assert len(scores) == 4
    for s in scores:
        assert s.right.value >= 0.6, s


# ------------------------------------------------------------------------------------------ slow


@pytest.mark.slow
def test_a_minute_of_pretraining_lowers_the_loss(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        GPT_BASE, d_model=128, n_layers=3, n_heads=2, d_ff=512, vocab_size=640, steps=220
    )
    pretrain(recipe, tmp_path, machine=this_machine(), watching=QUIET)
    curve = json.loads((tmp_path / "curve.json").read_text("utf-8"))
    losses = [loss for _, loss in curve["loss"]]
    assert losses[-1] < 0.6 * losses[0]
