"""Studies summed up: every number by hand, the tables, the picture, the verb."""

import hashlib
import itertools
import json
import re
import statistics

import numpy as np
import pytest
import small_bases
import tiny_retriever
from fake_encoder import HashEncoder

from minirag.cli.main import main
from minirag.combination import comparison, comparison_picture, operating_points
from minirag.combination import study as studying
from minirag.combination.arms import ARMS, DIAGNOSTICS
from minirag.combination.collection import collection_documents
from minirag.combination.compare import ArmResult, Outcome, pooled, summarize
from minirag.combination.comparison import (
    BOTH,
    N_RESAMPLES,
    cells_of,
    compare_studies,
    languages_of,
    markdown,
)
from minirag.combination.finding import Finding
from minirag.combination.seeds import CLAIM_SEEDS, DEVELOPMENT_SEEDS
from minirag.combination.study import Asked, CollectionCosts, Study, StudyResult
from minirag.corpus.dice import Dice
from minirag.corpus.slices import SLICES, slice_questions
from minirag.corpus.world import Sizes, draw_world
from minirag.errors import UsageError
from minirag.intervals import clustered_bootstrap
from minirag.retrieval.knowledge_base import RETRIEVERS, KnowledgeBase
from minirag.transformer import checkpoints

SLICES_ASKED = ("stable", "unanswerable", "mixed")


def _outcome(dice, slice, number):
    expected = None if slice == "unanswerable" else f"{number} mg"
    answer = dice.pick((expected, None, "7 ml"))
    right = answer == expected
    given = ("a", "b") if dice.chance(0.7) else ()
    golden = bool(given) and expected is not None and dice.chance(0.6)
    return Outcome(
        slice,
        f"{slice} {number}",
        f"{slice} {number}",
        expected,
        answer,
        right,
        float(right),
        False,
        given,
        golden,
    )


def study_result(study, n=5):
    """A study whose outcomes are diced."""
    asked = {}
    for language in study.languages:
        dice = Dice("outcomes", study.seed, study.k, study.retriever, language)
        slices = study.slices if "mixed" not in study.slices else SLICES_ASKED
        arms = tuple(
            ArmResult(
                arm,
                study.seed,
                tuple(_outcome(dice, s, i) for s in slices for i in range(n)),
                dice.unit(),
                100 * dice.unit(),
            )
            for arm in study.arms
        )
        findings = tuple(
            Finding(s, f"{s} {i}", f"{s} {i}", dice.between(1, 9), dice.chance(0.5))
            for s in slices
            if s != "unanswerable"
            for i in range(n)
        )
        collection = CollectionCosts(12, 3.25, 0.0421, 2_500_000)
        asked[language] = Asked(arms, findings, collection)
    reports = {
        way: {"seconds": 61.4, "tokens": 1000, "steps": 40, "stopped": "all 40 steps are done."}
        for way in ("closed-book", "raft")
    }
    sizes = {"base": 4_000_000, "closed-book": 4_000_000, "raft": 4_000_000, "encoder": 5_000_000}
    return StudyResult(study, asked, reports, sizes, dict.fromkeys(sizes, f"sum {study.seed}"))


@pytest.fixture(scope="module")
def results():
    return [study_result(Study(seed=seed)) for seed in (301, 302, 303)]


@pytest.fixture(scope="module")
def body(results):
    return compare_studies(results)


