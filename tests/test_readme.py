"""What the README says was measured is what the result files hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from minirag.combination.arms import ARMS
from minirag.combination.claims import claims_named
from minirag.corpus.slices import SLICES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
RESULTS = ROOT / "lessons" / "results"
MEDICINE = ("medicine", "en")


def _tables(heading: str) -> list[list[list[str]]]:
    """The tables of a section: their rows, without the lines under the heads; a text a cell."""
    section = re.split(rf"^## {heading}$", README, flags=re.M)[1].split("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, flags=re.M)
    return [
        [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in table.splitlines()
            if not set(line) <= set("|-: ")
        ]
        for table in tables
    ]


def _percent(interval: list[float]) -> str:
    value, low, high = (f"{100 * x:.0f}" for x in interval)
    return f"{value} [{low}, {high}]"


def test_the_arms_are_right_as_often_as_it_says() -> None:
    head, *rows = _tables("What came out")[0]
    assert head[1:] == list(SLICES)
    assert [row[0] for row in rows] == [arm.name for arm in ARMS]
    result = json.loads((RESULTS / "compare-medicine-gpt-base.json").read_text("utf-8"))
    cells = {(c["arm"], c["slice"]): c for c in result["cells"] if c["language"] == "both"}
    for arm, *scores in rows:
        assert scores == [_percent(cells[arm, slice]["right"]) for slice in SLICES]
    n = {cells[arm.name, slice]["n"] for arm in ARMS for slice in SLICES}
    assert f"worlds {', '.join(map(str, result['seeds']))}" in README
    assert f"{min(n)} questions of each kind in each world" in " ".join(README.split())


def test_the_sentences_say_what_the_result_says() -> None:
    result = json.loads((RESULTS / "compare-medicine-gpt-base.json").read_text("utf-8"))
    domain = ("stable", "unseen", "updated", "new")
    both = [row for key in ("finding", "lost") for row in result[key] if row["language"] == "both"]

    def mean(key: str) -> float:
        """Over the domain's slices, in per cent."""
        rows = [
            r for r in both if r["slice"] in domain and r.get("arm", "RAFT + RAG") == "RAFT + RAG"
        ]
        values = [r[key][0][0] if key == "recall" else r[key] for r in rows if key in r]
        assert len(values) == 4
        return 100 * sum(values) / 4

    (unanswerable,) = (
        r for r in both if (r.get("arm"), r["slice"]) == ("RAFT + RAG", "unanswerable")
    )
    text = " ".join(README.split())
    assert f"finds the document in {mean('recall'):.0f} of 100 cases" in text
    assert f"misreads {mean('reading'):.0f} and refuses {mean('refusing'):.0f};" in text
    assert f"answers {100 * unanswerable['refusing']:.0f} all the same" in text


def test_the_verdicts_are_those_of_the_ledger() -> None:
    _, *rows = _tables("What came out")[1]
    measured = [claim for claim in claims_named(()) if (RESULTS / f"{claim.id}.json").is_file()]
    assert [row[0] for row in rows] == [claim.id for claim in measured]
    for (_, sentence, verdict), claim in zip(rows, measured, strict=True):
        result = json.loads((RESULTS / f"{claim.id}.json").read_text("utf-8"))
        assert sentence == claim.sentence
        assert verdict == result["verdict"]
        assert not result["reduced"]


def test_the_largest_knowledge_is_told() -> None:
    results = json.loads((RESULTS / "X2.json").read_text("utf-8"))["results"]
    met = f"up to {results['sizes'][-1]['facts']} facts, each met {results['exposures']} times"
    assert met in " ".join(README.split())


@pytest.mark.parametrize("name", sorted(set(re.findall(r"lessons/results/([\w.-]+)", README))))
def test_the_files_that_it_names_are_there(name: str) -> None:
    assert (RESULTS / name.rstrip(".")).exists()


