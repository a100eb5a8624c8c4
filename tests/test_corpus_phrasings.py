"""The phrasings files: complete in both languages, grammatical, each domain with its own words."""

import itertools
import json
import re

import pytest

from minirag.corpus import exercises, law, medicine
from minirag.corpus.dice import Dice
from minirag.corpus.everyday import SORTS
from minirag.corpus.general import GENERAL, KINDS
from minirag.corpus.phrasings import DIRECTORY, load, load_plain
from minirag.corpus.world import DOMAINS

FILES = sorted({path.name.split(".")[0] for path in DIRECTORY.glob("*.json")})
WORD = re.compile(r"[^\W\d_]+")
SLOT = re.compile(r"\{[^{}]*\}")

# Words that any text needs: articles, prepositions, auxiliaries, everyday verbs and nouns. All that
# a domain's phrasings may share with the general world; every other word is the domain's own.
COMMON = {
    "en": """
        a about above according after again against age all amount an and another any appear are
        as ask at be bear bears became become been before begin begins behind belong belongs
        between brought but by called can carries carry charge child children code come comes
        company contained contains covers date did do does end ends enter entry fears fill first
        followed for form found from give given has have heard how i if in into is it its keeps
        know known last lasts lead level lie lies like line long main makes may me more most much
        must name never no not of official often on once one only or other out over owe owes
        place prevented puts reaches read receive receives repeat report rest route rules s same
        say second serve set sets share should side sign signed since so stand stands start
        starts stays take taken takes tell than that the those time to took under up use used
        usual was what when where which who whoever whom whose with without would you""",
    "es": """
        a al algunos anterior antes aparece así bajo cada cantidad caso casos como con conoce
        conocida contra corresponde cuanto cuál cuáles cuándo cuánto código cómo da de debe deben
        del desde después detrás di dice dime dura durante dónde edad el empieza en encima
        encuentra entrada entre es está están fecha figura frente fue fuerza ha hace han hasta
        hay la las le les llamada llega lleva lo los lugar línea miembro más máxima máximo nadie
        ningún nivel niño niños no nunca número o oficial otro paga para pasa pasan pasar pasó
        pertenece pertenecen pone por potencia presenta presentan presentó primer primera primero
        principal producto programa prueba publicó puede que queda quien quienes quisiera quién
        qué recibe recibir recomienda saber sabes se según ser si sin sobre solo son su sus teme
        tener tiempo tiene todos trata un una usa uso valor y""",
}  # fmt: skip

# Words of at least four letters that carry no content: they tell no attribute from another.
GLUE = {
    "en": """
        after against before called does from have must often should that this under what when
        where which whoever whom whose with""",
    "es": """
        algunos ante antes cada como contra cuando cuanto cuál cuándo cuánto desde después donde
        dónde durante entre para quien quienes quién según sobre tiene tienen tras""",
}


def raw(name, language):
    return json.loads((DIRECTORY / f"{name}.{language}.json").read_text("utf-8"))


def strings(node):
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for item in node:
            yield from strings(item)
    elif isinstance(node, dict):
        for key, item in node.items():
            if key not in ("header", "language", "gender"):
                yield from strings(item)


def words(text):
    return set(WORD.findall(SLOT.sub(" ", text).lower()))


def shape(node):
    """What must be the same in both languages: the keys, all the way down."""
    if isinstance(node, dict):
        return {
            key: shape(value) for key, value in node.items() if key not in ("gender", "genders")
        }
    return type(node).__name__


@pytest.mark.parametrize("name", FILES)
def test_both_languages_have_the_same_keys(name):
    assert shape(raw(name, "en")) == shape(raw(name, "es"))


@pytest.mark.parametrize("name", FILES)
def test_the_same_number_of_frames_where_they_belong_together(name):
    english, spanish = raw(name, "en"), raw(name, "es")
    for key in ("labels", "verdicts", "subjects"):
        for inner in english.get(key, {}):
            assert len(english[key][inner]) == len(spanish[key][inner]), (key, inner)


def test_the_general_world_is_large_enough():
    assert len(GENERAL.entry_kinds) >= 8
    assert len({key for kind in KINDS.values() for key in kind}) >= 40
    for language in ("en", "es"):
        for domain in DOMAINS:
            for key, attribute in load(domain, language).attributes.items():
                assert len(attribute.statements) >= 5, key
                assert len(attribute.questions) >= 4, key