def test_every_cell_is_that_of_its_outcomes(results, body):
    assert languages_of(body) == ["en", "es", BOTH]
    n = {"en": 5, "es": 5, BOTH: 10}
    for language in languages_of(body):
        own = [
            arm
            for result in results
            for spoken, asked in result.asked.items()
            if language in (spoken, BOTH)
            for arm in asked.arms
        ]
        cells = cells_of(body, language)
        assert len(cells) == len((*ARMS, *DIAGNOSTICS)) * len(SLICES_ASKED)
        by_hand = summarize(pooled(own), n_resamples=N_RESAMPLES)
        for cell, expected in zip(cells, by_hand, strict=True):
            assert cell.n == n[language]
            assert (cell.arm, cell.slice) == (expected.arm, expected.slice)
            assert cell.right == pytest.approx(expected.right, abs=5e-5)
            assert cell.by_seed == pytest.approx(expected.by_seed, abs=5e-5)
            assert cell.right.value == pytest.approx(statistics.fmean(cell.by_seed), abs=1e-4)
            assert cell.f1_by_seed == pytest.approx(expected.f1_by_seed, abs=5e-5)


def test_differences_are_paired_by_question_within_each_world(results, body):
    names = [arm.name for arm in (*ARMS, *DIAGNOSTICS)]
    rows = [row for row in body["differences"] if row["language"] == BOTH]
    assert len(rows) == len(list(itertools.combinations(names, 2))) * len(SLICES_ASKED)
    (row,) = [
        r
        for r in rows
        if (r["one"], r["other"], r["slice"]) == ("RAFT + RAG", "fine-tuned", "stable")
    ]
    runs, about = [], []
    for result in results:
        pairs = []
        for asked in result.asked.values():
            raft, tuned = (
                [o for o in asked.arms[i].outcomes if o.slice == "stable"] for i in (4, 1)
            )
            pairs += [float(a.right) - float(b.right) for a, b in zip(raft, tuned, strict=True)]
        runs.append(pairs)
        about.append(2 * [o.about for o in raft])  # a fact's two languages are one thing
    expected = clustered_bootstrap(runs, 0, N_RESAMPLES, about=about)
    assert expected != clustered_bootstrap(runs, 0, N_RESAMPLES)
    assert row["right"] == pytest.approx(expected, abs=5e-5)
    assert row["by_seed"] == pytest.approx([statistics.fmean(run) for run in runs], abs=5e-5)


def test_what_is_lost_and_found_and_what_it_costs(results, body):
    for row in body["lost"]:
        shares = [v for v in row.values() if not isinstance(v, str)]
        assert sum(shares) == pytest.approx(1, abs=5e-4)
    found = {(row["language"], row["slice"]): row for row in body["finding"]}
    assert set(found) == {(la, s) for la in ("en", "es", BOTH) for s in ("stable", "mixed")}
    ranks = [f.rank for r in results for f in r.asked["es"].findings if f.slice == "stable"]
    for k, (value, _, _) in enumerate(found["es", "stable"]["recall"], start=1):
        assert value == pytest.approx(sum(rank <= k for rank in ranks) / len(ranks), abs=5e-5)
    speed = {row["arm"]: row for row in body["speed"]}
    seconds = [a.arms[2].seconds for r in results for a in r.asked.values()]
    assert speed["RAG"]["seconds"] == pytest.approx(statistics.fmean(seconds), abs=1e-5)
    assert [cost["seed"] for cost in body["costs"]] == body["seeds"] == [301, 302, 303]
    assert body["costs"][0]["finetune"]["raft"]["seconds"] == 61.4
    assert body["fingerprints"]["302"]["raft"] == "sum 302"
    assert body["study"]["k"] == Study().k
    assert "seed" not in body["study"]
    text = json.dumps(body["study"], sort_keys=True)
    assert body["study_sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_every_number_of_the_tables_is_one_of_the_file(body):
    text = markdown(body)
    assert text.startswith("# 5 arms and 4 diagnostics: medicine, gpt-base\n")
    numbers = set()

    def collect(node):
        if isinstance(node, dict):
            for value in node.values():
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)
        elif isinstance(node, int | float):
            for value in (node, 1e3 * node, node / 1e6):
                numbers.update(f"{abs(value):.{digits}f}" for digits in range(4))

    collect({key: body[key] for key in body if key != "study"})
    told = re.findall(r"(?<![\w@])\d+\.\d+", text.replace("−", " "))
    assert len(told) > 500
    assert set(told) <= numbers
    assert "## English" in text
    assert "## Spanish" in text
    assert "| RAFT + RAG − RAG | stable | " in text
    assert "| world 302 | indexing 12 documents (es) | 3.2 s |" in text
    assert "| world 302 | updating one of 12 documents (en) | 42 ms |" in text
    assert "| world 301 | the knowledge base of 12 documents (en) | 2.50 MB |" in text


