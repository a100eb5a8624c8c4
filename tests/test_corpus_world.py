"""Worlds with a calendar: slices, versions, RAFT exercises, export, and the command."""

import argparse
import datetime
import hashlib
import itertools
import json
import re
import subprocess
import sys

import pytest

from minirag.cli import world as command
from minirag.corpus.export import export_world
from minirag.corpus.grammar import MONTHS
from minirag.corpus.raft import RaftMix, raft_stream
from minirag.corpus.slices import SLICES, general_documents, slice_questions, training_questions
from minirag.corpus.world import CUTOFF, GROUPS, Sizes, draw_world
from minirag.errors import DiskError, UsageError

SMALL = Sizes(stable=30, unseen=20, updated=30, new=20, unanswerable=20)
EXPORT_SHA256 = {
    "medicine": "aeb83414c12034354b784b41b766f0b8be2b0c4758f6fa902edb9306537e801f",
    "law": "3e3ef268d6ba9eb40aecc63700edd06d22f42bea9ecbb909e857b49c668ba9e2",
}


@pytest.fixture(scope="module", params=["general", "medicine", "law"])
def world(request):
    return draw_world(request.param, 5, SMALL)


def test_entities_are_disjoint_and_dated(world):
    names = [record.entity.name.en.text for record in world.records]
    assert len(set(names)) == len(names) == 120
    assert {g: len(world.group(g)) for g in GROUPS} == {
        "stable": 30, "unseen": 20, "updated": 30, "new": 20, "unanswerable": 20,
    }  # fmt: skip
    for record in world.records:
        assert (record.published >= CUTOFF) == (record.group == "new")
        assert (record.revision is not None) == (record.group == "updated")
        kinds = world.domain.kinds[record.entity.kind]
        assert set(record.entity.facts) < set(kinds), "something must stay unsaid"
        if record.revision:
            assert record.revised >= CUTOFF > record.published
            assert 1 <= len(record.changed) <= len(record.entity.facts)
            assert set(record.revision.facts) == set(record.entity.facts)
            assert not set(record.changed) & world.domain.closed
    other = {r.entity.name.en.text for r in draw_world(world.domain.name, 6, SMALL).records}
    assert not other & set(names)


@pytest.mark.parametrize("language", ["en", "es"])
def test_documents_state_every_fact_of_their_version(world, language):
    before = {d.id: d for d in world.documents(language, moment="before")}
    after = {d.id: d for d in world.documents(language)}
    both = {d.id: d for d in world.documents(language, both_versions=True)}
    assert set(after) - set(before) == {r.id for r in world.group("new")}
    assert set(both) - set(after) == {f"{r.id}-v1" for r in world.group("updated")}
    for record in world.records:
        for key, value in record.current.facts.items():
            assert getattr(value, language).text in after[record.id].text, key
        if record.group == "updated":
            old = both[f"{record.id}-v1"]
            assert old == before[record.id].__class__(
                old.id, *list(vars(before[record.id]).values())[1:]
            )
            for value in record.entity.facts.values():
                assert getattr(value, language).text in old.text
            assert old.date < after[record.id].date
        elif record.id in before:
            assert before[record.id] == after[record.id]
    dates = [d.date for d in world.documents(language, both_versions=True)]
    assert dates == sorted(dates)


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_six_slices(world, language):
    slices = slice_questions(world, language, 40)
    assert tuple(slices) == SLICES
    documents = {d.id: d.text for d in world.documents(language)}
    documents |= {d.id: d.text for d in general_documents(language)}
    before = {d.id: d.text for d in world.documents(language, moment="before")}
    entities = {}
    for name, questions in slices.items():
        assert len(questions) == 40
        entities[name] = {q.document for q in questions if q.document}
        for question in questions:
            assert question.slice == name
            if name != "unanswerable":
                assert question.answer in documents[question.document]
            if name == "updated":
                assert question.stale in before[question.document]
                assert question.stale != question.answer
            if name == "unanswerable":
                assert question.answer is None
    for first, second in itertools.combinations(entities.values(), 2):
        assert not first & second
    # in the unanswerable slice nothing is asked that a document of its own entity states
    by_name = {getattr(r.entity.name, language).text: r for r in world.records}
    for question in slices["unanswerable"]:
        for name, record in by_name.items():
            if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", question.text):
                assert question.attribute not in record.current.facts