def test_everyday_attributes_are_many_and_the_same_in_both_languages():
    english, spanish = raw("everyday", "en"), raw("everyday", "es")
    assert len(english["attributes"]) >= 150
    assert set(english["sorts"]) == set(SORTS)
    for sort in SORTS:
        of_sort = [e for e in english["attributes"].values() if e["of"] == sort]
        assert len(of_sort) >= 15, sort
    for key, entry in english["attributes"].items():
        other = spanish["attributes"][key]
        for field in ("of", "shape"):
            assert entry.get(field) == other.get(field), key
        assert len(entry.get("values", ())) == len(other.get("values", ())), key
        assert ("shape" in entry) != ("values" in entry), key
        assert len(entry["statements"]) >= 6, key
        assert len(entry["questions"]) >= 5, key


@pytest.mark.parametrize("language", ["en", "es"])
def test_everyday_statements_hold_name_and_value(language):
    for key, entry in raw("everyday", language)["attributes"].items():
        for text in (*entry["statements"], *entry["questions"]):
            assert re.search(r"\{[^{}]*\bname\}", text), (key, text)
        for text in entry["statements"]:
            assert text.count("value}") == 1, (key, text)
            assert text.endswith("."), (key, text)
            begins = re.match(r"\{[^{}]*value\}", text)
            assert not begins or entry["shape"] in ("person", "place", "brand"), (key, text)
        for text in entry["questions"]:
            assert "value}" not in text, (key, text)


@pytest.mark.parametrize(
    ("language", "slips"),
    [
        ("en", r"\b[Aa] (?!one)[aeioAEIO]\w+|\b[Aa]n (?![aeiouhAEIOUH])\w+| the the |  "),
        ("es", r"\b(?:[dD]e|[aAdD]e?l|[aA]) el [a-z]|\b(el|la|los|las|un|de) \1\b|  "),
    ],
)
def test_articles_and_contractions_in_a_long_stretch_of_text(language, slips):
    mix = exercises.ExerciseMix(english=float(language == "en"), nonce=0.4, everyday=0.4)
    for exercise in itertools.islice(exercises.stream(3, mix), 1500):
        for text in (*exercise.passages, *(q.text for q in exercise.questions)):
            assert not re.search(slips, text), text


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("language", ["en", "es"])
def test_no_sentence_is_there_twice(name, language):
    for key, entry in raw(name, language).get("attributes", {}).items():
        for field in ("statements", "questions"):
            assert len(set(entry[field])) == len(entry[field]), (key, field)


def all_facts(domain, language):
    """Every attribute of every kind once, with phrasings of both wordings."""
    dice = Dice("facts", domain.name, language)
    for wording in (load, load_plain) if domain.name != "general" else (load,):
        phrasings = wording(domain.name, language)
        for kind in domain.kinds:
            entity = domain.new_entity(dice, kind)
            for key, value in entity.facts.items():
                yield phrasings.attributes[key], entity, getattr(value, language)


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=list(DOMAINS))
@pytest.mark.parametrize("language", ["en", "es"])
def test_every_phrasing_holds_the_answer_word_for_word_and_reads_well(domain, language):
    for attribute, entity, value in all_facts(domain, language):
        name = getattr(entity.name, language)
        slots = {"name": name, "value": value}
        for statement in attribute.statements:
            for template in (statement.template, statement.pronoun):
                if template is None:
                    continue
                text = template.fill(slots)
                assert value.text in text, text
                assert text[-1] in ".)", text
                assert text[0].isupper() or text[0] in "(«“-" or text[0].isdigit(), text
                assert not re.search(r"\b(de|a) el [a-zñ]|\s{2}|[{}]|\ba [aeio]\w+ing\b", text), (
                    text
                )
            assert name.text in statement.template.fill(slots) or name.text[0].islower()
        for question in attribute.questions:
            text = question.fill(slots)
            assert name.text.lower() in text.lower()
            assert value.text not in text or value.text in name.text, text
            if language == "es" and text.endswith("?"):
                assert text.count("¿") == 1, text
            assert text[-1] in "?.", text


