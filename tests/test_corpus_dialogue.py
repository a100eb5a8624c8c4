"""What people ask and write: FAQ, follow-ups, mixed questions, notes, reviews, news."""

import re

import pytest

from minirag.corpus.dialogue import faq, follow_ups, mixed_questions
from minirag.corpus.general import well_known
from minirag.corpus.news import news
from minirag.corpus.notes import acts, case_notes, reports
from minirag.corpus.phrasings import load
from minirag.corpus.reviews import LABELS, reviews
from minirag.corpus.world import Sizes, draw_world
from minirag.errors import UsageError

LANGUAGES = ["en", "es"]
DOMAINS = ["medicine", "law"]


@pytest.fixture(scope="module", params=DOMAINS)
def world(request):
    return draw_world(request.param, 2, Sizes(60, 40, 10, 30, 10))


@pytest.mark.parametrize("language", LANGUAGES)
def test_faq_queries_ask_entries_in_other_words_or_nothing(world, language):
    entries, queries = faq(world, language, 80)
    by_id = {entry.id: entry for entry in entries}
    assert len(by_id) == 80
    assert len({entry.question for entry in entries}) == 80
    assert sum(query.entry is not None for query in queries) == 80
    assert sum(query.entry is None for query in queries) == 40
    stored = {entry.question for entry in entries}
    for query in queries:
        assert query.text not in stored
    for entry in entries:
        assert entry.value in entry.answer
    with pytest.raises(UsageError, match="FAQ entries"):
        faq(world, language, 10_000)


@pytest.mark.parametrize("language", LANGUAGES)
def test_faq_queries_in_vain_are_about_what_an_entry_is_about(world, language):
    entries, queries = faq(world, language, 80)
    names = [
        getattr(record.entity.name, language).text.lower()
        for record in world.group("stable", "unseen")
    ]

    def named(question):
        return max((name for name in names if name in question.lower()), key=len)

    known = {named(entry.question) for entry in entries}
    assert all(named(query.text) in known for query in queries)


@pytest.mark.parametrize("language", LANGUAGES)
def test_follow_ups_and_what_they_stand_for(world, language):
    documents = {d.id: d for d in world.documents(language)}
    made = follow_ups(world, 1, language, 300)
    assert len(made) == 300
    kinds = [item.kind for item in made]
    assert min(kinds.count(kind) for kind in ("attribute", "entity", "standalone")) > 30
    assert made == follow_ups(world, 1, language, 300)
    for item in made:
        document = documents[item.document]
        name = document.title.lower()
        assert item.answer in document.text
        assert name in item.standalone.lower()
        assert 1 <= len(item.history) <= 2
        if item.kind == "attribute":  # not to be understood without the history
            assert name not in item.question.lower()
            assert name in item.history[-1][0].lower()
        elif item.kind == "entity":
            assert name in item.question.lower()
            assert name not in item.history[-1][0].lower()
            assert item.question != item.standalone
        else:
            assert item.question == item.standalone
    with pytest.raises(UsageError, match="'general'"):
        follow_ups(draw_world("general", 0, Sizes(9, 9, 9, 9, 9)), 0, language, 1)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_mixed_questions_need_the_passage_and_general_knowledge(domain, language):
    known = {getattr(e.name, language).text: e for e in well_known()}
    for item in mixed_questions(domain, 3, language, 200):
        assert item.known in item.passage
        assert item.known not in item.question
        assert item.answer not in item.passage
        facts = known[item.known].facts.values()
        assert item.answer in [getattr(value, language).text for value in facts]
    with pytest.raises(UsageError, match="no mixed questions"):
        mixed_questions("general", 0, language, 1)


@pytest.mark.parametrize("write", [case_notes, acts])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_summary_says_nothing_that_the_text_does_not(write, language):
    made = write(4, language, 60)
    assert len({item.text for item in made}) == 60
    for item in made:
        assert len(item.summary) < 0.75 * len(item.text)
        for number in re.findall(r"\d[\d,. ]*\d|\d", item.summary):
            assert number in item.text
        for name in re.findall(r"\b[A-ZÁÉÍÓÚÑ]\w{3,}", item.summary):
            assert name.lower() in item.text.lower()


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_reports_speak_mostly_of_their_own_field(domain, language):
    fields = load(domain, language).raw["labels"]
    made = reports(domain, 2, language, 50)
    labels = [item.label for item in made]
    assert {labels.count(field) for field in fields} == {10}
    for item in made:
        text = item.text.lower()
        text += text.replace(" del ", " de el ")  # "trató del despido" holds "el despido"
        hits = {field: sum(t.lower() in text for t in terms) for field, terms in fields.items()}
        assert max(hits, key=lambda field: hits[field]) == item.label
        assert sum(hits.values()) > hits[item.label], "other fields must be there too"
        assert item.label not in text
    with pytest.raises(UsageError, match="'general'"):
        reports("general", 0, language, 1)


@pytest.mark.parametrize("language", LANGUAGES)
def test_reviews_are_balanced_and_no_word_gives_them_away(language):
    made = reviews(6, language, 600)
    assert [sum(r.label == label for r in made) for label in LABELS] == [300, 300]
    raw = load("reviews", language).raw
    stems = {
        polarity: [re.split(r"/", adjective)[0][:-1].lower() for adjective in raw[polarity]]
        for polarity in ("pos", "neg")
    }
    right = 0
    for review in made:
        text = review.text.lower()
        score = sum(s in text for s in stems["pos"]) - sum(s in text for s in stems["neg"])
        right += (score > 0) == (review.label == "positive")
    assert right / len(made) < 0.7, "counting good and bad words must not be enough"
    for stem in stems["pos"] + stems["neg"]:
        labels = [r.label for r in made if stem in r.text.lower()]
        assert 0.15 < labels.count("positive") / len(labels) < 0.85


def test_news_supersedes_itself_alike_in_both_languages():
    english, spanish = news(3, "en", 120), news(3, "es", 120)
    assert [item.date for item in english] == sorted(item.date for item in english)
    seen = {}
    for item, noticia in zip(english, spanish, strict=True):
        assert (item.id, item.date, item.supersedes) == (
            noticia.id, noticia.date, noticia.supersedes,
        )  # fmt: skip
        assert item.answer in item.text
        assert noticia.answer in noticia.text
        if item.supersedes:
            assert seen[item.supersedes].answer != item.answer
        seen[item.id] = item
    superseded = [item.supersedes for item in english if item.supersedes]
    assert len(superseded) == len(set(superseded)) > 30
    with pytest.raises(UsageError, match="n is -1"):
        news(0, "en", -1)
