"""The map: how the world changes, what is measured, what is kept, how it is shown."""

import dataclasses
import itertools
import json
import statistics

import pytest
import small_bases
from fake_encoder import HashEncoder
from small_map import NAMES, RAFT, RAG, TUNED, VOLATILITIES, about, cell, place, textbook_map

from minirag.choosing import measuring
from minirag.choosing.grid import REDUCED, SPECIALISATIONS, Grid
from minirag.choosing.map_picture import draw_map
from minirag.choosing.map_table import map_table
from minirag.choosing.measured_map import Answering, MeasuredMap, out_of_date, shipped_map
from minirag.cli.main import main
from minirag.combination import compare
from minirag.combination.collection import ENCODER
from minirag.combination.fine_tuned import FineTuned
from minirag.combination.ledger import checksum
from minirag.combination.workbench import Workbench
from minirag.corpus.phrasings import load, load_half, load_plain, phrasings_of
from minirag.corpus.slices import training_questions
from minirag.corpus.world import Sizes, draw_world
from minirag.errors import DataError, UsageError
from minirag.intervals import Interval, clustered_bootstrap, wilson_interval
from minirag.training.evaluate_reading import Answered
from minirag.transformer import checkpoints

# ---------------------------------------------------------------------------------------- the world


@pytest.mark.parametrize("domain", ["medicine", "law"])
def test_half_of_the_attributes_are_worded_as_the_base_knows_them(domain):
    known = {}
    for language in ("en", "es"):
        own, plain = load(domain, language).attributes, load_plain(domain, language).attributes
        half = load_half(domain, language).attributes
        assert set(half) == set(own)
        known[language] = {key for key in half if half[key] == plain[key]}
        assert all(half[key] == own[key] for key in half if key not in known[language])
    assert known["en"] == known["es"]
    assert len(known["en"]) == (len(own) + 1) // 2


def test_a_world_of_half_wording_has_the_same_facts():
    worlds = [
        draw_world("medicine", 5, Sizes(9, 0, 4, 0, 0), wording=w) for w in ("domain", "half")
    ]
    assert worlds[0].records == worlds[1].records
    texts = [" ".join(d.text for d in world.documents("en")) for world in worlds]
    assert texts[0] != texts[1]
    with pytest.raises(UsageError, match="the wording is 'odd': give one of plain, half, domain"):
        phrasings_of("law", "en", "odd")
    with pytest.raises(UsageError, match="the general world has no half wording"):
        draw_world("general", 0, wording="half")


def test_revisions_come_one_after_the_other():
    world = draw_world("medicine", 5, Sizes(3, 2, 20, 2, 2))
    revised, documents = [], []
    for share in (0.0, 0.25, 0.5, 1.0):
        now = world.revised_so_far(share)
        assert [r.id for r in now.records] == [r.id for r in world.records]
        assert [r.entity for r in now.records] == [r.entity for r in world.records]
        revised.append({record.id for record in now.group("updated")})
        assert len(revised[-1]) == 20 * share
        assert len(now.group("stable")) == 3 + 20 - len(revised[-1])
        documents.append({d.id: d.text for d in now.documents("en")})
    for fewer, more in itertools.pairwise(revised):
        assert fewer < more
    for ids, texts in zip(revised, documents, strict=True):
        changed = {id for id, text in texts.items() if text != documents[0][id]}
        assert changed == ids
    assert now == world
    with pytest.raises(UsageError, match=r"the share of revisions is 1\.5: give a number from 0"):
        world.revised_so_far(1.5)


# ---------------------------------------------------------------------------------------- measuring

GRID = Grid(
    specialisations=("shared", "disjoint"),
    sizes=(12,),
    volatilities=(0.0, 0.25, 1.0),
    seeds=(301, 302),
    questions=16,
    tests=1,
)