def test_only_what_belongs_together_is_summed_up(results):
    with pytest.raises(UsageError, match="no studies to compare"):
        compare_studies([])
    with pytest.raises(UsageError, match="a seed comes twice"):
        compare_studies([results[0], results[0]])
    with pytest.raises(UsageError, match="differ in more than their seeds"):
        compare_studies([results[0], study_result(Study(seed=302, k=5))])


def test_one_language_has_no_sum_of_both(results):
    one = compare_studies([study_result(Study(seed=301, languages=("es",)))])
    assert languages_of(one) == ["es"]
    assert "## English" not in markdown(one)


def test_the_picture_shows_the_five_arms(body, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    save = comparison_picture.save_png
    monkeypatch.setattr(
        comparison_picture,
        "save_png",
        lambda figure, out: (drawn.append(figure), save(figure, out)),
    )
    comparison_picture.draw_comparison(body, tmp_path / "arms.png")
    assert (tmp_path / "arms.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = drawn[0].axes
    assert len(rows) == 2
    for axes, language in zip(rows, ("en", "es"), strict=True):
        heights = [bar.get_height() for bar in axes.patches]
        cells = {(c.arm, c.slice): c.right.value for c in cells_of(body, language)}
        assert heights == [cells[arm.name, slice] for arm in ARMS for slice in SLICES_ASKED]
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == list(SLICES_ASKED)


# ------------------------------------------------------------------------------ operating points


def test_operating_points_are_scored_on_the_seeds_given(monkeypatch, tmp_path):
    asked = []

    def run(study, cache, **_):
        asked.append(study)
        return study_result(study)

    shares = [{"least": 0.6, "right": [0.0021], "others": [0.813], "nothing": [0.428]}]
    monkeypatch.setattr(operating_points, "run_study", run)
    monkeypatch.setattr(operating_points, "try_shares", lambda *_: shares)
    body = operating_points.try_operating_points(Study("law", questions=5), (201, 203), tmp_path)
    assert {study.seed for study in asked} == {201, 203}
    assert {study.slices for study in asked} == {SLICES}
    assert [row["retriever"] for row in body["retrievers"]] == list(RETRIEVERS)
    dense = [study_result(s) for s in asked if s.retriever == "dense"]
    ranks = [f.rank for r in dense for a in r.asked.values() for f in a.findings]
    for k, (value, _, _) in enumerate(body["retrievers"][0]["recall"], start=1):
        assert value == pytest.approx(sum(rank <= k for rank in ranks) / len(ranks), abs=5e-5)
    assert [(row["k"], row["arm"]) for row in body["passages"]] == [
        (k, name) for k in range(1, 6) for name in ("RAG", "RAFT + RAG")
    ]
    results = [study_result(s) for s in asked if s.k == 4]
    right = [
        o.right
        for result in results
        for asked_in in result.asked.values()
        for arm in asked_in.arms
        if arm.arm.name == "RAFT + RAG"
        for o in arm.outcomes
    ]
    (row,) = [r for r in body["passages"] if (r["k"], r["arm"]) == (4, "RAFT + RAG")]
    assert row["right"][0] == pytest.approx(statistics.fmean(right), abs=5e-5)
    assert list(row["slices"]) == list(SLICES)
    text = operating_points.operating_points_text(body)
    assert text.splitlines()[0].endswith("201, 203")
    assert re.search(r"\n0\.60 +0\.0021 +0\.813 +0\.428\n", text)
    assert f"{row['right'][0]:.3f}" in text
    assert all(f"{share:.3f}" in text for share in row["slices"].values())


def test_shares_of_rare_words_are_counted_by_hand():
    sizes = Sizes(stable=6, unseen=6, updated=6, new=6, unanswerable=6)
    study = Study("law", questions=5, sizes=sizes, languages=("es",), k=3)
    rows = operating_points.try_shares(study, (201, 202), HashEncoder())
    assert [row["least"] for row in rows] == list(operating_points.SHARES)
    right, others, most = [], [], []
    for seed in (201, 202):
        world = draw_world("law", seed, sizes)
        base = KnowledgeBase(HashEncoder())
        base.add(collection_documents(world, "es"))
        for question in itertools.chain(*slice_questions(world, "es", 5).values()):
            hits = base.hybrid().search(question.text, 3)
            if question.document is None:
                most.append(max(hit.shared for hit in hits))
            else:
                right += [h.shared for h in hits if h.passage.document_id == question.document]
                others += [h.shared for h in hits if h.passage.document_id != question.document]
    for row in rows:
        for what, shared in (("right", right), ("others", others), ("nothing", most)):
            value, low, high = row[what]
            assert value == pytest.approx(np.mean(np.array(shared) < row["least"]), abs=5e-5)
            assert low <= value <= high
    assert rows[0]["right"][0] == rows[0]["others"][0] == 0
    assert 0 < rows[4]["others"][0] < 1


# --------------------------------------------------------------------------------------- the verb


@pytest.fixture
def diced(monkeypatch):
    """The verb without the work."""
    asked = []

    def run(study, cache, **how):
        asked.append((study, cache, how))
        return study_result(study)

    monkeypatch.setattr(studying, "run_study", run)
    monkeypatch.setattr(operating_points, "run_study", run)
    monkeypatch.setattr(comparison, "N_RESAMPLES", 20)  # what they give is tested above
    return asked


def test_the_verb_leaves_numbers_tables_and_a_picture(diced, tmp_path, capsys):
    command = ["compare", "--domain", "law", "--seeds", "2", "--questions", "5"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert [study.seed for study, _, _ in diced] == list(CLAIM_SEEDS[:2])
    assert {(study.domain, study.questions) for study, _, _ in diced} == {("law", 5)}
    assert {cache for _, cache, _ in diced} == {tmp_path}
    text = capsys.readouterr().out
    body = json.loads((tmp_path / "compare-law-gpt-base.json").read_text("utf-8"))
    assert (tmp_path / "compare-law-gpt-base.md").read_text("utf-8") == markdown(body)
    assert text.strip() == markdown(body).strip()
    assert body["command"] == "minirag compare --domain law --seeds 2 --questions 5"
    assert body["cells"] == compare_studies([study_result(s) for s, _, _ in diced])["cells"]

    assert main([*command, "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] == body["cells"]


def test_without_matplotlib_only_the_picture_is_missing(diced, tmp_path, capsys, monkeypatch):
    def missing(*_):
        raise UsageError("matplotlib is not installed: pip install 'minirag[plots]'.")

    monkeypatch.setattr(comparison_picture, "new_figure", missing)
    assert main(["compare", "--seeds", "1", "--reduced", "--out", str(tmp_path), "--json"]) == 0
    assert "warning: no picture: matplotlib is not installed" in capsys.readouterr().err
    assert (tmp_path / "compare-medicine-gpt-base-reduced.json").is_file()
    assert not list(tmp_path.glob("*.png"))
    assert diced[0][0].sizes == studying.reduced(Study()).sizes


def test_development_uses_worlds_of_its_own(diced, tmp_path, capsys):
    command = ["compare", "--development", "--seeds", "2", "--out", str(tmp_path)]
    assert main([*command, "--reduced"]) == 0
    assert {study.seed for study, _, _ in diced} == set(DEVELOPMENT_SEEDS[:2])
    assert not set(DEVELOPMENT_SEEDS) & set(CLAIM_SEEDS)
    assert capsys.readouterr().out.startswith("worlds of the development seeds")
    body = json.loads((tmp_path / "development-medicine-gpt-base-reduced.json").read_text("utf-8"))
    assert body["command"] == "minirag compare --development --seeds 2 --reduced"
    assert body["development seeds"] == list(DEVELOPMENT_SEEDS[:2])


@pytest.mark.parametrize("n", ["0", "4"])
def test_as_many_worlds_as_are_set_aside(n, capsys):
    assert main(["compare", "--seeds", n]) == 64
    assert f"--seeds is {n}: give a number from 1 to 3" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["compare"], ["map", "--run"]])
def test_where_nothing_can_be_written_is_told_before_any_work(verb, diced, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "x"
    assert main([*verb, "--reduced", "--out", str(out)]) == 5
    said = capsys.readouterr().err
    assert f"nothing can be written into {out} (" in said
    assert said.endswith("): choose another place with --out.\n")
    assert diced == []


@pytest.mark.parametrize("option", ["--questions", "--tokens"])
def test_a_count_below_one_is_told_by_its_option(option, capsys):
    verb = ["compare"] if option == "--questions" else ["map", "--run"]
    assert main([*verb, option, "0"]) == 64
    assert f"minirag: {option} is 0: give 1 or more." in capsys.readouterr().err


def test_help_names_defaults_alike(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    said = capsys.readouterr().out
    assert "a name or a directory (default: gpt-base)" in said
    assert "finds passages (default: retriever)" in said


def test_a_base_that_is_not_there(tmp_path, capsys):
    assert main(["compare", "--base", "nobody", "--reduced", "--out", str(tmp_path)]) == 2
    assert "'nobody'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_reduced_run_from_the_worlds_to_the_picture(tmp_path, capsys):
    checkpoints.save(small_bases.decoder(n_layers=1), tmp_path / "small")
    small_bases.tokenizer().save(tmp_path / "small")
    tiny_retriever.save_base(tmp_path / "finder", n_layers=1)
    command = [
        "compare", "--reduced", "--seeds", "1", "--questions", "3", "--json",
        "--base", str(tmp_path / "small"), "--encoder", str(tmp_path / "finder"),
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == first  # nothing was done twice: even the times are the same
    prints = first["fingerprints"][str(CLAIM_SEEDS[0])]
    assert len({prints["base"], prints["closed-book"], prints["raft"]}) == 3
    assert {cell["n"] for cell in first["cells"] if cell["language"] == "en"} == {3}
    assert len(list((tmp_path / "out" / "readers").iterdir())) == 2
    assert first["costs"][0]["finetune"]["raft"]["steps"] == 4


def test_models_go_by_their_names_wherever_they_lie(diced, tmp_path):
    command = ["compare", "--base", "/somewhere/my-base", "--encoder", "/else/finder"]
    assert main([*command, "--seeds", "1", "--out", str(tmp_path)]) == 0
    body = json.loads((tmp_path / "compare-medicine-my-base.json").read_text("utf-8"))
    assert (body["base"], body["study"]["base"], body["study"]["encoder"]) == (
        "my-base", "my-base", "finder",
    )  # fmt: skip
    assert diced[0][0].base == "/somewhere/my-base"


def test_mixed_questions_say_what_they_can_show(body):
    (bound,) = [
        max(c["right"][0] for c in body["cells"] if (c["arm"], c["slice"]) == (arm.name, "mixed"))
        for arm in DIAGNOSTICS[:1]
    ]
    assert f"answers {100 * bound:.1f} % of them" in markdown(body)
    without = {**body, "cells": [c for c in body["cells"] if c["slice"] != "mixed"]}
    assert "*Mixed*" not in markdown(without)
