"""When a reader refuses: the probability of it, other points, and what they would cost."""

from __future__ import annotations

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
from minirag.corpus.questions import Question, ReadingExercise
from minirag.errors import DataError, UsageError
from minirag.intervals import wilson_interval
from minirag.rag.pipeline import Answer, Settings
from minirag.rag.reading import ReadingPipeline, Refusal, TrainedReader
from minirag.text.reading_format import UNKNOWN
from minirag.training import report as reporting
from minirag.training.evaluate_reading import Answered, answer_exercises, prompts_of, score
from minirag.training.pretrain import Watching, pretrain
from minirag.training.recipes import Recipe, Stage
from minirag.training.refusing import Readiness, questions, readiness, trade_off
from minirag.training.report import REPORT_SEED, languages_of
from minirag.transformer import checkpoints
from minirag.transformer.models import Decoder, EncoderDecoder

SOME = st.lists(st.builds(Readiness, st.floats(0, 1), st.booleans(), st.booleans()), min_size=1)


def _reader(
    kind: str, directory: Path, ready: float = 1.0
) -> tuple[Decoder | EncoderDecoder, TrainedReader]:
    """A reader of random weights; with ``ready`` above 1 it refuses some questions greedily."""
    make = small_bases.decoder if kind == "decoder" else small_bases.encoder_decoder
    model = make(seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(6)
            if len(parameter) == small_bases.tokenizer().vocab_size:
                parameter[small_bases.tokenizer().id_of(UNKNOWN)] *= ready
    checkpoints.save(model, directory)
    small_bases.tokenizer().save(directory)
    return model, TrainedReader.load(directory)


@pytest.mark.parametrize(
    ("kind", "ready"),
    [("decoder", 6.0), ("encoder-decoder", 2.0), ("encoder-decoder", 6.0)],  # the last: sure of one
)
def test_readiness_is_the_probability_of_a_refusal(kind: str, ready: float, tmp_path: Path) -> None:
    model, reader = _reader(kind, tmp_path, ready)
    tokenizer, exercises = reader.tokenizer, small_bases.exercises(12)
    found = readiness(model, tokenizer, exercises)
    assert len({said.refusing for said in found}) == len(found)
    # the definition, one question after the other
    unknown = tokenizer.id_of(UNKNOWN)
    for parts, said in zip(prompts_of(model, tokenizer, exercises), found, strict=True):
        with torch.inference_mode():
            ids = torch.tensor([parts[-1]])
            if isinstance(model, EncoderDecoder):
                read = [model.encode(torch.tensor([part])) for part in parts[:-1]]
                states = model(ids, torch.cat(read, dim=1), None)
            else:
                states = model(ids)
            expected = model.logits(states[:, -1])[0].softmax(-1)
        assert said.refusing == pytest.approx(float(expected[unknown]), rel=1e-3, abs=1e-7)
        assert said.greedy == (int(expected.argmax()) == unknown)
    # greedy writing refuses where the readiness says so, and answers as it says where it doesn't
    assert {said.greedy for said in found} == {True, False}
    for answered, said in zip(answer_exercises(model, tokenizer, exercises), found, strict=True):
        if said.greedy:
            assert answered.answer is None
        else:
            assert answered.right == said.right


def test_a_pipeline_refuses_from_where_it_is_told(tmp_path: Path) -> None:
    _, reader = _reader("decoder", tmp_path)
    for least, kind in ((0.0, Refusal), (1.0, Answer)):
        pipeline = ReadingPipeline(None, reader, Settings(refuse_from=least))
        assert isinstance(pipeline.ask("How high is Mount Tor?"), kind)


def test_an_answer_is_right_by_its_own_language_and_refusals_are_counted_apart() -> None:
    answered = [
        Answered(ReadingExercise((), (Question("When?", gold, None, ""),), language, ""), said)
        for language, gold, said in (
            ("es", "el lunes", "lunes"),  # without its article it is the same,
            ("en", "el lunes", "lunes"),  # which in English is no article
            ("en", "the Monday", "Monday."),
            ("en", None, None),
            ("en", None, "Monday"),
            ("es", "el lunes", None),
            ("es", "el lunes", "el martes"),
        )
    ]
    assert [a.right for a in answered] == [True, False, True, True, False, False, False]
    counted = score("by hand", answered)
    assert (counted.name, counted.n) == ("by hand", 7)
    assert counted.right == wilson_interval(3, 7)
    assert counted.refused == wilson_interval(2, 7)


def test_a_point_counts_who_refuses() -> None:
    with_answer = [
        Readiness(0.1, False, True),
        Readiness(0.3, False, False),
        Readiness(0.4, True, True),
        Readiness(0.9, True, True),
    ]
    without = [Readiness(0.2, False, False), Readiness(0.8, True, False)]
    greedy, middle = trade_off(with_answer, without, [None, 0.2])
    assert (greedy.refused[0], greedy.refused_in_vain[0], greedy.answered[0]) == (0.5, 0.5, 0.25)
    assert (middle.refused[0], middle.refused_in_vain[0], middle.answered[0]) == (1, 0.75, 0.25)
    assert greedy.line().split()[:2] == ["likeliest", "0.500"]
    assert middle.line().split()[:2] == ["0.20", "1.000"]
    assert middle.as_json()["refused"][0] == 1.0
    with pytest.raises(UsageError, match="both kinds"):
        trade_off([], without, [0.5])
    with pytest.raises(UsageError, match="both kinds"):
        trade_off(with_answer, [], [0.5])


@given(SOME, SOME, st.floats(0, 1), st.floats(0, 1))
def test_a_lower_point_refuses_more_and_answers_less(
    with_answer: list[Readiness], without: list[Readiness], one: float, other: float
) -> None:
    low, high = trade_off(with_answer, without, sorted((one, other)))
    assert low.refused[0] >= high.refused[0]
    assert low.refused_in_vain[0] >= high.refused_in_vain[0]
    assert low.answered[0] <= high.answered[0]
    for point in (low, high):
        assert point.answered[0] + point.refused_in_vain[0] <= 1 + 1e-9


@pytest.mark.parametrize("domain", ["general", "medicine"])
def test_questions_of_both_kinds(domain: str) -> None:
    with_answer, without = questions(domain, 1, 3)
    assert len(with_answer) == len(without) == 12
    assert all(e.questions[0].answer is not None for e in with_answer)
    assert all(e.questions[0].answer is None for e in without)
    assert {e.language for e in with_answer} == {"en", "es"}
    assert {len(e.passages) for e in without} == ({1, 3} if domain == "general" else {2, 3})
    assert questions(domain, 1, 3, ["en"])[0] == with_answer[:6]


# ------------------------------------------------------------------------------ on the command line


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader pretrained for three steps, in English alone."""
    mix = ExerciseMix(passages=(1.0,), facts=(2, 2), english=1.0)
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
        stages=(Stage(mix),),
    )
    out = tmp_path_factory.mktemp("models") / "tiny"
    quiet = Watching(validate_every=0, checkpoint_every=0, report_questions=0, bar=False)
    pretrain(recipe, out, machine=small_bases.CPU, watching=quiet)
    return out


def test_a_pretrained_model_is_tested_again(
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[tuple[int, int]] = []
    tests = reporting.reading_tests

    def few(seed, n, languages):
        asked.append((seed, n))
        return list(itertools.islice(tests(seed, n, languages), 2))

    monkeypatch.setattr(reporting, "reading_tests", few)
    assert languages_of(tiny) == ("en",)
    assert main(["evaluate", "--model", str(tiny), "--limit", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = [score.as_json() for score in reporting.base_scores(tiny, REPORT_SEED, 2, ["en"])]
    assert (told["seed"], told["scores"]) == (REPORT_SEED, expected)
    assert told["command"] == f"minirag evaluate --model {tiny} --limit 2"
    assert [score["name"] for score in expected] == ["en/1 passage", "en/2 passages"]
    assert main(["evaluate", "--model", str(tiny), "--limit", "2", "--seed", "9"]) == 0
    assert "en/1 passage" in capsys.readouterr().out
    assert asked == [(REPORT_SEED, 2), (REPORT_SEED, 2), (9, 2)]

    assert main(["evaluate", "--model", str(tiny / "none")]) == 2
    assert "or one of gpt-base, bert-base, bart-base" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(tiny), "--limit", "0"]) == 64
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(DataError, match="does not tell what the model has learned"):
        languages_of(tmp_path)


def test_a_reader_is_weighed(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weigh = ["calibrate", "--reader", str(tiny), "--limit", "2", "--language", "en"]
    assert main([*weigh, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["domain"], told["with an answer"], told["without an answer"]) == ("general", 4, 4)
    assert [point["least"] for point in told["points"]][:2] == [None, 0.5]
    assert main([*weigh, "--domain", "law"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("4 questions with and 4 without an answer, law, en")
    assert max(map(len, out)) <= 80
    assert out[3].split()[0] == "likeliest"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--squad", "x.json", "--domain", "law"], 64, "--domain goes with --reader"),
        (["--squad", "x.json", "--language", "es"], 64, "--language goes with --reader"),
        (["--reader", "gpt-base", "--encoder", "x"], 64, "--encoder goes with --squad"),
        (["--reader", "gpt-base", "--precision", "bf16"], 64, "--precision goes with --squad"),
        (["--reader", "gpt-base", "--limit", "0"], 64, "--limit is 0"),
        (["--reader", "bert-base"], 6, "is an encoder"),
        (["--reader", "nobody"], 2, "nobody"),
    ],
)
def test_what_can_not_be_weighed_is_told(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *arguments]) == code
    assert said in capsys.readouterr().err
