"""Longer documents with a reference summary or a label: case notes, acts of parliament, reports."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from minirag.corpus import law, medicine, names, values
from minirag.corpus.dice import Dice
from minirag.corpus.grammar import Phrase, date, decimal
from minirag.corpus.passages import Slots
from minirag.corpus.phrasings import load
from minirag.errors import UsageError


@dataclass(frozen=True)
class Summarised:
    """A text and its summary; every name and number of the summary stands in the text."""

    text: str
    summary: str
    language: str
    names: tuple[str, ...]  # of what it is about; sets that share none are about other things


@dataclass(frozen=True)
class Labelled:
    """A text and its class."""

    text: str
    label: str
    language: str


def _day(day: datetime.date, language: str) -> Phrase:
    return Phrase(date(day.day, day.month, day.year, language))


def case_notes(seed: int, language: str, n: int) -> list[Summarised]:
    """Draw ``n`` hospital case notes with one-sentence summaries."""
    dice, texts = Dice(seed, "case notes", language), load("medicine", language).texts
    out = []
    for _ in range(n):
        admitted = datetime.date(2034, 1, 1) + datetime.timedelta(days=dice.below(2000))
        discharged = admitted + datetime.timedelta(days=dice.between(2, 30))
        temperature = decimal(dice.between(365, 399), language)
        dose = medicine.MEDICINE.kinds["drug"]["dose"](dice, "m")
        facts = {
            "patient": values.person(dice, ""),
            "symptom": medicine.complaint(dice, ""),
            "disease": medicine.new_name(dice, "disease"),
            "drug": medicine.new_name(dice, "drug"),
            "dose": dose,
        }
        slots: Slots = {key: getattr(value, language) for key, value in facts.items()}
        slots |= {
            "age": Phrase(str(dice.between(19, 91))),
            "days": Phrase(str(dice.between(2, 20))),
            "date": _day(admitted, language),
            "discharge": _day(discharged, language),
            "pressure": Phrase(f"{dice.between(95, 180)}/{dice.between(55, 110)}"),
            "pulse": Phrase(str(dice.between(52, 120))),
            "temperature": Phrase(temperature),
        }
        keys = ["openings", "complaints", "findings", "diagnoses", "therapies", "outcomes"]
        for extra in dice.sample(("history", "history", "courses", "courses"), dice.between(1, 3)):
            keys.insert(keys.index("complaints" if extra == "history" else "outcomes"), extra)
        sentences: list[str] = []
        for key in keys:
            sentence = dice.pick(texts[f"notes.{key}"]).fill(slots)
            if sentence not in sentences:
                sentences.append(sentence)
        summary = dice.pick(texts["notes.summaries"]).fill(slots)
        named = tuple(getattr(facts[key], language).text for key in ("patient", "disease", "drug"))
        out.append(Summarised(" ".join(sentences), summary, language, named))
    return out


def acts(seed: int, language: str, n: int) -> list[Summarised]:
    """Draw ``n`` acts of parliament with one-sentence summaries."""
    dice, texts = Dice(seed, "acts", language), load("law", language).texts
    kinds = law.LAW.kinds
    out = []
    for _ in range(n):
        stem = names.noun(dice).rstrip("aeiou")
        force = datetime.date(1995, 1, 1) + datetime.timedelta(days=dice.below(15_000))
        facts = {
            "name": law.new_name(dice, "statute"),
            "authority": kinds["licence"]["authority"](dice, ""),
            "court": kinds["offence"]["court"](dice, ""),
            "fine": kinds["offence"]["fine"](dice, ""),
        }
        slots: Slots = {key: getattr(value, language) for key, value in facts.items()}
        every = dice.between(2, 40)
        slots |= {
            "subject": Phrase(f"{stem}s" if language == "en" else f"{stem}os"),
            "often": Phrase(f"every {every} months" if language == "en" else f"cada {every} meses"),
            "days": Phrase(str(dice.between(5, 120))),
            "date": _day(force, language),
        }
        sections = ("purposes", "duties", "sanctions", "procedures", "finals")
        title, *body = (
            dice.pick(texts[f"acts.{key}"]).fill(slots) for key in ("headings", *sections)
        )
        summary = dice.pick(texts["acts.summaries"]).fill(slots)
        text = title + "\n" + " ".join(body)
        name = getattr(facts["name"], language).text
        out.append(Summarised(text, summary, language, (name,)))
    return out


def reports(domain: str, seed: int, language: str, n: int) -> list[Labelled]:
    """Draw ``n`` reports of a domain, labelled by field ("cardiology", "tax"), evenly.

    Each report speaks mostly of its own field, but of others too; the field is never named.
    """
    if domain not in ("medicine", "law"):
        raise UsageError(f"the domain is {domain!r}: there are reports of medicine and of law.")
    phrasings = load(domain, language)
    fields: dict[str, list[str]] = phrasings.raw["labels"]
    dice, labels = Dice(seed, "reports", domain, language), tuple(fields)
    out = []
    for label in dice.shuffled([labels[i % len(labels)] for i in range(n)]):
        others = [term for field in labels if field != label for term in fields[field]]
        n_own = dice.between(3, 4)
        terms = dice.sample(fields[label], n_own) + dice.sample(others, dice.between(1, n_own - 1))
        templates = dice.sample(phrasings.texts["reports.sentences"], len(terms))
        sentences = [
            template.fill({"term": Phrase(term)})
            for template, term in zip(templates, dice.shuffled(terms), strict=True)
        ]
        out.append(Labelled(" ".join(sentences), label, language))
    return out