def test_training_knows_nothing_of_the_tests(world):
    for language in ("en", "es"):
        training = training_questions(world, language, 4)
        allowed = {r.id for r in world.group("stable", "updated")}
        assert {q.document for q in training} == allowed
        texts = " ".join(world.training_texts(language, 2))
        for record in world.group("unseen", "new"):
            assert getattr(record.entity.name, language).text not in texts
        asked = {q.text for q in training}
        slices = slice_questions(world, language, 40)
        assert not asked & {q.text for name in SLICES for q in slices[name]}
        old = {(q.document, q.attribute): q.answer for q in training}
        for question in slices["updated"]:
            assert old[question.document, question.attribute] == question.stale
        for question in slices["stable"]:
            assert old[question.document, question.attribute] == question.answer
        facts = sum(len(r.entity.facts) for r in world.group("stable", "updated"))
        assert len(training_questions(world, language, 1)) == facts
        assert len(training) == 4 * facts


def test_paraphrases_differ_and_say_the_same(world):
    record = world.records[0]
    texts = {world.text(record, "es", draw=n) for n in range(6)}
    assert len(texts) > 1
    for text in texts:
        for value in record.entity.facts.values():
            assert value.es.text in text


def test_plain_wording_lies_between():
    plain = draw_world("medicine", 5, SMALL, wording="plain")
    own = draw_world("medicine", 5, SMALL)
    assert plain.records == own.records
    text = " ".join(d.text for d in plain.documents("en"))
    assert "prescribed" not in text
    assert "adult dose" in text
    with pytest.raises(UsageError, match="no plain wording"):
        draw_world("general", 0, wording="plain")


def parsed_date(passage):
    month = "|".join(MONTHS["en"])
    day, name, year = re.search(rf"(\d+) ({month}) (\d{{4}})", passage).groups()
    return datetime.date(int(year), MONTHS["en"].index(name) + 1, int(day))


@pytest.mark.parametrize("language", ["en", "es"])
def test_raft_exercises_are_fair_and_about_training_entities(world, language):
    names = {getattr(r.entity.name, language).text for r in world.group("stable", "updated")}
    unseen = {getattr(r.entity.name, language).text for r in world.group("unseen", "new")}
    refused = total = 0
    for exercise in itertools.islice(raft_stream(world, 3, language), 300):
        assert not [n for n in unseen if n in "\n".join(exercise.passages)]
        for question in exercise.questions:
            total += 1
            if question.answer is None:
                refused += 1
                continue
            holds = [question.answer in p for p in exercise.passages]
            assert sum(holds) == 1
            assert holds.index(True) == question.passage
            assert any(n.lower() in question.text.lower() for n in names)
    assert abs(refused / total - RaftMix.unanswerable) < 0.1


def test_of_two_versions_the_newer_one_is_right(world):
    mix = RaftMix(passages=(0.0, 1.0), versions=1.0, unanswerable=0.0, same_kind=1.0)
    checked = 0
    for exercise in itertools.islice(raft_stream(world, 4, "en", mix), 60):
        dates = [parsed_date(p) for p in exercise.passages]
        for question in exercise.questions:
            checked += 1
            assert dates[question.passage] == max(dates)
    assert checked > 60


@pytest.mark.parametrize("domain", ["medicine", "law"])
def test_the_export_is_byte_equal_everywhere(domain, tmp_path):
    world = draw_world(domain, 1, SMALL)
    digest = hashlib.sha256()
    for language in ("en", "es"):
        n_files = export_world(world, language, tmp_path / language, n_questions=20)
        paths = sorted(p for p in (tmp_path / language).rglob("*") if p.is_file())
        assert len(paths) == n_files == 2 + 100 + 120
        for path in paths:
            digest.update(path.name.encode() + path.read_bytes())
    assert digest.hexdigest() == EXPORT_SHA256[domain]
    record = world.group("updated")[0]
    page = (tmp_path / "en" / "after" / f"{record.id}.md").read_text("utf-8").splitlines()
    assert page[0].startswith("# ")
    assert page[2] == f"*{record.revised.isoformat()}*"
    lines = (tmp_path / "es" / "questions.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["slice"] for line in lines] == [s for s in SLICES for _ in range(20)]


def test_an_export_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "taken").write_text("a file, not a directory")
    with pytest.raises(DiskError, match="could not write the world"):
        export_world(draw_world("law", 1, SMALL), "en", tmp_path / "taken", n_questions=5)


def test_wrong_requests_are_refused_with_a_sentence(world):
    with pytest.raises(UsageError, match="Sizes\\(stable"):
        slice_questions(world, "en", 5000)
    with pytest.raises(UsageError, match="'tomorrow'"):
        world.documents("en", moment="tomorrow")
    with pytest.raises(UsageError, match="'fr'"):
        world.documents("fr")
    with pytest.raises(UsageError, match="'physics'"):
        draw_world("physics", 0)
    with pytest.raises(UsageError, match="new is -1"):
        Sizes(new=-1)
    with pytest.raises(UsageError, match="paraphrases is 0"):
        training_questions(world, "en", 0)
    with pytest.raises(UsageError, match="RAFT with up to 4"):
        next(raft_stream(draw_world("law", 0, Sizes(stable=2, updated=0)), 0, "en"))