@pytest.fixture
def by_heart(monkeypatch):
    """Readers that know their world as it was (closed book), or read perfectly (all others)."""
    made, worlds = [], {}

    def laboratory_data(what, world):
        name = f"{what.way} {world.wording} {world.seed}"
        worlds[name] = world
        return dataclasses.replace(small_bases.data(what.way), name=name)

    def fine_tuned(base, data, config, cache, machine, **_):
        assert config.patience == GRID.patience
        assert data.laboratory is None
        made.append(data.name)
        model = small_bases.decoder()
        if data.name.startswith("closed-book"):
            asked = training_questions(worlds[data.name], "en", held_out=True)
            model.knows = {question.text: question.answer for question in asked}
        report = {
            "seconds": 10.0 * len(made), "tokens": 1000, "steps": 30, "epoch_steps": 20,
            "stopped": f"run {len(made)}", "before": {"domain_perplexity": 7.0 + len(made)},
        }  # fmt: skip
        return FineTuned(model, report, "0" * 64)

    def answer(model, tokenizer, exercises, **_):
        out = []
        for exercise in exercises:
            gold = exercise.questions[0].answer
            knows = getattr(model, "knows", None)
            there = any(gold in passage for passage in exercise.passages)
            reply = knows.get(exercise.questions[0].text) if knows else gold if there else None
            out.append(Answered(exercise, reply))
        return out

    monkeypatch.setattr(measuring, "laboratory_data", laboratory_data)
    monkeypatch.setattr(measuring, "fine_tuned", fine_tuned)
    monkeypatch.setattr(compare, "answer_exercises", answer)
    return made


def measured_in(place, grid=GRID):
    encoder = HashEncoder(dim=96, max_tokens=400)
    bench = Workbench(place / "cells", small_bases.CPU)
    rounds = measuring.measure(grid, small_bases.base(), encoder, place, bench, command="map!")
    return list(rounds)


def test_the_closed_book_knows_what_has_not_changed(by_heart, tmp_path):
    one, both = measured_in(tmp_path)
    assert one.about["seeds"] == [301]
    assert both.about["seeds"] == [301, 302]
    assert (both.about["command"], [m["precision"] for m in both.about["machines"]]) == (
        "map!",
        ["fp32"],
    )
    assert both.about["base"] == "small"
    shared, disjoint = both.places
    assert (shared.specialisation, disjoint.specialisation) == ("shared", "disjoint")
    assert shared.entities == disjoint.entities == 12
    for here, at in itertools.product(both.places, range(3)):
        found = here.cells[at]
        assert found.volatility == GRID.volatilities[at]
        assert found.n == 16
        assert found.right[TUNED].value == 1 - found.volatility  # 16, 12 and 0 of 16
        refused = found.right[TUNED].value - found.right["fine-tuned + RAG"].value
        assert 0 <= refused < 0.2  # where no passage is worth reading, nothing is said
        assert found.right["base"].value == 0
        assert found.right[RAG].value > 0.7  # where the search finds the document
        assert found.right[RAG] == found.right[RAFT]
        lead = found.lead(RAG, TUNED)
        assert lead.value == pytest.approx(found.right[RAG].value - 1 + found.volatility)
        assert found.lead(TUNED, RAG) == (-lead.value, -lead.high, -lead.low)
        assert statistics.fmean(found.by_seed[RAG]) == pytest.approx(found.right[RAG].value)
        assert one.places[0].cells[at].by_seed[RAG] == shared.cells[at].by_seed[RAG][:1]
    assert shared.answering[RAG].tokens > shared.answering["base"].tokens > 0
    assert shared.index_seconds > 0
    assert shared.update_seconds > 0
    assert by_heart == [
        f"{way} {wording} {seed}"
        for seed in (301, 302)
        for wording in ("plain", "domain")
        for way in ("closed-book", "raft")
    ]
    assert (shared.training["closed-book"].seconds, shared.training["raft"].seconds) == (30.0, 40.0)
    assert disjoint.training["raft"].stopped == ("run 4", "run 8")
    assert disjoint.perplexity == 7 + (4 + 8) / 2
    assert shared.training["raft"].repetitions == 1.5


def test_what_is_measured_is_not_measured_again(by_heart, tmp_path, monkeypatch):
    run_arms, asked = measuring.run_arms, []

    def killed(arms, readers, questions, *rest, **options):
        asked.append(sum(map(len, questions.values())))
        if len(asked) == 8:  # in the third of four pieces
            raise KeyboardInterrupt
        return run_arms(arms, readers, questions, *rest, **options)

    monkeypatch.setattr(measuring, "run_arms", killed)
    with pytest.raises(KeyboardInterrupt):
        measured_in(tmp_path)
    assert len(by_heart) == 6  # the readers of three pieces
    first, second = measured_in(tmp_path)
    assert len(by_heart) == 10  # the readers of the other two
    assert asked == [16] * (8 + 6)
    again = measured_in(tmp_path)[-1]
    assert len(by_heart) == 10
    assert again == second
    assert len(first.places[0].cells[0].by_seed[RAG]) == 1
    # Another grid has the cells in common; other questions are another measurement.
    measured_in(tmp_path, dataclasses.replace(GRID, specialisations=("disjoint",)))
    assert len(by_heart) == 10
    measured_in(tmp_path, dataclasses.replace(GRID, specialisations=("shared",), questions=10))
    assert len(by_heart) == 14


