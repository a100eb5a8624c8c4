"""The ledger: what a result depends on, what is done only once, and what the command says of it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import small_bases

from minirag import files
from minirag.cli.main import main
from minirag.combination import claims as registry
from minirag.combination import ledger
from minirag.combination.ledger import (
    Claim,
    Planned,
    Settings,
    Verdict,
    changed,
    read_result,
    results_root,
    run_claim,
)
from minirag.combination.seeds import CLAIM_SEEDS, DEVELOPMENT_SEEDS, question_seed
from minirag.combination.workbench import Workbench, sum_of
from minirag.errors import DataError, DiskError, UsageError
from minirag.intervals import Interval
from minirag.training.pretrain import DEVELOPMENT_SEED
from minirag.training.report import REPORT_SEED


@dataclass(frozen=True)
class Throwing(Settings):
    """How many dice each seed throws."""

    seeds: tuple[int, ...] = (5, 6, 7)
    development: tuple[int, ...] = (1,)
    models: tuple[str, ...] = ()
    dice: int = 4


def _run(settings: Throwing, bench: Workbench) -> Verdict:
    throws = [
        bench.piece("throw", {"seed": seed}, lambda: {"eyes": settings.dice * seed})["eyes"]  # noqa: B023
        for seed in settings.seeds
    ]
    mean = sum(throws) / len(throws)
    return Verdict(
        "holds only when", "seeds are large", f"{mean:g} eyes.", Interval(mean, 1.0, 99.0), "eyes",
        {"throws": throws},
    )  # fmt: skip


def _draw(figure: Any, results: dict[str, Any]) -> None:
    figure.subplots().plot(results["throws"])


CLAIM = Claim(
    id="T1",
    sentence="Large seeds throw more eyes.",
    rule="It is made up.",
    version=3,
    full=Throwing(),
    reduced=Throwing(seeds=(5,)),
    plan=lambda settings: [Planned("throws", len(settings.seeds), 30.0)],
    run=_run,
    draw=_draw,
)


class Unseen:
    """A figure that nobody looks at: whatever is drawn on it is forgotten."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self


@pytest.fixture(autouse=True)
def _pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where matplotlib is missing, only the picture itself can't be tested."""
    if importlib.util.find_spec("matplotlib") is None:
        monkeypatch.setattr(ledger, "new_figure", lambda width, height: Unseen())
        monkeypatch.setattr(ledger, "save_png", lambda figure, out: None)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path / "work", small_bases.CPU)