def run(*arguments):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["world", *map(str, arguments)])
    return args.run(args)


def test_the_command_shows_and_exports(tmp_path, capsys):
    assert run("--domain", "law", "--language", "es", "--show", 2, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["domain"], said["language"], said["seed"]) == ("law", "es", 0)
    assert len(said["documents"]) == 2
    assert run("--domain", "medicine", "--seed", 3, "--show", 1) == 0
    first = capsys.readouterr().out
    assert run("--domain", "medicine", "--seed", 3, "--show", 1) == 0
    assert capsys.readouterr().out == first
    assert run("--domain", "law", "--export", tmp_path / "law") == 0
    assert (tmp_path / "law" / "questions.jsonl").is_file()
    assert "files into" in capsys.readouterr().out
    for n in (-1, 0):
        with pytest.raises(UsageError, match=f"--show is {n}: give 1 or more"):
            run("--show", n)


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "(the document does not say)"), ("es", "(el documento no lo dice)")],
)
def test_what_an_unanswerable_document_is_asked_it_does_not_say(language, said, capsys):
    law = ("--domain", "law", "--language", language, "--show", 60)
    assert run(*law, "--json") == 0
    documents = json.loads(capsys.readouterr().out)["documents"]
    assert {sample["group"] for sample in documents} == set(GROUPS)
    for sample in documents:
        assert sample["questions"]
        for question in sample["questions"]:
            if sample["group"] == "unanswerable":
                assert question["answer"] is None
            else:
                assert question["answer"] in sample["text"]
    assert run(*law) == 0
    refusals = capsys.readouterr().out.count(said)
    assert refusals == sum(q["answer"] is None for s in documents for q in s["questions"])


def test_help_explains_every_group_and_default(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    said = capsys.readouterr().out
    for group in GROUPS:
        assert re.search(rf"^  {group} +\w", said, re.M)
    assert "default: general" in said
    assert "examples:" in said
    assert "--seed N" in said


def test_one_object_tells_of_an_export_and_of_what_is_shown(tmp_path, capsys):
    assert run("--export", tmp_path, "--show", 1, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["directory"] == str(tmp_path)
    assert said["files"] == sum(path.is_file() for path in tmp_path.rglob("*"))
    assert len(said["documents"]) == 1


def test_an_export_does_not_mix_worlds(tmp_path):
    one, other = (draw_world("law", seed, SMALL) for seed in (1, 2))
    n = export_world(one, "en", tmp_path, n_questions=5)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert export_world(one, "en", tmp_path, n_questions=5) == n == len(before)
    for world, language in ((other, "en"), (one, "es")):
        with pytest.raises(UsageError, match="holds something else already"):
            export_world(world, language, tmp_path, n_questions=5)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "file").write_text("of somebody's")
    with pytest.raises(UsageError, match=r"already \(file\): give a new or an empty directory"):
        export_world(one, "en", tmp_path, n_questions=5)
    with pytest.raises(DiskError, match=r"\(.+\): choose another place\.$"):
        export_world(one, "en", tmp_path / "file" / "x", n_questions=5)


def test_the_command_needs_no_torch():
    code = "import sys, minirag.cli.world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_general_slice_is_the_same_whatever_the_world(language):
    asked = [
        slice_questions(draw_world(domain, seed, SMALL), language, 20, slices=["general"])
        for domain, seed in (("medicine", 1), ("medicine", 2), ("law", 3))
    ]
    assert asked[0] == asked[1] == asked[2]
    other = slice_questions(draw_world("law", 3, SMALL), language, 20, slices=["general"], draw=1)
    assert other != asked[2]


def test_a_fact_is_the_same_in_both_languages():
    world = draw_world("medicine", 4, SMALL)
    about = [
        [q.about for q in slice_questions(world, language, 20, slices=["general"])["general"]]
        for language in ("en", "es")
    ]
    assert about[0] == about[1]
    assert len(set(about[0])) == 20


@pytest.mark.parametrize("language", ["en", "es"])
def test_what_is_in_no_document_has_no_document(language):
    # in this world, a name that is drawn for something unknown is taken at first (in Spanish)
    world = draw_world("law", 302)
    names = {getattr(record.entity.name, language).text.lower() for record in world.records}
    known = {record.entity.name.en.text for record in world.group("unanswerable")}
    asked = slice_questions(world, language, 200, slices=["unanswerable"])["unanswerable"]
    of_the_world = {
        getattr(record.entity.name, language).text.lower() for record in world.group("unanswerable")
    }
    assert known
    for question in asked:
        named = [
            name for name in names if re.search(rf"\b{re.escape(name)}\b", question.text.lower())
        ]
        assert set(named) <= of_the_world