def test_intervals_are_those_of_seeds_and_questions():
    marks = dict.fromkeys(NAMES, ("1101", "0001")) | {RAFT: ("1111", "1101")}
    cells = [
        {"volatility": 0.5, "arms": {n: {"right": marks[n][seed]} for n in NAMES}}
        for seed in range(2)
    ]
    cell = measuring._cell(cells)
    assert cell.n == 4
    assert cell.right[RAG] == clustered_bootstrap([[1, 1, 0, 1], [0, 0, 0, 1]], 0, 2000)
    assert cell.lead(RAFT, RAG) == clustered_bootstrap([[0, 0, 1, 0], [1, 1, 0, 0]], 0, 2000)
    assert cell.by_seed[RAG] == (0.75, 0.25)


def test_where_all_are_wrong_nothing_is_certain():
    cells = [{"volatility": 0, "arms": {n: {"right": "0" * 200} for n in NAMES}} for _ in range(3)]
    cell = measuring._cell(cells)
    assert cell.right[RAG] == wilson_interval(0, 600)
    assert tuple(cell.lead(RAFT, RAG)) == (0, 0, 0)  # on these questions they are equal


def test_a_partial_epoch_counts_in_part():
    data = small_bases.data("closed-book")
    report = {"seconds": 1.0, "tokens": 5, "steps": 5, "epoch_steps": 20, "stopped": "x"}
    cost = measuring._training(data, report)
    n = sum(len(exercise.questions) for exercise in data.train)
    assert (cost["labelled"], cost["repetitions"]) == (round(n / 4), 1.0)
    cost = measuring._training(data, {**report, "steps": 50})
    assert (cost["labelled"], cost["repetitions"]) == (n, 2.5)


def test_the_budget_is_in_tokens():
    grid = Grid()
    config = grid.recipe("closed-book", 1800, 5)
    assert (config.max_steps, config.seed) == (800_000 // config.tokens_per_batch, 5)
    # An exercise has more than 8 tokens, its markers included: there are epochs enough.
    assert config.epochs * 1800 * 8 >= grid.tokens
    assert grid.recipe("raft", 10**7, 5).epochs == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sizes": ()}, "the map has no sizes: give one or more"),
        ({"specialisations": ("odd",)}, "no wording 'odd': give some of shared, half, disjoint"),
        ({"volatilities": (0.0,)}, "give shares from 0 to 1, one at least above 0"),
        ({"volatilities": (0.0, 2.0)}, "give shares from 0 to 1"),
        ({"tokens": 0}, "tokens is 0: give 1 or more"),
        ({"sizes": (90,)}, "200 questions are too many for 90 entities: give at most 180"),
    ],
)
def test_grids_that_cannot_be_meant(wrong, said):
    with pytest.raises(UsageError, match=said):
        Grid(**wrong)


@pytest.mark.parametrize("domain", ["medicine", "law"])
@pytest.mark.parametrize("specialisation", SPECIALISATIONS)
def test_questions_stay_the_same_as_long_as_they_are_true(domain, specialisation, tmp_path):
    grid = Grid(domain=domain, language="es", sizes=(20,), questions=40)
    bench, encoder = Workbench(tmp_path, small_bases.CPU), HashEncoder()
    run = measuring._Run(
        grid, specialisation, 20, 301, small_bases.base(), encoder, tmp_path, bench, print
    )
    before: list = []
    for volatility in VOLATILITIES:
        now, changed = run.world.revised_so_far(volatility), round(40 * volatility)
        asked = run._questions(now, volatility)
        assert {name: len(some) for name, some in asked.items()} == {
            "updated": changed,
            "stable": 40 - changed,
        }
        records = {record.id: record for record in now.records}
        for name, some in asked.items():
            assert len({q.about for q in some}) == len(some)
            for q in some:
                record = records[q.document]
                assert record.group == name
                assert q.answer == record.current.facts[q.attribute].es.text
            true = {q for q in before if q.slice == name == records[q.document].group}
            most = min(len(true), len(some))
            # What is revised later may come before in the order of what is revised.
            assert len(true & set(some)) >= (most if name == "stable" else 0.7 * most)
        before = [q for some in asked.values() for q in some]