def test_the_readers_differ_among_many_passages_as_it_says() -> None:
    costs = json.loads((RESULTS / "passages.json").read_text("utf-8"))["costs"]
    of = {(cost["reader"], cost["passages"]): cost for cost in costs}
    gpt, bart = of["gpt-base", 30], of["bart-base", 30]
    assert gpt["right"][2] < 0.25  # "loses its way": the upper end of the interval
    assert bart["right"][1] > 0.5  # "most answers": the lower end
    thirty, one = (
        100 * of["bart-base", n]["seconds"] / of["gpt-base", n]["seconds"] - 100 for n in (30, 1)
    )
    text = " ".join(README.split())
    assert f"It takes {thirty:.0f} % longer for thirty passages, {one:.0f} % for one" in text
    assert f"--questions {gpt['n']} " in text


def test_a_conversation_was_measured_as_it_says() -> None:
    measured = json.loads((RESULTS / "dialogue.json").read_text("utf-8"))
    text = " ".join(README.split())
    (talk,) = (r for r in measured["follow-ups"] if (r["domain"], r["language"]) == MEDICINE)
    (hybrid,) = (r["recall"] for r in talk["recalls"] if r["way"] == "hybrid")
    typed, whole = (100 * hybrid[how][0] for how in ("as typed", "rewritten"))
    assert f"in {typed:.0f} of 100 cases as they are typed, in {whole:.0f} once" in text
    command = talk["command"].replace(" --language en", "")  # which is the default
    asked = len(talk["seeds"]) * talk["n"]
    assert f"(`{command}`; {asked} follow-ups in three worlds)" in text
    words, vectors = (
        next(r["rates"] for r in measured["faq"]
             if (r["faq"], r["language"]) == MEDICINE and bool(r["encoder"]) == vectors)
        for vectors in (False, True)
    )  # fmt: skip
    assert f"and {100 * words['recall'][0]:.0f} of 100 questions that it could answer" in text
    assert f"vectors {100 * vectors['recall'][0]:.0f} do" in text
    assert f"{100 * vectors['precision'][0]:.0f} of 100 answers are right" in text


def _task_row(entry: dict[str, Any]) -> list[str]:
    """What the table of tasks says about one of them."""
    about = [f"{entry['task']}: {entry['what']}", entry["base"]]
    if entry["task"] == "generate":
        before, after = (f"perplexity {entry[key]:.1f}" for key in ("before", "after"))
        return [*about, f"{entry['tokens']:,} tokens", f"before: {before}", after]
    best = max(entry["baselines"], key=lambda name: entry["baselines"][name][0])
    share, low, high = entry["after"]
    return [
        *about,
        f"{entry['n']:,}",
        f"{best}: {entry['baselines'][best][0]:.2f}",
        f"{entry['measure']} {share:.2f} [{low:.2f}, {high:.2f}]",
    ]


def test_generality_is_kept_as_it_says() -> None:
    trainings = json.loads((RESULTS / "F5.json").read_text("utf-8"))["results"]["trainings"]
    rows = {(row["way"], row["remedy"]): row for row in trainings}
    general, domain = "change in general", "gained in the domain"
    lower = rows["raft", "a lower rate alone"]
    for remedy in ("early stopping", "rehearsal", "both"):
        by_heart, reading = rows["closed-book", remedy], rows["raft", remedy]
        # "no remedy keeps what is general and learns any of them"
        assert by_heart[general][1] <= -0.03 or by_heart[domain][0] <= 0
        # "a lower rate alone keeps as much as a remedy": the intervals overlap
        assert lower[general][1] < reading[general][2]
        assert reading[general][1] < lower[general][2]
        assert lower[domain][0] >= reading[domain][0] > 0


def test_the_tasks_are_done_as_well_as_it_says() -> None:
    _, *rows = _tables("Tasks of their own")[0]
    entries = json.loads((RESULTS / "tasks.json").read_text("utf-8"))
    assert rows == [_task_row(entry) for entry in entries]
    # "won little", "as well as", "as high": the intervals overlap
    for what, baseline in (("fields of", "from scratch"), ("MeQSum", "one for all")):
        little = [entry for entry in entries if what in entry["what"]]
        assert little
        assert all(e["after"][1] < e["baselines"][baseline][2] for e in little)
    # "at most a fifth"
    kept = [e["general reading"] for e in entries if e["task"] == "summarise"]
    assert all(after <= before / 5 for before, after in kept)


def test_its_python_is_python_of_this_package() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        lines = [line for line in block.splitlines() if line.startswith(("from ", "import "))]
        exec("\n".join(lines), {})
        compile(block, "README.md", "exec")
