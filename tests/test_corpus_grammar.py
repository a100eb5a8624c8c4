"""The grammar that templates rely on, against what a grammar book says."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirag.corpus.dice import Dice
from minirag.corpus.grammar import (
    Phrase,
    Verb,
    and_then,
    bind,
    compile_template,
    contract,
    date,
    decimal,
    number,
)
from minirag.errors import DataError

RIVER = Phrase("río Tor", "m", article=True)
TOWN = Phrase("Torvik", "f")
PLANT = Phrase("melara", "f", article=True)


@pytest.mark.parametrize(
    ("template", "slots", "expected"),
    [
        ("El sol de {name} va a {value}.", (PLANT, RIVER), "El sol de la melara va al río Tor."),
        ("{name} nace en {value}.", (RIVER, TOWN), "El río Tor nace en Torvik."),
        ("De {name} se sabe poco.", (RIVER, TOWN), "Del río Tor se sabe poco."),
        ("A {name} llegan barcos.", (RIVER, TOWN), "Al río Tor llegan barcos."),
        ("{name} fue fundad{o/a name}.", (TOWN, TOWN), "Torvik fue fundada."),
        ("{name} es {un value}.", (TOWN, Phrase("melara", "f")), "Torvik es una melara."),
        ("¿{el value} de qué?", (TOWN, RIVER), "¿El río Tor de qué?"),
        ("Sin {bare name} no hay {bare value}.", (PLANT, RIVER), "Sin melara no hay río Tor."),
        ("{El alcalde/La alcaldesa value}, {value}.", (TOWN, TOWN), "La alcaldesa, Torvik."),
    ],
)  # fmt: skip
def test_spanish_articles_contractions_and_agreement(template, slots, expected):
    name, value = slots
    assert compile_template(template, "es").fill({"name": name, "value": value}) == expected


def test_a_capital_article_of_a_title_is_not_contracted():
    title = Phrase("El camino de Tor", "f")
    assert compile_template("El autor de {name}.", "es").fill({"name": title}) == (
        "El autor de El camino de Tor."
    )


@pytest.mark.parametrize(
    ("template", "value", "expected"),
    [
        ("She is {a value}.", Phrase("engineer"), "She is an engineer."),
        ("She is {a value}.", Phrase("baker"), "She is a baker."),
        ("{value} is long.", Phrase("river Tor", "n", True), "The river Tor is long."),
        ("Without {bare value}.", Phrase("river Tor", "n", True), "Without river Tor."),
        ("{He/She/It value} came.", Phrase("Nadia", "f"), "She came."),
        ("{He/She/It value} came.", Phrase("Tor", "n"), "It came."),
        ("{his/her/its value} dog", Phrase("Tor", "m"), "His dog"),
    ],
)
def test_english_articles_and_pronouns(template, value, expected):
    assert compile_template(template, "en").fill({"value": value}) == expected


@pytest.mark.parametrize(
    ("stem", "s", "ed", "ing"),
    [
        ("paint", "paints", "painted", "painting"),
        ("plim", "plims", "plimmed", "plimming"),
        ("vex", "vexes", "vexed", "vexing"),
        ("merp", "merps", "merped", "merping"),
        ("bake", "bakes", "baked", "baking"),
        ("open", "opens", "opened", "opening"),
        ("wash", "washes", "washed", "washing"),
        ("load", "loads", "loaded", "loading"),
    ],
)
def test_english_verb_forms(stem, s, ed, ing):
    template = compile_template("x {-s verb} {-ed verb} {-ing verb} {verb}", "en")
    assert template.inside({"verb": Verb(stem)}) == f"x {s} {ed} {ing} {stem}"


def test_spanish_verb_forms():
    template = compile_template(
        "x {-a verb} {-ó verb} {-an verb} {-ad verb}{o/a name} {verb}", "es"
    )
    filled = template.inside({"verb": Verb("plim"), "name": TOWN})
    assert filled == "x plima plimó pliman plimada plimar"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("pan", "vino", "pan y vino"),
        ("padres", "hijos", "padres e hijos"),
        ("Ana", "Isa", "Ana e Isa"),
        ("agua", "hielo", "agua y hielo"),
        ("sal", "iones", "sal y iones"),
    ],
)
def test_spanish_and_becomes_e_before_the_sound_i(first, second, expected):
    assert and_then(first, second, "es") == expected


def test_numbers_and_dates():
    assert [number(n, "en") for n in (7, 4300, 43000)] == ["7", "4,300", "43,000"]
    assert [number(n, "es") for n in (7, 4300, 43000)] == ["7", "4300", "43 000"]
    assert (decimal(35, "en"), decimal(35, "es"), decimal(30, "es")) == ("3.5", "3,5", "3")
    assert date(14, 3, 1873, "en") == "14 March 1873"
    assert date(14, 3, 1873, "es") == "14 de marzo de 1873"
    assert date(1, 12, None, "es") == "1 de diciembre"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["de", "a", "el", "El", "río", "la", "él", "con"]), max_size=9))
def test_contracting_leaves_no_uncontracted_pair_and_is_idempotent(words):
    text = contract(" ".join([*words, "fin"]))
    assert contract(text) == text
    padded = f" {text} "
    assert " de el " not in padded
    assert " a el " not in padded


def test_a_template_that_cannot_be_compiled_says_why():
    with pytest.raises(DataError, match="form is not known in 'en'"):
        compile_template("{un value} is here.", "en")
    with pytest.raises(DataError, match="not closed"):
        compile_template("{name is here.", "en")


def test_binding_one_slot_leaves_the_others_open():
    bound = bind("{el attr} de {name} es {value}", "attr", Phrase("dosis", "f"), "es")
    assert bound == "la dosis de {name} es {value}"


def test_dice_repeat_themselves_and_sampling_neither_loses_nor_repeats():
    first, second = Dice(3, "a"), Dice(3, "a")
    assert [first.below(1000) for _ in range(50)] == [second.below(1000) for _ in range(50)]
    assert Dice(3, "a").unit() != Dice(3, "b").unit()
    # the sequence itself is part of the promise: the same on every machine and Python version
    assert [Dice(0).below(10**6), Dice("world", 7).below(10**6)] == [DICE_0, DICE_WORLD_7]
    assert sorted(Dice(1).shuffled(range(40))) == list(range(40))
    drawn = [Dice(n).weighted((0.0, 1.0, 3.0)) for n in range(4000)]
    assert drawn.count(0) == 0
    assert 0.71 < drawn.count(2) / 4000 < 0.79


DICE_0, DICE_WORLD_7 = 312510, 137755