# ----------------------------------------------------------------------------------- the map itself


def test_a_map_comes_back_as_it_was_saved(tmp_path):
    measured = textbook_map()
    measured.save(tmp_path / "map.json")
    again = MeasuredMap.load(tmp_path / "map.json")
    assert again.about == measured.about
    assert again.places[4].training == measured.places[4].training
    assert again.places[4].answering[RAG] == Answering(0.04, 40.0)
    for one, other in zip(again.places[4].cells, measured.places[4].cells, strict=True):
        assert one.right[RAFT] == pytest.approx(other.right[RAFT])
        assert one.lead(RAG, TUNED) == pytest.approx(other.lead(RAG, TUNED))
        assert isinstance(one.right[RAG], Interval)
    with pytest.raises(KeyError):
        again.places[0].cells[0].lead(RAG, "nobody")


def test_maps_that_are_none(tmp_path):
    path = tmp_path / "map.json"
    with pytest.raises(DataError, match=r"there is no map .*minirag map --run"):
        MeasuredMap.load(path)
    textbook_map().save(path)
    body = json.loads(path.read_text("utf-8"))
    del body["places"][0]["cells"][0]["right"][RAG]
    for text in ("{", "[]", '{"about": {}}', json.dumps(body), '{"about": {}, "places": [{}]}'):
        path.write_text(text, "utf-8")
        with pytest.raises(DataError, match=r"is no map .*measure it again with `minirag map"):
            MeasuredMap.load(path)


def test_who_is_first_and_where_that_changes_hands():
    measured = textbook_map()
    (hand,) = measured.places[0].hands()
    assert (hand.one, hand.other) == (TUNED, RAFT)
    assert (hand.before.volatility, hand.after.volatility) == (0.0, 0.25)
    assert hand.line() == (
        "between 0% and 25% changed, fine-tuned hands over to RAFT + RAG:\n"
        "    ahead by 0.060 [0.040, 0.080] at 0%, behind by 0.180 [0.160, 0.200] at 25%"
    )
    tied = cell(0.0, dict(zip(NAMES, (0.1, 0.9, 0.895, 0.2, 0.91), strict=True)))
    assert tied.first(NAMES) == (RAFT, TUNED, RAG)
    assert tied.first((TUNED, "base")) == (TUNED,)


