"""`chat`, `faq` and their measurements on the command line: what comes in, what goes out."""

from __future__ import annotations

import io
import json
import shlex
import sys
import threading

import pytest
from tiny_models import save_encoder, save_reader

from minirag import files
from minirag.cli.answers import unbroken
from minirag.cli.main import main
from minirag.errors import DiskError
from minirag.rag.faq import Faq, FaqEntry
from minirag.rag.faq_threshold import default_threshold
from minirag.rag.pipeline import Pipeline

PAGES = {
    "fufidum.md": "# Fufidum\n\nFufidum is stored in the cold. Adults take 5 mg.\n",
    "febedum.md": "# Febedum\n\nFebedum is stored in the dark. Adults take 7 mg.\n",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("models")
    return {
        "encoder": str(save_encoder(place / "tiny-encoder")),
        "reader": str(save_reader(place / "tiny-reader")),
    }


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a verb with this input; returns the exit code, what it printed, and its stderr."""
    monkeypatch.setenv("MINIRAG_CACHE", str(tmp_path / "cache"))

    def run(*arguments: object, stdin=None) -> tuple[int, str, str]:
        given = io.StringIO(stdin) if isinstance(stdin, str | None) else stdin
        monkeypatch.setattr(sys, "stdin", given)
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as leaving:  # argparse's way out
            code = int(leaving.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.fixture
def chat(call, models, tmp_path):
    for name, text in PAGES.items():
        (tmp_path / "docs").mkdir(exist_ok=True)
        (tmp_path / "docs" / name).write_text(text, "utf-8")

    def run(stdin, *arguments: object) -> tuple[int, str, str]:
        given = ("--docs", tmp_path / "docs", "--encoder", models["encoder"])
        given += ("--reader", models["reader"], "--threshold", -1, "--max-new-tokens", 5)
        return call("chat", *given, *arguments, stdin=stdin)

    return run


# -- chat ------------------------------------------------------------------------------------------


def test_a_pipe_gets_an_object_for_each_line(chat) -> None:
    lines = "How is fufidum stored?\n\n  And febedum?\n/sources\nHow is fufidum stored?\r\n"
    code, out, err = chat(lines, "--json", "--retriever", "lexical")
    first, second, sources, third = map(json.loads, out.splitlines())
    assert (code, err) == (0, "")
    asked = [(t["question"], t["searched"], t["rewritten"], t["rule"]) for t in (first, second)]
    assert asked == [
        ("How is fufidum stored?", "How is fufidum stored?", False, None),
        ("And febedum?", "How is febedum stored?", True, "name"),
    ]
    assert second["retrieved"][0]["document"] == "febedum.md"
    assert "load" not in second["timings"]
    assert sources["command"] == "/sources"
    assert sources["sources"] == second["retrieved"]
    assert third["answer"] == first["answer"]  # the history is not read


def test_a_transcript_shows_question_rewrite_and_sources(chat) -> None:
    code, out, err = chat("How is fufidum stored?\nAnd febedum?\n/sources\n", "--retriever=lexical")
    assert (code, err.replace("warning: cut off after 5 tokens: see --max-new-tokens.\n", "")) == (
        0,
        "",
    )
    assert out.startswith("? How is fufidum stored?\n")
    before, _, after = out.partition("? And febedum?\n")
    assert "[searching for:" not in before
    assert after.startswith("[searching for: How is febedum stored?]\n")
    assert after.count("tiny-reader, tiny-encoder; 0.") == 1
    assert "s to start" not in out
    shown = after[after.rindex("[1]") :]
    assert PAGES["febedum.md"].strip() in out  # in full, with its lines
    assert "[2]" in shown


def test_reset_forgets_and_wrong_lines_are_said_and_passed_over(chat) -> None:
    lines = "How is fufidum stored?\n/reset\nAnd febedum?\n/fly me\n" + "why " * 700 + "\n/help\n"
    code, out, _ = chat(lines, "--json")
    _, reset, again, wrong, long, help_ = map(json.loads, out.splitlines())
    assert code == 0
    assert reset == {"command": "/reset", "forgotten": 1}
    assert (again["searched"], again["rule"]) == ("And febedum?", None)
    assert wrong["error"] == "there is no command /fly: /help lists them."
    assert "shorter question" in long["error"]
    assert "/sources" in help_["help"]
    code, out, err = chat("/sources\n/reset\n/fly\n/help\n/quit\nHow is fufidum stored?\n")
    assert (code, err) == (0, "minirag: there is no command /fly: /help lists them.\n")
    assert out.splitlines()[:2] == ["Nothing has been asked yet.", "Forgot 0 turns."]
    assert out.splitlines()[2].startswith("/sources: ")
    assert len(out.splitlines()) == 3  # nothing after /quit


def test_if_no_question_could_be_asked_the_exit_code_is_the_errors(chat) -> None:
    long = "why " * 700
    assert chat(f"{long}\n")[0] == 64
    assert chat(f"{long}\nHow is fufidum stored?\n/fly\n")[0] == 0
    assert chat("/fly\n")[0] == 0  # no question at all


def test_long_sources_are_wrapped(chat, tmp_path) -> None:
    (tmp_path / "docs").mkdir(exist_ok=True)
    (tmp_path / "docs" / "long.md").write_text("# Long\n\n" + "A word. " * 40, "utf-8")
    out = chat("A word?\n/sources\n")[1]
    assert "A word. A word." in out
    assert max(map(len, out.splitlines())) <= 80


def test_the_breaks_of_an_editor_go_and_no_others() -> None:
    broken = "A word that goes on and on, to the far right margin of an editor,"
    lines = ["# Word", "", broken, "and on. ", "A word.", f"- {broken}", "- a word", "1. one"]
    lines += [f"| {broken} |", "a cell", f"    {broken}", "code", broken, "2. two", "  further in"]
    assert unbroken("\n".join(lines)) == [
        *("# Word", "", f"{broken} and on.", "A word.", f"- {broken}", "- a word", "1. one"),
        *(f"| {broken} |", "a cell", f"    {broken}", "code", broken, "2. two", "  further in"),
    ]


def test_in_spanish_the_commands_answer_in_spanish(capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/sources\n/reset\n/help\n"))
    assert main(["chat", "--domain", "medicine", "--language", "es"]) == 0
    nothing, forgot, commands = capsys.readouterr().out.splitlines()
    assert nothing == "Aún no se ha preguntado nada."
    assert forgot == "Olvidados 0 turnos."
    assert commands.startswith("/sources: los pasajes")


def test_only_so_many_turns_are_remembered(chat) -> None:
    lines = "How is fufidum stored?\n" * 3 + "/reset\n"
    _, out, _ = chat(lines, "--json", "--history-turns", 2)
    assert json.loads(out.splitlines()[-1]) == {"command": "/reset", "forgotten": 2}
    for option, value, says in (
        ("--history-turns", 0, "--history-turns is 0"),
        ("--history-tokens", -1, "--history-tokens is -1"),
    ):
        code, out, err = chat("How?\n", option, value)
        assert (code, out) == (64, "")
        assert says in err


class Terminal(io.StringIO):
    """What is typed at a terminal."""

    def isatty(self) -> bool:
        return True


def test_ctrl_d_and_ctrl_c_end_politely(chat, monkeypatch) -> None:
    typed = iter(["How is fufidum stored?", "/reset"])

    def says(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", says)
    code, out, _ = chat(Terminal())
    assert code == 0
    assert out.startswith("/sources: ")  # what one may type
    assert "? How" not in out  # the terminal shows it already
    assert out.endswith("Forgot 1 turn.\n\n")

    def interrupts(self, question, on_text=None):
        on_text("It is ")
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "ask", interrupts)  # in the middle of an answer
    code, out, err = chat("How is fufidum stored?\nnever asked\n")
    assert (code, out, err) == (130, "? How is fufidum stored?\nIt is ", "\n")


def test_chat_needs_documents(call) -> None:
    code, out, err = call("chat", stdin="")
    assert (code, out) == (64, "")
    assert "--kb --docs --domain is required" in err


# -- faq -------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "faq.jsonl"
    faq = Faq()
    faq.add([FaqEntry("hours", "When do you open?", "At  nine."),
             FaqEntry("card", "How much is a card?", "12 crowns.")])  # fmt: skip
    faq.save(path)
    return path


def test_faq_answers_or_says_that_it_does_not(call, file) -> None:
    code, out, err = call("faq", "ask", file, "when do YOU open")
    assert (code, err) == (0, "")
    assert out == "At  nine.\n    [hours] When do you open?  likeness 1.00\n"
    _, out, _ = call("faq", "ask", file, "Is there a dog?", "--json")
    reply = json.loads(out)
    assert (reply["answer"], reply["id"], reply["threshold"]) == (None, None, 0.64)
    assert reply["nearest"] == {
        "id": "card", "question": "How much is a card?", "answer": "12 crowns.",
    }  # fmt: skip
    _, out, _ = call("faq", "ask", file, stdin="Is there a dog?\nA cat?\n")
    out = " ".join(out.split())
    assert out.count("below 0.64 it is taken for another question.") == 2
    assert out.count("Measured at 0.64: 87 to 96 % of the answers were right, and 6 to 9 %") == 1
    _, out, _ = call("faq", "ask", file, "Is there a dog?", "--threshold", 0.9)
    assert "Measured" not in out  # of this threshold, nothing is known
    _, out, _ = call("faq", "ask", file, "Is there a dog?", "--threshold", 0.01, "--json")
    assert json.loads(out)["answer"] == "12 crowns."


def test_faq_by_vectors(call, file, models) -> None:
    given = ("faq", "ask", file, "When do you open?", "--encoder", models["encoder"])
    code, _, err = call(*given)
    assert code == 64
    assert "no FAQ threshold was measured for tiny-encoder" in err
    code, out, _ = call(*given, "--threshold", 0.99, "--json")
    assert (code, json.loads(out)["id"]) == (0, "hours")
    assert json.loads(out)["likeness"] == pytest.approx(1.0, abs=1e-3)


def test_faq_entries_are_added_changed_removed_and_listed(call, tmp_path) -> None:
    path = tmp_path / "new.jsonl"
    code, out, _ = call("faq", "add", path, "--question", "Dogs?", "--answer", "No.", "--id", "dog")
    assert (code, out) == (0, f"{path}: added dog; now 1 entry\n")
    _, out, _ = call("faq", "add", path, "--question", "Cats?", "--answer", "No.", "--json")
    (cat,) = json.loads(out)["added"]
    assert json.loads(out)["entries"] == 2
    call("faq", "change", path, "dog", "--answer", "On a lead.")
    call("faq", "change", path, cat, "--question", "And cats?")
    _, out, _ = call("faq", "list", path)
    assert out == f"[dog] Dogs?\n    On a lead.\n[{cat}] And cats?\n    No.\n"
    code, out, _ = call("faq", "remove", path, "dog", cat)
    assert (code, out) == (0, f"{path}: removed dog, {cat}; now 0 entries\n")
    assert path.read_text() == ""
    _, out, _ = call("faq", "list", path, "--json")
    assert json.loads(out) == []


def test_the_examples_of_faqs_help_are_answered(call, tmp_path) -> None:
    """As they stand there, those by words: an example that is refused teaches mistrust."""
    code, out, _ = call("faq", "--help")
    lines = out[out.index("examples:") :].replace("\\\n", " ").splitlines()
    lines = [line for line in lines if line.startswith("  minirag faq ")]
    asked = [shlex.split(line.replace("faq.jsonl", str(tmp_path / "faq.jsonl"))) for line in lines]
    by_words = [words[1:] for words in asked]
    by_vectors = [words for words in by_words if "--encoder" in words]
    assert len(by_vectors) == 1
    for words in by_words:
        if "--encoder" not in words:
            code, out, _ = call(*words)
            assert (code, "doesn't answer" in out) == (0, False)
    assert len(by_words) == 4


def test_the_example_by_vectors_is_answered(minilm_dir, call, tmp_path) -> None:
    path = tmp_path / "faq.jsonl"
    call("faq", "add", path, "--id=hours", "--question=When do you open?", "--answer=At nine.")
    asked = ("faq", "ask", path, "At what time do you open?", "--encoder", minilm_dir)
    threshold = default_threshold("all-MiniLM-L6-v2")
    assert call(*asked, "--threshold", threshold)[1].startswith("At nine.\n    [hours]")


def test_two_processes_lose_no_entry(call, tmp_path, monkeypatch) -> None:
    """What another one saves between loading and saving would be lost: so it has to wait."""
    path, load, seen = tmp_path / "faq.jsonl", Faq.load, []
    call("faq", "add", path, "--question", "A?", "--answer", "a")

    def somebody_else_adds(*arguments):
        faq = load(*arguments)

        def add() -> None:
            try:
                with files.locked(tmp_path):
                    seen.append("in between")
            except DiskError:
                seen.append("has to wait")

        other = threading.Thread(target=add)  # the lock is a thread's own
        other.start()
        other.join()
        return faq

    monkeypatch.setattr(files, "PATIENCE", 0.0)
    monkeypatch.setattr(Faq, "load", somebody_else_adds)
    assert call("faq", "add", path, "--id", "b", "--question", "B?", "--answer", "b")[0] == 0
    assert call("faq", "change", path, "b", "--answer", "c")[0] == 0
    assert call("faq", "remove", path, "b")[0] == 0
    assert seen == ["has to wait"] * 3


def test_a_refusal_fits_a_terminal(call, file) -> None:
    out = call("faq", "ask", file, "Something entirely different, at great length?")[1]
    assert "doesn't answer this" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    code, _, err = call("faq", "ask", file, "x", "--threshold", 2)
    assert (code, "'2' is no likeness" in err) == (64, True)


class Editing(io.StringIO):
    """Lines of input, before each of which something is done to the file."""

    def __init__(self, steps) -> None:
        super().__init__()
        self.steps = steps

    def __iter__(self):
        for before, line in self.steps:
            before()
            yield line + "\n"


def test_faq_sees_what_is_changed_while_it_runs(call, file) -> None:
    def edit(answer: str):
        def write() -> None:
            faq = Faq.load(file)
            faq.change(FaqEntry("card", "How much is a card?", answer))
            faq.save(file)

        return write

    steps = [
        (lambda: None, "how much is a card"),
        (edit("15 crowns."), "how much is a card"),
        (lambda: file.write_text("{", "utf-8"), "how much is a card"),  # half a line
        (file.unlink, "how much is a card"),
        (lambda: file.write_text('{"id": "x", "question": "Hm?", "answer": "!"}\n'), "hm"),
    ]
    code, out, err = call("faq", "ask", file, "--json", stdin=Editing(steps))
    assert code == 0
    answers = [json.loads(line)["answer"] for line in out.splitlines()]
    assert answers == ["12 crowns.", "15 crowns.", "15 crowns.", "15 crowns.", "!"]
    warnings = err.splitlines()
    assert len(warnings) == 2
    assert "not read again" in warnings[0]
    assert "there is no FAQ" in warnings[1]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["ask", "gone.jsonl", "Who?"], 7, "there is no FAQ gone.jsonl"),
        (["ask", "FILE", " "], 64, "question is empty"),
        (["remove", "FILE", "card", "dog"], 64, "no entry 'dog'"),
        (["change", "FILE", "card"], 64, "nothing to change"),
        (["change", "FILE", "dog", "--answer", "x"], 64, "no entry 'dog'"),
        (["add", "FILE", "--id", "card", "--question", "Q?", "--answer", "A"], 64, "already"),
        (["add", "FILE", "--question", "Q?", "--answer", " "], 64, "answer of a FAQ entry"),
    ],
)
def test_what_faq_can_t_do_is_a_sentence_and_changes_nothing(
    call, file, arguments, code, says
) -> None:
    before = file.read_bytes()
    given = [str(file) if argument == "FILE" else argument for argument in arguments]
    found, out, err = call("faq", *given)
    assert (found, out) == (code, "")
    assert err.startswith("minirag: ")
    assert says in err
    assert file.read_bytes() == before


# -- evaluate --------------------------------------------------------------------------------------


def test_evaluate_follow_ups(call) -> None:
    arguments = ("evaluate", "--follow-ups", "law", "--language", "es", "--seed", 2)
    arguments += ("--seeds", 1, "--limit", 40)
    code, out, _ = call(*arguments, "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["follow_ups"], result["seeds"], result["n"], result["k"]) == ("law", [2], 40, 3)
    assert result["command"] == (
        "minirag evaluate --follow-ups law --language es --seed 2 --seeds 1 --limit 40"
    )
    (recall,) = result["recalls"]
    assert recall["way"] == "lexical"
    gain = recall["recall"]["rewritten"][0] - recall["recall"]["as typed"][0]
    assert recall["gain"][0] == pytest.approx(gain)
    _, out, _ = call(*arguments)
    for part in (
        "law (es): 1 world of 870 documents, 40 follow-ups in each",
        "lexical: recall@3",
        "as typed",
        "gain by rewriting",
    ):
        assert part in out


def test_evaluate_faq_draws_its_curve(call, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "faq.png"
    arguments = ("evaluate", "--faq", "medicine", "--seeds", 1, "--limit", 60)
    code, out, _ = call(*arguments, "--picture", picture, "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["n"], result["counted_on"]) == (60, 45)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    thresholds = [point[0] for point in result["curve"]]
    assert thresholds == sorted(thresholds, reverse=True)
    recalls = [point[2] for point in result["curve"]]
    assert recalls == sorted(recalls)
    _, out, _ = call(*arguments, "--threshold", 0.3)
    assert "threshold 0.30, given; counted on 90 queries" in out
    assert "answered in vain" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--follow-ups", "general"], "invalid choice: 'general'"),
        (["--follow-ups", "law", "--seeds", 0], "--seeds is 0"),
        (["--faq", "law", "--limit", 0], "--limit 0"),
        (["--faq", "law", "--precision-wanted", 1.5], "--precision-wanted is 1.5"),
        (["--faq", "law", "--limit", 90_000], "FAQ entries"),
        (["--follow-ups", "law", "--retriever", "dense"], "dense retrieval needs an encoder"),
    ],
)
def test_what_can_t_be_measured_is_a_sentence(call, arguments, says) -> None:
    code, out, err = call("evaluate", *arguments)
    assert (code, out) == (64, "")
    assert says in err


def test_without_matplotlib_the_picture_is_a_sentence(call, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = ("--faq", "law", "--seeds", 1, "--limit", 30, "--picture", tmp_path / "x.png")
    code, out, err = call("evaluate", *arguments)
    assert (code, out) == (64, "")
    assert "minirag[plots]" in err