@pytest.fixture
def only_t1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command line knows one claim, and runs elsewhere."""
    monkeypatch.setattr(registry, "MODULES", {"T1": "none"})

    def claims_named(ids: tuple[str, ...] = ()) -> list[Claim[Any]]:
        return [CLAIM]

    monkeypatch.setattr(registry, "claims_named", claims_named)
    monkeypatch.chdir(tmp_path)


# ----------------------------------------------------------------------------------------- seeds


def test_what_judges_has_chosen_nothing() -> None:
    asked = [question_seed(seed) for seed in (*CLAIM_SEEDS, *DEVELOPMENT_SEEDS)]
    everything = [*CLAIM_SEEDS, *DEVELOPMENT_SEEDS, *asked, 0, DEVELOPMENT_SEED, REPORT_SEED]
    assert len(set(everything)) == len(everything)
    assert len(CLAIM_SEEDS) >= 3


# ---------------------------------------------------------------------------------------- pieces


def test_a_piece_is_done_once(tmp_path: Path, bench: Workbench) -> None:
    done = []

    def work() -> dict[str, Any]:
        done.append(1)
        return {"pair": (1, 2)}

    first = bench.piece("throw", {"b": 1, "a": [2]}, work)
    assert bench.piece("throw", {"a": [2], "b": 1}, work) == first == {"pair": [1, 2]}
    assert Workbench(tmp_path / "work", small_bases.CPU).piece("throw", {"a": [2], "b": 1}, work)
    assert len(done) == 1
    bench.piece("throw", {"a": [2], "b": 2}, work)
    lower = dataclasses.replace(small_bases.CPU, bf16=True)
    Workbench(tmp_path / "work", lower).piece("throw", {"a": [2], "b": 1}, work)
    assert len(done) == 3


@pytest.mark.parametrize("rest", ["", '{"outcome": {}', "{}", "[]", "7"])
def test_a_damaged_piece_is_done_again(tmp_path: Path, bench: Workbench, rest: str) -> None:
    bench.piece("throw", {"a": 1}, lambda: {"eyes": 1})
    (path,) = (tmp_path / "work").iterdir()
    path.write_text(rest)
    assert bench.piece("throw", {"a": 1}, lambda: {"eyes": 2}) == {"eyes": 2}


def test_seconds_are_those_of_the_pieces_whenever_they_were_done(
    tmp_path: Path, bench: Workbench
) -> None:
    for value in (1, 2):
        bench.piece("throw", {"a": value}, dict)
    for path, seconds in zip(sorted((tmp_path / "work").iterdir()), (40.0, 2.5), strict=True):
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": seconds}))
    with bench.progress("T1", 2):
        assert bench.seconds == 0
        for value in (1, 2):
            bench.piece("throw", {"a": value}, dict)
    assert bench.seconds == 42.5


def test_a_result_names_every_machine_that_its_seconds_are_of(
    tmp_path: Path, bench: Workbench
) -> None:
    _run(Throwing(seeds=(5,)), bench)
    (path,) = (tmp_path / "work").iterdir()
    elsewhere = {**small_bases.CPU.describe(), "device": "a slide rule"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": elsewhere}))
    result = run_claim(CLAIM, bench, tmp_path)
    assert result["machines"] == [elsewhere, small_bases.CPU.describe()]


def test_sums_ignore_the_order_of_keys_alone() -> None:
    assert sum_of({"a": 1, "b": [2, 3]}) == sum_of({"b": [2, 3], "a": 1})
    assert sum_of({"a": 1}) == hashlib.sha256(b'{"a": 1}').hexdigest()
    assert sum_of([2, 3]) != sum_of([3, 2])


# --------------------------------------------------------------------------------------- results


def test_a_result_says_all(tmp_path: Path, bench: Workbench) -> None:
    result = run_claim(CLAIM, bench, tmp_path)
    assert json.loads((tmp_path / "T1.json").read_text()) == result
    assert result["verdict"] == "holds only when seeds are large"
    assert (result["number"], result["interval"]) == (24.0, [1.0, 99.0])
    assert result["results"] == {"throws": [20, 24, 28]}
    assert (result["seeds"], result["command"]) == ([5, 6, 7], "minirag claims --run T1")
    assert read_result(CLAIM, tmp_path) == result
    assert changed(CLAIM, result) == []


def test_a_result_has_a_picture(tmp_path: Path, bench: Workbench) -> None:
    pytest.importorskip("matplotlib")
    run_claim(CLAIM, bench, tmp_path)
    assert (tmp_path / "T1.png").read_bytes().startswith(b"\x89PNG")


def test_a_reduced_result_is_measured_by_the_reduced_settings(
    tmp_path: Path, bench: Workbench
) -> None:
    result = run_claim(CLAIM, bench, tmp_path, reduced=True)
    assert (result["seeds"], result["command"]) == ([5], "minirag claims --run T1 --reduced")
    assert changed(CLAIM, result) == []
    other = dataclasses.replace(CLAIM, reduced=Throwing(seeds=(5,), dice=1))
    assert changed(other, result) == ["configuration, dice (4 then, 1 now)"]


def test_what_has_changed_is_named(
    tmp_path: Path, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base").mkdir()
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(b"then")
    full = Throwing(models=(str(tmp_path / "base"),))
    result = run_claim(dataclasses.replace(CLAIM, full=full), bench, tmp_path)
    weights.write_bytes(b"now")
    now = dataclasses.replace(full, seeds=(5, 6), dice=5)
    sums = [hashlib.sha256(text).hexdigest()[:12] + "…" for text in (b"then", b"now")]
    assert changed(dataclasses.replace(CLAIM, full=now, version=4), result) == [
        "configuration, dice (4 then, 5 now)",
        "experiment version (3 then, 4 now)",
        "seeds ([5, 6, 7] then, [5, 6] now)",
        f"weights, {tmp_path / 'base'} ({sums[0]} then, {sums[1]} now)",
    ]
    weights.unlink()
    (line,) = changed(dataclasses.replace(CLAIM, full=full), result)
    assert line.endswith("then, missing now)")


def test_other_wordings_of_the_worlds_make_results_old(
    tmp_path: Path, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_claim(CLAIM, bench, tmp_path)
    words = tmp_path / "phrasings"
    words.mkdir()
    for path in ledger.PHRASINGS.glob("*.json"):
        (words / path.name).write_text(json.dumps(json.loads(path.read_text("utf-8"))), "utf-8")
    monkeypatch.setattr(ledger, "PHRASINGS", words)
    assert changed(CLAIM, result) == []  # laid out otherwise, the same words
    (words / "law.en.json").write_text("{}", "utf-8")
    (line,) = changed(CLAIM, result)
    assert line.startswith("wordings (")


def test_a_kill_loses_the_piece_in_work(tmp_path: Path, bench: Workbench) -> None:
    class Killed(Exception):
        pass

    def killed(settings: Throwing, bench: Workbench) -> Verdict:
        _run(dataclasses.replace(settings, seeds=settings.seeds[:2]), bench)
        raise Killed

    with pytest.raises(Killed):
        run_claim(dataclasses.replace(CLAIM, run=killed), bench, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert len(before) == 2
    run_claim(CLAIM, bench, tmp_path / "out")
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    assert len(after) == 3
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "can't be read"),
        ("[]", "can't be read"),
        ('{"claim": "F9"}', "is no result of claim T1"),
        ('{"claim": "T1"}', "is no result of claim T1"),
    ],
)
def test_a_damaged_result_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    assert read_result(CLAIM, tmp_path) is None
    (tmp_path / "T1.json").write_text(text)
    with pytest.raises(DataError, match=f"T1.json {sentence}.*minirag claims --run T1"):
        read_result(CLAIM, tmp_path)


def test_results_lie_in_the_checkout_or_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert results_root() == Path(files.__file__).parent.parent / "lessons" / "results"
    assert files.checkout() == Path(files.__file__).parent.parent
    package = tmp_path / "site-packages" / "minirag"
    (package / "_data" / "lessons" / "results").mkdir(parents=True)
    monkeypatch.setattr(files.minirag, "__file__", str(package / "__init__.py"))
    assert files.checkout() is None
    assert results_root() == package / "_data" / "lessons" / "results"


# ------------------------------------------------------------------------------------- the command


def test_the_command_measures_and_prints(
    only_t1: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["claims", "--out", "out"]) == DataError.exit_code
    assert "there is no directory out: give the one that results" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    assert main(["claims", "--out", "out"]) == 0
    assert "not measured yet: minirag claims --run T1" in capsys.readouterr().out
    assert main(["claims", "--run", "T1", "--out", "out", "--precision", "fp32"]) == 0
    said = capsys.readouterr().out
    assert said == (
        "T1  Large seeds throw more eyes.\n"
        "    -> holds only when seeds are large.\n"
        "    24.000 [1.000, 99.000]: eyes\n"
        "    24 eyes.\n"
        "    seeds 5, 6, 7; minirag claims --run T1; out/T1.json\n"
    )
    assert len(list((tmp_path / "runs" / "claims" / "pieces").iterdir())) == 3
    assert main(["claims", "--out", "out", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["out of date"], body["not measured"]) == ([], [])
    assert body["claims"][0]["result"]["verdict"] == "holds only when seeds are large"


def test_the_check_fails_and_says_why(
    only_t1: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").mkdir()
    for way in ([], ["--json"]):  # nothing to check is no success
        assert main(["claims", "--check", "--out", "out", *way]) == DataError.exit_code
        said = capsys.readouterr()
        assert "no claim has been measured yet, so there is nothing to check in out" in said.err
    assert json.loads(said.out)["not measured"] == ["T1"]
    main(["claims", "--run", "--out", "out"])
    assert main(["claims", "--check", "--out", "out"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(registry, "claims_named", lambda ids=(): [
        dataclasses.replace(CLAIM, version=4)
    ])  # fmt: skip
    assert main(["claims", "--check", "--out", "out"]) == 1
    said = capsys.readouterr()
    assert "OUT OF DATE: experiment version (3 then, 4 now)" in said.out
    assert "Measure again: minirag claims --run T1" in said.err
    assert main(["claims", "--out", "out"]) == 0  # without --check it is only said
    assert main(["claims", "--check", "--json", "--out", "out"]) == 1


def test_the_check_names_what_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    other = dataclasses.replace(CLAIM, id="T2")
    monkeypatch.setattr(registry, "claims_named", lambda ids=(): [CLAIM] if ids else [CLAIM, other])
    main(["claims", "--run", "T1", "--out", "out"])
    capsys.readouterr()
    assert main(["claims", "--check", "--out", "out"]) == 0  # what was never measured is not old
    assert capsys.readouterr().err == "not measured yet: T2\n"
    assert main(["claims", "--check", "--out", "out", "--json"]) == 0
    said = capsys.readouterr()
    assert (json.loads(said.out)["not measured"], said.err) == (["T2"], "")


def test_a_run_that_can_not_write_is_refused_at_once(
    only_t1: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["claims", "--run", "T1", "--out", "file/x"]) == DiskError.exit_code
    assert "nothing can be written into file" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_reduced_run_writes_elsewhere(
    only_t1: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = {path.name for path in results_root().iterdir()}
    assert main(["claims", "--run", "T1", "--reduced"]) == 0
    assert "(Reduced: proves nothing.)" in capsys.readouterr().out
    assert (tmp_path / "runs" / "claims" / "reduced" / "T1.json").is_file()
    assert {path.name for path in results_root().iterdir()} == shipped


def test_an_installed_minirag_keeps_its_results(
    only_t1: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(files, "checkout", lambda: None)
    assert main(["claims", "--run", "T1"]) == UsageError.exit_code
    assert "give a directory for yours with --out" in capsys.readouterr().err


def test_the_plan_adds_up(only_t1: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "--plan"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[-1] == "1.5"
    main(["claims", "--plan", "--reduced", "--json"])
    body = json.loads(capsys.readouterr().out)
    assert body == {
        "plan": {"T1": [{"what": "throws", "pieces": 1, "seconds": 30.0, "shared": 0}]},
        "minutes": 0.5,
    }


def test_an_unknown_claim_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "--run", "F77"]) == UsageError.exit_code
    assert "there is no claim 'F77': give some of F1, F2" in capsys.readouterr().err


def test_a_picture_needs_matplotlib_before_anything_is_trained(
    tmp_path: Path, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(width: float, height: float) -> Any:
        raise UsageError("matplotlib is not installed")

    monkeypatch.setattr(ledger, "new_figure", missing)
    with pytest.raises(UsageError, match="matplotlib"):
        run_claim(CLAIM, bench, tmp_path)
    assert not (tmp_path / "work").exists()