@pytest.mark.parametrize("language", ["en", "es"])
def test_held_out_phrasings_are_never_drawn_for_training(language):
    dice = Dice(5)
    for domain in (*DOMAINS, "nonce", "everyday"):
        for attribute in load(domain, language).attributes.values():
            drawn = {id(attribute.statement(dice)) for _ in range(60)}
            asked = {id(attribute.question(dice)) for _ in range(60)}
            assert id(attribute.statements[-1]) not in drawn
            assert id(attribute.questions[-1]) not in asked
            assert attribute.statement(dice, held_out=True) is attribute.statements[-1]
            assert attribute.question(dice, held_out=True) is attribute.questions[-1]


def as_pattern(template):
    source = re.escape(SLOT.sub("@", template.source))
    source = re.sub(r"\b(de|a)\\ @", r"(?:\1\\ |\1l\\ )@", source)  # "de @" may be "del río Tor"
    return re.compile(source.replace("@", ".+"), re.IGNORECASE)


@pytest.mark.parametrize("language", ["en", "es"])
def test_no_held_out_wording_in_the_training_stream(language):
    """An independent look at the text itself, attribute by attribute."""
    mix = exercises.ExerciseMix(english=float(language == "en"), nonce=0.0, everyday=0.0)
    attributes = load("general", language).attributes
    held_out = {key: as_pattern(a.questions[-1]) for key, a in attributes.items()}
    seen = 0
    for exercise in itertools.islice(exercises.stream(2, mix), 1000):
        for question in exercise.questions:
            seen += 1
            assert not held_out[question.attribute].fullmatch(question.text), question.text
    assert seen > 2000
    for exercise in exercises.reading_set(2, language, 100):
        question = exercise.questions[0]
        assert held_out[question.attribute].fullmatch(question.text), question.text


@pytest.mark.parametrize("name", ["medicine", "law"])
@pytest.mark.parametrize("language", ["en", "es"])
def test_training_teaches_the_words_of_the_held_out_wordings(name, language):
    """Many wordings to generalise from, and none held out has a word that no other one has."""
    glue = set(GLUE[language].split())
    for key, entry in raw(name, language)["attributes"].items():
        *statements, last_statement = entry["statements"]
        *questions, last_question = entry["questions"]
        assert len(statements) + 1 >= 10, key
        assert len(questions) + 1 >= 10, key
        taught = {word[:5] for text in (*statements, *questions) for word in words(text)}
        for text in (last_statement, last_question):
            content = {word for word in words(text) - glue if len(word) >= 4}
            new = {word for word in content if word[:5] not in taught}
            assert not new, f"{key}: {text!r} has {sorted(new)}, which training never says"


@pytest.fixture(scope="module")
def general_words():
    """Every word of a long stretch of the general stream, by language."""
    found = {"en": set(), "es": set()}
    for exercise in itertools.islice(exercises.stream(1), 3000):
        texts = (*exercise.passages, *(q.text for q in exercise.questions))
        for text in texts:
            found[exercise.language] |= words(text)
    for name in ("general", "nonce", "everyday"):  # and what that stretch may have missed
        for language, known in found.items():
            for text in strings(raw(name, language)):
                known |= words(text)
    return found


@pytest.mark.parametrize("name", ["medicine", "law"])
@pytest.mark.parametrize("language", ["en", "es"])
def test_a_domains_words_are_its_own(name, language, general_words):
    entries, known = raw(name, language), general_words[language]
    common = set(COMMON[language].split())
    own = set().union(*(words(text) for text in strings(entries["attributes"]))) - common
    shared = own & known
    assert not shared, f"{name}.{language}: {sorted(shared)}"
    assert len(own) >= 100
    for key, entry in entries["attributes"].items():
        for question in entry["questions"]:
            assert words(question) & own, f"{key}: {question!r} has no word of its own"


@pytest.mark.parametrize("language", ["en", "es"])
def test_values_of_the_domains_bring_words_of_their_own(language, general_words):
    """Symptoms and offices: the closed parts of answers are new to the general world too."""
    dice, found = Dice("values"), set()
    for maker in (medicine.complaint, law.LAW.kinds["offence"]["exemption"]):
        for _ in range(400):
            found |= words(getattr(maker(dice, ""), language).text.partition(" of ")[0])
    share_known = len(found & general_words[language]) / len(found)
    assert share_known < 0.35
