"""When a reader refuses: chosen on development questions, kept beside the weights, used by all."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import small_bases
import torch
from hypothesis import given
from hypothesis import strategies as st

from minirag.cli.main import main
from minirag.corpus.exercises import ExerciseMix
from minirag.errors import CheckpointError, DataError, UsageError
from minirag.finetuning.again import measure_again
from minirag.finetuning.base import Base
from minirag.finetuning.config import FineTuneConfig, LaboratoryData
from minirag.finetuning.finetune import finetune
from minirag.finetuning.laboratory import laboratory_data
from minirag.rag.pipeline import Answer, Settings
from minirag.rag.reading import ReadingPipeline, Refusal, TrainedReader
from minirag.text.reading_format import UNKNOWN
from minirag.training import report as reporting
from minirag.training.card import card_agrees
from minirag.training.evaluate_reading import answer_exercises, prompts_of
from minirag.training.pretrain import Watching, pretrain
from minirag.training.recipes import Recipe, Stage
from minirag.training.refusing import (
    REFUSING,
    RefusalPoint,
    how_it_refuses,
    lowest_point,
    readiness,
    refuse_from,
    trade_off,
)
from minirag.training.report import DEVELOPMENT_SEED, REPORT_SEED, refusal_questions
from minirag.training.weights import problems
from minirag.transformer import checkpoints
from minirag.transformer.models import Decoder, EncoderDecoder

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=40)
POINT = lowest_point([0.1, 0.2, 0.9], [0.05, 0.3, 0.95, 0.99], most_false=0.4, seed=5)


# ---------------------------------------------------------------------------------- choosing it


def test_the_point_is_just_above_the_first_that_has_to_be_answered() -> None:
    assert (POINT.least, POINT.right.value, POINT.false.value) == (0.201, 0.75, 1 / 3)
    assert (POINT.answerable, POINT.unanswerable, POINT.seed, POINT.most_false) == (3, 4, 5, 0.4)
    assert lowest_point([0.1], [0.5], most_false=1.0).least == 0.0
    assert lowest_point([1.0, 0.0], [0.5], most_false=0.0).least == 1.0


@given(SHARES, SHARES, st.floats(0, 1))
def test_no_more_is_refused_than_may_be_and_no_lower_point_does_it(
    answerable: list[float], unanswerable: list[float], most_false: float
) -> None:
    point = lowest_point(answerable, unanswerable, most_false=most_false)
    n = len(answerable)
    refused = sum(p >= point.least for p in answerable)
    assert point.false.value == refused / n
    if max(answerable) < 1:  # a reader that is wholly sure can't be stopped
        assert refused <= most_false * n
    lower = point.least - 0.001
    if lower >= 0:
        assert sum(p >= lower for p in answerable) > most_false * n - 1e-9
    assert point.right.value == sum(p >= point.least for p in unanswerable) / len(unanswerable)


def test_without_questions_nothing_is_chosen() -> None:
    for answerable, unanswerable in (([], [0.5]), ([0.5], [])):
        with pytest.raises(UsageError, match="can't be chosen"):
            lowest_point(answerable, unanswerable, most_false=0.1)
    with pytest.raises(UsageError, match=r"most_false is 1\.5"):
        lowest_point([0.5], [0.5], most_false=1.5)


def test_the_table_counts_both_kinds() -> None:
    lines = trade_off([0.1, 0.2, 0.9], [0.05, 0.3, 0.95, 0.99], [0.5, 0.2]).splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:2] == ["0.500", "0.500"]
    assert "0.333" in lines[1]
    assert lines[2].split()[:2] == ["0.200", "0.750"]
    assert "0.667" in lines[2]


def test_what_it_is_chosen_by_no_report_asks() -> None:
    chosen_by = refusal_questions(4)
    assert chosen_by.seed == DEVELOPMENT_SEED != REPORT_SEED
    assert len(chosen_by.answerable) == len(chosen_by.unanswerable) == 16
    assert all(e.questions[0].answer is None for e in chosen_by.unanswerable)
    assert all(e.questions[0].answer is not None for e in chosen_by.answerable)
    asked = {e for test in reporting.reading_tests(REPORT_SEED, 4) for e in test.exercises}
    assert not asked & {*chosen_by.answerable, *chosen_by.unanswerable}

    what = LaboratoryData(way="raft", entities=8, changing=0, exercises=8, questions=3)
    data = laboratory_data(what)
    assert data.refusals is not None
    chosen_by = data.refusals()
    assert len(chosen_by.answerable) == len(chosen_by.unanswerable) == 12
    held = [*data.train, *(e for test in data.test.domain for e in test.exercises)]
    known = {p for e in held for p in e.passages}
    assert not known & {
        p for e in (*chosen_by.answerable, *chosen_by.unanswerable) for p in e.passages
    }
    assert chosen_by == data.refusals()  # however often it is asked for
    closed_book = laboratory_data(dataclasses.replace(what, way="closed-book"))
    assert closed_book.refusals is None


# ------------------------------------------------------------------------------------ keeping it


def test_it_is_kept_beside_the_weights(tmp_path: Path) -> None:
    assert (RefusalPoint.load(tmp_path), refuse_from(tmp_path)) == (None, None)
    assert how_it_refuses(tmp_path) == ""
    POINT.save(tmp_path)
    kept = RefusalPoint.load(tmp_path)
    assert kept is not None
    assert (kept.least, kept.answerable, kept.seed) == (0.201, 3, 5)
    assert kept.right == pytest.approx(POINT.right, abs=1e-4)
    assert refuse_from(tmp_path) == 0.201
    said = " ".join(how_it_refuses(tmp_path).split())
    assert "probability of 0.201 or more" in said
    assert "at most 40 % of 3 answerable" in said
    assert "4 unanswerable ones 75.0 % were" in said


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"least": 0.5}', json.dumps({**dataclasses.asdict(POINT), "least": 2})],
)
def test_a_file_that_says_nothing_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / REFUSING).write_text(text)
    with pytest.raises(CheckpointError, match="does not say when to refuse"):
        refuse_from(tmp_path)


# ------------------------------------------------------------------------------------- using it


def _reader(kind: str, directory: Path) -> tuple[Decoder | EncoderDecoder, TrainedReader]:
    """A reader of random weights that is undecided: refusals are as likely as all else."""
    make = small_bases.decoder if kind == "decoder" else small_bases.encoder_decoder
    model = make(seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
    checkpoints.save(model, directory)
    small_bases.tokenizer().save(directory)
    return model, TrainedReader.load(directory)


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_a_reader_refuses_from_its_point_on(kind: str, tmp_path: Path) -> None:
    model, reader = _reader(kind, tmp_path)
    assert reader.refuse_from is None
    tokenizer, exercises = reader.tokenizer, small_bases.exercises(12)
    ready = readiness(model, tokenizer, exercises)
    assert len(set(ready)) == len(ready)
    # the definition, one question after the other
    unknown = tokenizer.id_of(UNKNOWN)
    for parts, share in zip(prompts_of(model, tokenizer, exercises), ready, strict=True):
        with torch.inference_mode():
            ids = torch.tensor([parts[-1]])
            if isinstance(model, EncoderDecoder):
                read = [model.encode(torch.tensor([part])) for part in parts[:-1]]
                states = model(ids, torch.cat(read, dim=1), None)
            else:
                states = model(ids)
            expected = model.logits(states[:, -1])[0].softmax(-1)[unknown]
        assert share == pytest.approx(float(expected), rel=1e-3)
    for least in (0.0, sorted(ready)[6], 1.0):
        answered = answer_exercises(model, tokenizer, exercises, refuse_from=least)
        refused = [share >= least for share in ready]
        assert [a.answer is None for a in answered if a.answer is None or a.answer] == refused


def test_a_pipeline_refuses_as_its_reader_does(tmp_path: Path) -> None:
    _reader("decoder", tmp_path)
    for least, kind in ((0.0, Refusal), (1.0, Answer)):
        dataclasses.replace(POINT, least=least).save(tmp_path)
        asked = TrainedReader.load(tmp_path)
        assert asked.refuse_from == least
        result = ReadingPipeline(None, asked, Settings()).ask("How high is Mount Tor?")
        assert isinstance(result, kind)
    assert Base.load(str(tmp_path)).refuse_from == 1.0


# ------------------------------------------------------------------------------- making models


def test_of_a_pretrained_reader_it_is_chosen_when_somebody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(
        name="tiny",
        vocab_size=320,
        tokenizer_exercises=60,
        d_model=16,
        n_layers=1,
        n_heads=2,
        d_ff=16,
        max_length=2000,
        steps=3,
        tokens_per_batch=600,
        warmup_steps=1,
        stages=(Stage(ExerciseMix(passages=(1.0,), facts=(2, 2))),),
    )
    seen: list[float | None] = []
    evaluate = reporting.evaluate_reading

    def watched(model, tokenizer, tests, least):
        seen.append(least)
        return evaluate(model, tokenizer, list(itertools.islice(tests, 2)), least)

    monkeypatch.setattr(reporting, "evaluate_reading", watched)
    quiet = Watching(validate_every=0, checkpoint_every=0, report_questions=2, bar=False)
    pretrain(recipe, tmp_path / "tiny", machine=small_bases.CPU, watching=quiet)
    assert seen == [None]
    assert RefusalPoint.load(tmp_path / "tiny") is None

    # the same tests again, in other worlds, from the command line
    capsys.readouterr()
    assert main(["evaluate", "--model", str(tmp_path / "tiny"), "--limit", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seed"], len(told["scores"])) == (REPORT_SEED, 2)
    assert told["scores"] == json.loads((tmp_path / "tiny" / "scores.json").read_text())["scores"]
    assert main(["evaluate", "--model", str(tmp_path / "tiny"), "--limit", "2", "--seed", "9"]) == 0
    assert "en/1 passage" in capsys.readouterr().out
    assert main(["evaluate", "--model", str(tmp_path / "none")]) == 2
    assert "there is no model" in capsys.readouterr().err

    # and the point: looking keeps nothing
    calibrate = ["calibrate", "--reader", str(tmp_path / "tiny"), "--limit", "2"]
    assert main([*calibrate, "--json"]) == 0
    least = json.loads(capsys.readouterr().out)["least"]
    assert RefusalPoint.load(tmp_path / "tiny") is None
    assert main([*calibrate, "--save"]) == 0
    assert f"{least:.3f} or more" in capsys.readouterr().out
    point = RefusalPoint.load(tmp_path / "tiny")
    assert point is not None
    assert (point.least, point.answerable, point.seed) == (least, 8, DEVELOPMENT_SEED)
    assert seen[-1] == least
    assert how_it_refuses(tmp_path / "tiny") in (tmp_path / "tiny" / "README.md").read_text("utf-8")
    assert card_agrees(tmp_path / "tiny")
    assert problems(tmp_path / "tiny") == []


def test_a_fine_tuning_chooses_it_after_its_steps(tmp_path: Path) -> None:
    base = dataclasses.replace(small_bases.base(), refuse_from=0.0)
    data = small_bases.data("raft")
    config = FineTuneConfig(max_steps=2, validate_every=0, tokens_per_batch=600)
    out = tmp_path / "small-medicine-raft"
    report = finetune(base, data, config, out, machine=small_bases.CPU)
    assert report.refusing is not None
    assert refuse_from(out) == report.refusing.least
    assert f"or more: {report.refusing.right}" in report.table()
    assert how_it_refuses(out) in (out / "README.md").read_text("utf-8")
    assert problems(out) == []
    # the base refused all, as it was told to
    assert {score.refused.value for score in report.before.domain} == {1.0}

    silent = finetune(base, dataclasses.replace(data, refusals=None), config, None)
    assert silent.refusing is None


def test_a_finished_reader_is_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints.save(small_bases.decoder(), tmp_path / "small")
    small_bases.tokenizer().save(tmp_path / "small")
    base = dataclasses.replace(Base.load(str(tmp_path / "small")), name=str(tmp_path / "small"))
    what = LaboratoryData(
        way="raft", entities=8, changing=0, exercises=16, questions=2, questions_on_the_way=2
    )
    config = FineTuneConfig(max_steps=2, validate_every=0, tokens_per_batch=600)
    out = tmp_path / "reader"
    report = finetune(base, laboratory_data(what), config, out, machine=small_bases.CPU)
    assert report.refusing is not None
    whole = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    (out / REFUSING).unlink()
    measure_again(out, report.refusing)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == whole
    assert main(["calibrate", "--reader", str(out), "--limit", "1"]) == 0

    checkpoints.save(small_bases.decoder(seed=9), tmp_path / "small")
    with pytest.raises(UsageError, match="its weights differ"):
        measure_again(out, POINT)
    written = json.loads((out / "finetune.json").read_text("utf-8"))
    written["laboratory"]["way"] = "closed-book"
    (out / "finetune.json").write_text(json.dumps(written))
    assert main(["calibrate", "--reader", str(out)]) == 64
    assert "was not taught to refuse" in capsys.readouterr().err
    (out / "finetune.json").write_text("{}")
    with pytest.raises(DataError, match="does not tell"):
        measure_again(out, POINT)


def test_the_ways_out_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--squad", "x.json", "--save"]) == 64
    assert "--save goes with --reader" in capsys.readouterr().err
    assert main(["calibrate", "--reader", "gpt-base", "--seed", "2"]) == 64
    assert "--encoder and --seed go with --squad" in capsys.readouterr().err
    assert main(["calibrate", "--reader", "bert-base"]) == 6
    assert "is an encoder" in capsys.readouterr().err
