"""Learning to write: summaries beside their baselines, a domain's text and what is copied of it."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import pytest
import small_bases
import tiny_models

from minirag.cli.main import main
from minirag.corpus.questions import ReadingExercise
from minirag.errors import DataError, DocumentError, UsageError
from minirag.finetuning import domain_text, summaries
from minirag.finetuning.base import Base
from minirag.finetuning.config import FineTuneConfig, LaboratoryData
from minirag.finetuning.domain_text import (
    TextSource,
    count_written,
    finetune_text,
    laboratory_text,
    texts_from,
)
from minirag.finetuning.from_scratch import FROM_SCRATCH
from minirag.finetuning.run import RESULT
from minirag.finetuning.summaries import (
    ASKED,
    LaboratorySummaries,
    SummaryFile,
    finetune_summaries,
    first_sentence,
    laboratory_summaries,
    most_typical,
    summaries_from,
    summary_exercise,
)
from minirag.finetuning.writing import (
    Likelihood,
    Writing,
    WritingData,
    WritingReport,
    WritingValidation,
    assemble,
    likeness,
)
from minirag.intervals import bootstrap_interval, paired_bootstrap
from minirag.metrics import Copied, rouge_l
from minirag.training.curves import History
from minirag.training.evaluate_reading import ReadingTest
from minirag.training.loop import Step
from minirag.transformer import checkpoints
from minirag.transformer.generation import Sampling
from minirag.transformer.models import Decoder

BASE = small_bases.base()
CONFIG = FineTuneConfig(
    epochs=9, max_steps=4, tokens_per_batch=600, rate=1e-2, validate_every=4, checkpoint_every=1,
    patience=None,
)  # fmt: skip


def _few(data: WritingData, n: int = 2) -> WritingData:
    """What a test has time for."""

    def less(tests):
        return dataclasses.replace(
            tests,
            domain=[dataclasses.replace(t, exercises=t.exercises[:n]) for t in tests.domain],
            general=[dataclasses.replace(t, exercises=t.exercises[:1]) for t in tests.general[:1]],
            held_out=tests.held_out[:n],
            general_text=tests.general_text[:1],
        )

    return dataclasses.replace(
        data, validation=less(data.validation), test=less(data.test), max_new_tokens=6
    )


def _asked(tests) -> list[ReadingExercise]:
    return [e for t in tests.domain for e in t.exercises]


# ------------------------------------------------------------------------------- data of summaries


@pytest.mark.parametrize("domain", ["medicine", "law"])
def test_the_laboratory_s_summaries_share_no_name(domain: str) -> None:
    data = laboratory_summaries(
        LaboratorySummaries(domain, texts=40, questions=6, questions_on_the_way=4), BASE
    )
    draw = summaries.case_notes if domain == "medicine" else summaries.acts
    trained = "\n".join(e.passages[0] for e in data.train).lower()
    assert len(data.train) == 40
    for language in ("en", "es"):
        names = {name.lower() for item in draw(0, language, 20) for name in item.names}
        assert sum(name in trained for name in names) == len(names)
        for tests, n in ((data.validation, 4), (data.test, 6)):
            asked = [e for e in _asked(tests) if e.language == language]
            assert len(asked) == n
            assert not any(name in e.passages[0].lower() for e in asked for name in names)
            assert all(e.questions[0].text == ASKED[language] for e in asked)
    assert data.validation.held_out == _asked(data.validation)
    assert not {e.passages for e in _asked(data.validation)} & {
        e.passages for e in _asked(data.test)
    }
    longest = max(
        len(BASE.tokenizer.encode(e.questions[0].answer or "", special=False)) for e in data.train
    )
    assert longest <= data.max_new_tokens <= longest + 16


def _table(path: Path, rows: list[tuple[str, str]], names: tuple[str, str] = ("text", "summary")):
    path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows))
    return path


def _rows(n: int) -> list[tuple[str, str]]:
    return [(f"Case {i}: the fever fell on day {i}. All is well.", f"FELL {i}") for i in range(n)]


def test_a_file_is_divided_and_what_does_not_count_is_counted(tmp_path: Path) -> None:
    rows = _rows(30)
    rows += [
        ("CASE 3 the fever fell on day 3; all is well!", "Again."),  # the same words
        ("Too long. " * 40, "Long."),
        ("Dice: redúzcase la dosis a la mitad.", "REDUZCASE LA DOSIS"),
        ("", "Nothing."),
        ("Something.", " ... "),
    ]
    path = _table(tmp_path / "notes.jsonl", rows)
    what = SummaryFile(path, most_characters=300, lower_case=True, seed=3)
    data = summaries_from(what, BASE)
    assert data.notes == (
        "2 rows of notes.jsonl have no text or no summary: left out.",
        "1 rows of notes.jsonl are longer than 300 characters: left out.",
        "1 rows of notes.jsonl hold their summary word for word: left out.",
        "1 rows of notes.jsonl came before: left out.",
    )
    parts = [data.train, _asked(data.validation), _asked(data.test)]
    assert [len(part) for part in parts] == [24, 3, 3]
    texts = [e.passages[0] for part in parts for e in part]
    assert sorted(texts) == sorted(text for text, _ in rows[:30])
    assert {e.questions[0].answer for part in parts for e in part} == {
        f"fell {i}" for i in range(30)
    }
    assert summaries_from(what, BASE).fingerprint() == data.fingerprint()
    other = summaries_from(dataclasses.replace(what, seed=4), BASE)
    assert {e.passages for e in other.train} != {e.passages for e in data.train}
    few = summaries_from(dataclasses.replace(what, limit=10), BASE)
    assert len(few.train) == 8


def test_a_test_file_of_one_s_own_takes_its_texts_out_of_the_training(tmp_path: Path) -> None:
    train = _table(tmp_path / "a.jsonl", _rows(12), ("question", "short"))
    test = _table(tmp_path / "b.jsonl", _rows(15)[10:], ("question", "short"))
    data = summaries_from(
        SummaryFile(train, test, "question", "short", language="es", questions=4), BASE
    )
    assert data.notes == ("2 texts of a.jsonl are in the test, too: left out.",)
    assert len(data.train) == 9
    assert [e.passages[0] for e in _asked(data.test)] == [text for text, _ in _rows(15)[10:14]]
    assert {e.questions[0].text for e in data.train} == {ASKED["es"]}


def test_summaries_that_can_not_be_learned_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"too few texts are left.*2 rows of a\.jsonl have no text"):
        summaries_from(SummaryFile(_table(tmp_path / "a.jsonl", [("", "x"), (" ", "y")])), BASE)
    with pytest.raises(DataError, match="no column 'text'"):
        summaries_from(SummaryFile(_table(tmp_path / "b.jsonl", _rows(3), ("a", "summary"))), BASE)
    for wrong, said in (
        ({"domain": "news"}, "give medicine or law"),
        ({"languages": ()}, "give en, es or both"),
        ({"languages": ("fr",)}, "fr"),
        ({"texts": 0}, "texts is 0: give 1 or more"),
        ({"world_seed": 1001}, "the seed 1001 is kept for tests"),
    ):
        with pytest.raises(UsageError, match=said):
            LaboratorySummaries(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="limit is 0: give 1 or more"):
        SummaryFile(tmp_path, limit=0)
    long = small_bases.base(small_bases.decoder(max_length=32))
    with pytest.raises(DataError, match="there is nothing to learn from"):
        summaries_from(SummaryFile(_table(tmp_path / "c.jsonl", _rows(5))), long)


# --------------------------------------------------------------------------------------- baselines


def test_lead_1_is_the_first_sentence() -> None:
    assert first_sentence(" Ley N° 5\nArt. 1. Se crea. Fin.") == "Ley N° 5\nArt."
    assert first_sentence("Is it? Yes.") == "Is it?"
    assert first_sentence("Title\n\nBody.") == "Title"
    assert first_sentence("At 3.5 mg daily") == "At 3.5 mg daily"


def test_one_for_all_is_the_most_like_all_others_of_its_language() -> None:
    said = ["a b c d", "a b c", "x y", "a b q r s"]
    learned = [summary_exercise("t", text, "en") for text in (*said, "a b c")]
    learned.append(summary_exercise("t", "z", "es"))
    best = max(said, key=lambda one: sum(rouge_l(one, other) for other in said))
    assert most_typical(learned, 0) == {"en": best, "es": "z"}


def test_likeness_is_the_mean_rouge_l_with_its_interval() -> None:
    exercises = [summary_exercise("t", text, "en") for text in ("a b", "c d e", "f")]
    found = likeness("some", ["a x", "e d c", "f"], exercises)
    each = [rouge_l("a x", "a b"), rouge_l("e d c", "c d e"), 1.0]
    assert found.each == tuple(each)
    assert found.rouge == bootstrap_interval(each, seed=0)


# ---------------------------------------------------------------------------------- a whole summary


def _summary_data(n: int = 8) -> WritingData:
    train, test = (
        [summary_exercise(text, short, "en") for text, short in rows]
        for rows in (_rows(n + 2)[2:], _rows(2))
    )
    tests = [ReadingTest("cases", test)]
    data = _few(
        assemble(
            BASE, "cases", train, tests, tests, scored=True, languages=("en",),
            notes=("one is gone.",),
        )
    )  # fmt: skip
    validation, last = (
        dataclasses.replace(t, general=[]) for t in (data.validation, data.test)
    )  # asking takes long
    return dataclasses.replace(data, validation=validation, test=last)


class _Killed(Exception):
    pass


def _kill_at(monkeypatch: pytest.MonkeyPatch, step: int, run: int = 0) -> None:
    """The baseline is run 0, the pretrained base run 1."""
    begun: list[int] = []
    note = Writing.note

    def note_until_killed(self: Writing, done: Step, *seconds: float) -> None:
        begun.extend([0] if done.number == 0 else [])
        if done.number == step and len(begun) == run + 1:
            raise _Killed
        note(self, done, *seconds)

    monkeypatch.setattr(Writing, "note", note_until_killed)


def test_a_killed_run_of_summaries_goes_on_where_it_was(tmp_path: Path, monkeypatch) -> None:
    data, told = _summary_data(), []
    options = {"machine": small_bases.CPU}
    whole = finetune_summaries(BASE, data, CONFIG, tmp_path / "whole", tell=told.append, **options)
    assert "note: one is gone." in told
    place = tmp_path / "killed"
    _kill_at(monkeypatch, 2)
    with pytest.raises(_Killed):
        finetune_summaries(BASE, data, CONFIG, place, **options)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="add --resume"):
        finetune_summaries(BASE, data, CONFIG, place, **options)
    _kill_at(monkeypatch, 3, run=0)  # resumed behind step 0: the main run is the first to begin
    with pytest.raises(_Killed):
        finetune_summaries(BASE, data, CONFIG, place, resume=True, **options)
    monkeypatch.undo()
    baseline = (place / FROM_SCRATCH / RESULT).read_bytes()
    resumed = finetune_summaries(BASE, data, CONFIG, place, resume=True, **options)
    assert (place / FROM_SCRATCH / RESULT).read_bytes() == baseline  # not trained again
    assert resumed.finetuned.history.losses == whole.finetuned.history.losses
    assert resumed.finetuned.after == whole.finetuned.after
    assert whole.scratch is not None
    assert resumed.scratch is not None
    for key in ("before", "after", "config", "steps"):
        assert resumed.scratch[key] == whole.scratch[key]
    with pytest.raises(UsageError, match="no run to resume"):
        finetune_summaries(BASE, data, CONFIG, tmp_path / "none", resume=True, **options)

    # what it says
    tests = data.test.domain
    lead = [
        rouge_l(first_sentence(e.passages[0]), e.questions[0].answer) for e in _asked(data.test)
    ]
    said = json.loads((tmp_path / "whole" / "summaries.json").read_text("utf-8"))
    assert said == json.loads(json.dumps(whole.as_json()))
    assert said["baselines"]["lead_1"][0]["rouge_l"][0] == pytest.approx(sum(lead) / 2, abs=1e-4)
    assert said["baselines"]["from_scratch"] == whole.scratch["after"]["tests"]
    assert said["from_scratch_config"]["rate"] == summaries.SCRATCH_RATE
    after = whole.finetuned.after.tests[0]
    assert whole.over_lead() == [paired_bootstrap(after.each, lead, seed=0)]
    assert [e.written for e in whole.examples] == list(after.written)
    assert whole.finetuned.after.held_out.loss < whole.finetuned.before.held_out.loss
    table = whole.table()
    for part in ("lead 1, cases", "one for all, cases", "from scratch, cases", "forgetting: "):
        assert part in table
    assert f"fine-tuned minus lead-1, {tests[0].name}: -" in table
    assert not (place / "checkpoint").exists()
    assert not (place / FROM_SCRATCH / "checkpoint").exists()
    again = Base.load(str(place))
    found = summaries.Writing(again, data, CONFIG, tmp_path / "x", small_bases.CPU).measure(
        data.test
    )
    assert found.held_out.nll == pytest.approx(resumed.finetuned.after.held_out.nll, rel=1e-6)


def test_an_encoder_decoder_summarises_too(tmp_path: Path) -> None:
    base = small_bases.base(small_bases.encoder_decoder())
    data = _summary_data(4)
    report = finetune_summaries(
        base, data, CONFIG, tmp_path, scratch_rate=None, machine=small_bases.CPU
    )
    assert report.scratch is None
    assert report.as_json()["baselines"]["from_scratch"] is None
    assert report.finetuned.after.held_out.loss < report.finetuned.before.held_out.loss


def test_a_chat_model_learns_in_its_own_format(tmp_path: Path) -> None:
    reader = tiny_models.tiny_reader()
    base = Base("tiny", Decoder(reader.model.config, seed=1).eval(), reader.tokenizer)
    train = [summary_exercise(text, short, "en") for text, short in _rows(12)]
    tests = [ReadingTest("cases", train[:2])]
    data = assemble(base, "cases", train[2:], tests, tests, scored=True, languages=("en",))
    assert data.test.general == []
    assert data.test.general_text == []
    report = finetune_summaries(
        base, dataclasses.replace(data, max_new_tokens=5), CONFIG, tmp_path, scratch_rate=None,
        machine=small_bases.CPU,
    )  # fmt: skip
    assert report.finetuned.after.held_out.loss < report.finetuned.before.held_out.loss
    assert Base.load(str(tmp_path)).tokenizer.chat_template == tiny_models.TEMPLATE
    assert "in general" not in report.table()
    with pytest.raises(UsageError, match="nothing tells what tiny forgets"):
        finetune_summaries(
            base,
            data,
            dataclasses.replace(CONFIG, max_forgetting=0.1),
            tmp_path / "b",
            scratch_rate=None,
        )


# ------------------------------------------------------------------------------ stopping, the table


def _found(rouge: list[float], nll: float, general: float = 0.0) -> WritingValidation:
    exercises = [summary_exercise("t", "a b", "en") for _ in rouge]
    test = dataclasses.replace(likeness("t", ["a b"] * len(rouge), exercises), each=tuple(rouge))
    test = dataclasses.replace(test, rouge=bootstrap_interval(rouge, seed=0))
    return WritingValidation([test], Likelihood(nll, 10, 20), [], Likelihood(general, 10, 20))


def test_the_best_has_the_highest_rouge_l_and_then_the_lowest_loss(tmp_path: Path) -> None:
    run = Writing(BASE, _summary_data(4), CONFIG, tmp_path, small_bases.CPU)
    assert run.merit(_found([0.5, 0.7], 30.0)) == ([pytest.approx(0.6), -3.0], True)
    assert run.entry(_found([0.5, 0.7], 30.0, 20.0)) == {
        "scores": {"domain": 0.6},
        "losses": {"held out": 3.0},
        "perplexities": {"domain": 20.086, "general": 7.389},
    }
    assert run.line(_found([0.5, 0.7], 30.0)) == "ROUGE-L 0.600, held-out loss 3.000"
    plain = dataclasses.replace(_found([0.5], 30.0), tests=[])
    assert run.merit(plain) == ([-3.0], True)


def test_the_table_compares_tokens_bytes_and_what_was_forgotten() -> None:
    then, now = _found([0.1, 0.3], 30.0, 10.0), _found([0.6, 0.8], 20.0, 15.0)
    report = WritingReport(
        base="small", data="cases", laboratory=None, config=CONFIG, model=BASE.model, weights=[],
        before=then, after=now, history=History(), steps=4, kept_step=4, averaged=0, stopped="",
        seconds=1.0, processor_seconds=1.0, tokens=1, epoch_steps=4, optimizer_bytes=0,
        cache_bytes=0, notes=[], base_sha256="", machine={}, command="",
    )  # fmt: skip
    table = report.table()
    assert f"{bootstrap_interval([0.6, 0.8], seed=0)}" in table
    assert "20.086                7.389" in table  # exp(3), exp(2)
    assert "4.482                 2.718" in table  # exp(30 / 20), exp(20 / 20)
    assert "2.164                 1.443" in table  # bits
    assert "forgetting: perplexity of general text +64.9 %" in table  # exp(.5)
    assert report.as_json()["after"]["held_out"] == {
        "perplexity": 7.389, "bits_per_byte": 1.4427, "perplexity_per_byte": 2.7183, "tokens": 10,
        "bytes": 20,
    }  # fmt: skip


# ------------------------------------------------------------------------------------- domain text


def _folder(path: Path, n: int, words: int = 60) -> Path:
    path.mkdir()
    for i in range(n):
        lines = "\n\n".join(
            f"Step {k} of page {i} sets option{i}x{k} to ñ{k * i}." for k in range(words // 6)
        )
        (path / f"p{i}.md").write_text(f"# Page {i}\n\n{lines}\n", "utf-8")
    return path


def test_documents_are_cut_alike_for_all_tokenizers_and_divided_whole(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "docs", 12, words=300)
    (folder / "p0.md").write_text((folder / "p1.md").read_text("utf-8"), "utf-8")
    data = texts_from(TextSource(folder), BASE)
    parts = [data.train, data.validation.held_out, data.test.held_out]
    texts = [[e.passages[0] for e in part] for part in parts]
    flat = [text for part in texts for text in part]
    assert all(len(text.encode()) <= 960 for text in flat)
    assert len(set(flat)) == len(flat)
    (note,) = data.notes
    repeated = int(note.split()[0])
    assert "came before: left out" in note
    assert repeated > 1
    pages = [{p for p in range(12) if any(f"page {p} " in t for t in part)} for part in texts]
    assert not pages[0] & pages[1] | pages[0] & pages[2] | pages[1] & pages[2]
    assert set().union(*pages) == set(range(1, 12))
    for page in pages[0]:  # nothing of a document is lost but white space
        whole = "".join((folder / f"p{page}.md").read_text("utf-8").split())
        inside = ["".join(t.split()) for t in texts[0] if f"page {page} " in t]
        assert all(piece in whole for piece in inside)
        assert sum(map(len, inside)) == len(whole)
    reader = tiny_models.tiny_reader(max_length=2048)
    other = texts_from(TextSource(folder), Base("tiny", reader.model, reader.tokenizer))
    assert [e.passages for e in other.test.held_out] == [e.passages for e in data.test.held_out]
    assert (other.test.general, other.test.general_text) == ([], [])
    assert data.test.general
    assert data.test.general_text
    with_general = texts_from(
        TextSource(folder, general=_folder(tmp_path / "other", 2), limit=3), BASE
    )
    assert len(with_general.train) == 3
    assert all("Step" in e.passages[0] for e in with_general.test.general_text)


def test_answers_are_learned_from_their_questions(tmp_path: Path) -> None:
    rows = [(f"What is disease {i}?", f"Disease {i} is number {i}.") for i in range(10)]
    rows += [("What is disease 3?", "Another one."), ("Which?", "Disease 4 is number 4."),
             ("Long?", "x" * 40), ("", "Nobody asked.")]  # fmt: skip
    path = tmp_path / "faq.csv.gz"
    lines = "\n".join(f"{q},{a}" for q, a in rows)
    path.write_bytes(gzip.compress(f"q,a\n{lines}\n".encode()))
    data = texts_from(TextSource(path, "q", "a", most_characters=30), BASE)
    assert data.notes == (
        "1 rows have no question or no answer: left out.",
        "1 answers are longer than 30 characters: left out.",
        "2 pieces or answers came before: left out, so that none is twice.",
    )
    every = [*data.train, *data.validation.held_out, *data.test.held_out]
    assert len(every) == 10
    assert all(e.passages == () for e in every)
    assert len({e.questions[0].answer for e in every}) == 10


def test_the_laboratory_s_text_is_held_out_by_entity() -> None:
    what = LaboratoryData(entities=6, changing=2, paraphrases=1, languages=("es",), questions=2)
    data = laboratory_text(what, BASE)
    assert data.laboratory == dataclasses.replace(what, way="pretraining")
    assert len(data.train) == 8
    assert {e.language for e in data.test.held_out} == {"es"}
    assert not {e.passages for e in data.train} & {e.passages for e in data.test.held_out}


def test_text_that_can_not_be_learned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"docs has 2 documents .* at least 3 are needed"):
        texts_from(TextSource(_folder(tmp_path / "docs", 2)), BASE)
    with pytest.raises(DocumentError, match="there is no file or folder"):
        texts_from(TextSource(tmp_path / "none"), BASE)
    writer = small_bases.base(small_bases.encoder_decoder())
    with pytest.raises(UsageError, match="writes from a text that it has read"):
        texts_from(TextSource(tmp_path / "docs"), writer)
    with pytest.raises(UsageError, match="held_out is 0: give 1 or more"):
        TextSource(tmp_path, held_out=0)


def test_what_is_written_is_counted_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    data = _few(texts_from(TextSource(_folder(tmp_path / "docs", 30)), BASE), 4)
    config = dataclasses.replace(CONFIG, rest_weight=1.0)
    sampling = Sampling(max_new_tokens=9, temperature=0.9, seed=4)
    report = finetune_text(
        BASE, data, config, tmp_path / "out", sampling=sampling, n_samples=3,
        machine=small_bases.CPU,
    )  # fmt: skip
    assert report.finetuned.after.held_out.loss < report.finetuned.before.held_out.loss
    said = json.loads((tmp_path / "out" / domain_text.SAMPLES).read_text("utf-8"))
    assert said == json.loads(json.dumps(report.as_json()))
    learned = Copied(e.passages[0] for e in data.train)
    held_out = {e.passages[0]: e for e in data.test.held_out}
    chosen = []
    for sample in report.samples:
        (text,) = [t for t in held_out if t.startswith(sample.given)]
        assert len(sample.given.split()) == 8
        assert "".join(text.split()) == "".join((sample.given + sample.reference).split())
        chosen.append(held_out[text])
    assert domain_text.write_on(BASE.model, BASE.tokenizer, chosen, sampling) == [
        sample.before for sample in report.samples
    ]
    assert report.after == count_written([s.after for s in report.samples], learned)
    for part in ("by people, held out", "given:", "copied words", "bits per byte"):
        assert part in report.table()
    with pytest.raises(UsageError, match="n_samples is 0: give 1 or more"):
        finetune_text(BASE, data, config, tmp_path / "no", n_samples=0)


# ------------------------------------------------------------------------------------ command line


@pytest.fixture
def base_dir(tmp_path: Path) -> Path:
    checkpoints.save(small_bases.decoder(), tmp_path / "base")
    small_bases.tokenizer().save(tmp_path / "base")
    return tmp_path / "base"


def test_the_command_summarises_and_generates(tmp_path: Path, base_dir: Path, capsys) -> None:
    command = [
        "finetune", "--base", str(base_dir), "--language", "es", "--questions", "1", "--steps", "1",
        "--batch-tokens", "900", "--precision", "fp32",
    ]  # fmt: skip
    summarise = [*command, "--task", "summarise", "--exercises", "3"]
    assert main([*summarise, "--no-scratch", "--out", str(tmp_path / "s")]) == 0
    printed = capsys.readouterr()
    assert "lead 1, es/case notes" in printed.out
    assert "of the weights move" in printed.err
    docs = _folder(tmp_path / "docs", 4, words=12)
    generate = [*command, "--task", "generate", "--data", str(docs), "--samples", "1", "--json"]
    assert main([*generate, "--out", str(tmp_path / "g")]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["out"] == str(tmp_path / "g")
    assert len(body["samples"]) == 1
    assert set(body["written"]) == {"before", "after", "held_out"}
    assert body["finetuned"]["config"]["rest_weight"] == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "summarise", "--question-column", "q"], "goes with --task generate"),
        (["--task", "summarise", "--limit", "3"], "--limit goes with --data"),
        (["--task", "summarise", "--test", "x.tsv"], "--test goes with --data"),
        (["--task", "generate", "--general", "docs"], "--general goes with --data"),
        (["--task", "generate", "--data", "d", "--test", "t"], "and not with --task generate"),
    ],
)
def test_options_that_do_not_go_together(base_dir: Path, capsys, options, said: str) -> None:
    assert main(["finetune", "--base", str(base_dir), *options]) == 64
    assert said in capsys.readouterr().err


def test_a_public_model_is_given_adapters(tmp_path: Path, capsys) -> None:
    place = tiny_models.save_reader(tmp_path / "chat")
    data = _table(tmp_path / "notes.jsonl", _rows(6))
    command = [
        "finetune", "--base", str(place), "--task", "summarise", "--data", str(data), "--language",
        "en", "--steps", "1", "--questions", "1", "--precision", "fp32",
    ]  # fmt: skip
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert "LoRA of rank 8 moves" in told
    assert "too large to be trained from scratch" in told
    assert (tmp_path / "out" / "adapter.safetensors").is_file()