def test_the_table_and_the_picture(tmp_path):
    tied = cell(0.0, dict(zip(NAMES, (0.1, 0.9, 0.3, 0.2, 0.91), strict=True)))
    some = MeasuredMap(about(), (*textbook_map().places[:2], place("disjoint", 300, [tied])))
    table = map_table(some)
    assert all(len(line) <= 80 for line in table.splitlines())
    assert table.splitlines()[1] == "worlds 301, 302"
    one = MeasuredMap({**about(), "seeds": [301]}, some.places)
    assert map_table(one).splitlines()[1] == (
        "world 301 alone, so that no interval tells what another world would change"
    )
    assert "shared wording (perplexity of the base 12.5), 300 things" in table
    assert (
        f"{'25%':>8}{'0.000':>13} {'0.720':>13} {'0.400':>13} {'0.600':>13} {'0.900':>13}*" in table
    )
    assert (
        f"{'0%':>8}{'0.100':>13} {'0.900':>13}={'0.300':>13} {'0.200':>13} {'0.910':>13}*" in table
    )
    assert "  raft: 150 s, 800,000 tokens, 2,000 questions × 1.0, plateau in 0 of 2\n" in table
    assert "1,200 questions × 20.0, plateau in 1 of 2\n" in table
    assert table.endswith("no arm hands over to another")
    pytest.importorskip("matplotlib")
    draw_map(some, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_map_of_other_weights_says_so(tmp_path, capsys):
    weights = {name: checksum(name) for name in ("gpt-base", ENCODER)}
    then = {**about(), "weights": weights}
    assert out_of_date(then) == ""
    weights |= {"nobody's": "0" * 64}  # it is not here: nothing can be said of it
    assert out_of_date(then) == ""
    weights["gpt-base"] = "0" * 64
    assert out_of_date(then).startswith("It is out of date: gpt-base had other weights then.")
    dataclasses.replace(textbook_map(), about=then).save(tmp_path / "map.json")
    for verb in ("map", "choose"):
        wordings = ["--wording", "shared"] if verb == "choose" else []
        assert main([verb, "--map", str(tmp_path / "map.json"), *wordings]) == 0
        assert "It is out of date: gpt-base had" in " ".join(capsys.readouterr().out.split())


def test_the_map_that_comes_along_is_whole():
    measured = MeasuredMap.load(shipped_map())
    assert measured.about["base"] == "gpt-base"
    assert set(measured.about["weights"]) == {"gpt-base", ENCODER}
    places = {(spot.specialisation, spot.entities) for spot in measured.places}
    assert places == set(itertools.product(SPECIALISATIONS, Grid().sizes))
    for spot in measured.places:
        assert [cell.volatility for cell in spot.cells] == list(Grid().volatilities)
        # Weights can't know what has changed since: else something leaks.
        assert spot.cells[-1].right[TUNED].value < 0.05


# ------------------------------------------------------------------------------------ command line


@pytest.fixture
def saved(tmp_path):
    textbook_map().save(tmp_path / "map.json")
    return ["--map", str(tmp_path / "map.json")]


def test_the_map_is_printed_and_drawn(saved, tmp_path, capsys):
    assert main(["map", *saved]) == 0
    assert capsys.readouterr().out == map_table(textbook_map()) + "\n"
    assert main(["map", *saved, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["places"][0]["entities"] == 100
    assert main(["map", "--map", str(tmp_path / "none.json")]) == 7
    assert "there is no map" in capsys.readouterr().err
    assert main(["map", "--seeds", "2"]) == 64
    assert "--seeds is about measuring: give --run with it" in capsys.readouterr().err
    assert main(["map", *saved, "--picture", str(tmp_path / "map.jpg")]) == 64
    assert "map.jpg: pictures are written as PNG" in capsys.readouterr().err
    assert not (tmp_path / "map.jpg").exists()
    assert main(["map", "--run", *saved]) == 64
    assert "--map is read, --run measures" in capsys.readouterr().err
    assert main(["map", "--run", "--seeds", "9"]) == 64
    assert "--seeds is 9: give 1 to 3 worlds" in capsys.readouterr().err
    for sizes in ("many", "0,5"):
        assert main(["map", "--run", "--sizes", sizes]) == 64
        assert f"--sizes is '{sizes}': give numbers of entities" in capsys.readouterr().err


@pytest.mark.slow
def test_the_reduced_map_is_measured_by_real_models(tmp_path, capsys):
    """Two fine-tunings of a tiny reader in each of two places; then the advisor on what came."""
    checkpoints.save(small_bases.decoder(), tmp_path / "tiny")
    small_bases.tokenizer().save(tmp_path / "tiny")
    command = ["map", "--run", "--reduced", "--base", str(tmp_path / "tiny"), "--precision", "fp32"]
    out = tmp_path / "out"
    assert main([*command, "--out", str(out), "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body == json.loads((out / "map.json").read_text("utf-8"))
    assert body["about"]["command"] == "minirag map --run --reduced --base tiny"
    assert [here["specialisation"] for here in body["places"]] == ["shared", "disjoint"]
    for here in body["places"]:
        assert here["entities"] == REDUCED.sizes[0]
        assert {*here["training"]} == {"closed-book", "raft"}
        assert all(cost["tokens"] > 0 for cost in here["training"].values())
        assert all(0 <= r[0] <= 1 for c in here["cells"] for r in c["right"].values())
        assert here["answering"][RAG]["tokens"] > here["answering"]["base"]["tokens"]
    readers = sorted((out / "readers").iterdir())
    assert len(readers) == 4
    written = {path: path.stat().st_mtime_ns for path in readers}
    assert main([*command, "--out", str(out)]) == 0
    assert {
        path: path.stat().st_mtime_ns for path in sorted((out / "readers").iterdir())
    } == written
    assert "disjoint wording (perplexity of the base" in capsys.readouterr().out
    assert main(["choose", "--map", str(out / "map.json"), "--entities", "6", "--cite"]) == 0
    assert "\n\nadvice: " in capsys.readouterr().out


def test_choose_by_options(saved, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)  # options given: nothing is asked
    assert main(["choose", *saved, "--volatility", "0"]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    assert " ".join(said.split("\n")).startswith(
        "you: disjoint wording; 0% of the facts changing in a year; 300 things to know about; 100 "
        "questions a day; as many labelled questions as it takes; no sources to cite; any time for "
        "an answer.  advice: fine-tuned  "
    )
    assert main(["choose", *saved, "--json", "--volatility", "50%", "--wording", "shared",
                 "--entities", "1,000", "--labelled", "enough", "--latency", "any", "--cite",
                 "--questions-a-day", "0"]) == 0  # fmt: skip
    body = json.loads(capsys.readouterr().out)
    assert (body["arm"], body["cell"]["volatility"], body["cell"]["entities"]) == (RAFT, 0.5, 1000)
    assert body["needs"] == {
        "specialisation": "shared", "volatility": 0.5, "entities": 1000, "questions_a_day": 0,
        "labelled": None, "citations": True, "latency": None,
    }  # fmt: skip
    assert body["costs"]["base"]["seconds_to_update_one_document"] is None
    assert body["costs"][TUNED]["seconds_to_update_one_document"] == 100.0
    assert main(["choose", *saved, "--entities", "5000"]) == 0
    assert "not measured: your answers are outside the map" in capsys.readouterr().out
    assert main(["choose", *saved, "--cite", "--volatility", "0"]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    assert "left out: answers from its weights, and has no source to cite" in " ".join(said.split())


@pytest.mark.parametrize(
    ("option", "answer", "said"),
    [
        ("--wording", "odd", "give shared, half, disjoint"),
        ("--volatility", "120%", "give a share from 0 to 1, or a percentage such as 25%"),
        ("--volatility", "often", "give a share from 0 to 1"),
        ("--entities", "0", "give a whole number, 1 or more"),
        ("--questions-a-day", "few", "give a whole number, 0 or more"),
        ("--labelled", "-1", "give a whole number, 0 or more"),
        ("--latency", "0", "give seconds above 0, or any"),
        ("--latency", "soon", "give seconds above 0, or any"),
    ],
)
def test_answers_that_are_none(saved, capsys, option, answer, said):
    assert main(["choose", *saved, f"{option}={answer}"]) == 64
    error = capsys.readouterr().err
    assert f"{option} is {answer!r}: " in error
    assert said in error


def test_a_wrong_answer_is_told_whether_there_is_a_map_or_not(tmp_path, capsys):
    missing = ["--map", str(tmp_path / "none.json")]
    for option, answer in (("--wording", "bogus"), ("--volatility", "150")):
        assert main(["choose", *missing, option, answer]) == 64
        assert f"{option} is {answer!r}: give " in capsys.readouterr().err


def test_how_long_a_reduced_map_takes_is_said_once(tmp_path, capsys):
    main(["map", "--map", str(tmp_path / "none.json")])
    assert "--reduced: a minute or so" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["map", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--reduced takes a minute or so" in said
    assert "everything in small, in a minute or so" in said


def test_choose_asks_at_a_terminal(saved, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    replies = iter(["", "lots", "0", "", "", "", "maybe", "yes", ""])
    asked = []

    def reply(prompt):
        asked.append(prompt)
        return next(replies)

    monkeypatch.setattr("builtins.input", reply)
    assert main(["choose", *saved]) == 0
    said = capsys.readouterr().out
    assert asked == [
        "[disjoint] ", "[0.25] ", "[0.25] ", "[300] ", "[100] ", "[enough] ", "[no] ", "[no] ",
        "[any] ",
    ]  # fmt: skip
    assert "'lots' is no answer to that: give a share from 0 to 1" in said
    assert "'maybe' is no answer to that: give yes or no." in said
    assert "\nadvice: RAFT + RAG\n" in said
    said = " ".join(said.split())
    assert "How volatile is it? The share of the facts that change in a year" in said
    assert "0% of the facts changing in a year" in said

    def ended(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    assert main(["choose", *saved]) == 64
    assert "the answers ended before the questions did" in capsys.readouterr().err


def test_without_a_map_nothing_is_asked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("asked"))
    assert main(["choose", "--map", str(tmp_path / "none.json")]) == 7
    assert "measure one with `minirag map --run --out DIR`" in capsys.readouterr().err
