"""Phrasings: the sentences and questions of a domain, read from ``phrasings/DOMAIN.LANGUAGE.json``.

One file per domain and language, the same keys in both languages, so that a teacher can read and
add to them. The last statement and the last question of every attribute are *held out*: a test set
may use them, a training stream never does (``held_out=True`` picks them, and only them).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minirag.corpus.dice import Dice
from minirag.corpus.grammar import Phrase, Template, bind, check_language, compile_template
from minirag.errors import DataError, UsageError

DIRECTORY = Path(__file__).parent / "phrasings"


@dataclass(frozen=True)
class Statement:
    """One way to state a fact, with the forms that a running text needs.

    Attributes
    ----------
    template
        The sentence as written: "{name} was founded in {value}."
    pronoun
        The same with the subject as a pronoun ("It was founded in ...") or, in Spanish, left out
        ("Fue fundada en ..."); None if the sentence does not begin with its subject.
    predicate
        What follows the subject, without the full stop ("was founded in {value}"), or None.
    """

    template: Template
    pronoun: Template | None
    predicate: Template | None


@dataclass(frozen=True)
class Attribute:
    """How one attribute is called, stated and asked for in one language."""

    label: str  # how a list calls it ("alcalde/alcaldesa" by the value's gender); may be ""
    noun: Phrase  # the same as a noun phrase, with its Spanish gender
    statements: tuple[Statement, ...]
    questions: tuple[Template, ...]
    reverse: tuple[Template, ...] = ()  # questions that give the value and ask for the subject

    def label_for(self, value: Phrase) -> str:
        """Return how a list calls it, in agreement with the value: "alcaldesa: Nadia Ripoll"."""
        masculine, _, feminine = self.label.partition("/")
        return feminine if feminine and value.gender == "f" else masculine

    def statement(self, dice: Dice, *, held_out: bool = False) -> Statement:
        """A statement for training, or the held-out one."""
        return self.statements[-1] if held_out else dice.pick(self.statements[:-1])

    def question(self, dice: Dice, *, held_out: bool = False) -> Template:
        """A question for training, or the held-out one."""
        return self.questions[-1] if held_out else dice.pick(self.questions[:-1])


@dataclass(frozen=True)
class Kind:
    """What a kind of entity is called in one language."""

    noun: Phrase  # "river", "río": used for later mentions, "the river", "el río"
    pattern: str  # "the river {}": how the bare name is mentioned
    intros: tuple[Template, ...]
    titles: tuple[str, ...] = ()  # patterns to draw from for names that hold a noun: "{} Fair"
    genders: tuple[str, ...] = ()  # Spanish gender of each title, if it differs from the noun's

    def mention(self, core: str, title: int = 0, gender: str | None = None) -> Phrase:
        """The phrase that names an entity, from its bare invented name."""
        pattern, gender = self.pattern, gender or self.noun.gender
        if self.titles:
            core = self.titles[title].format(core)
            gender = self.genders[title] if self.genders else gender
        article, _, rest = pattern.partition(" ")
        if article in ("the", "el", "la"):
            return Phrase(rest.format(core), gender, True)
        return Phrase(pattern.format(core), gender, False)


@dataclass(frozen=True)
class Phrasings:
    """Everything that one domain needs in one language."""

    language: str
    kinds: Mapping[str, Kind]
    attributes: Mapping[str, Attribute]
    texts: Mapping[str, tuple[Template, ...]]  # "fillers", "story.links", "letter.greetings", ...
    raw: Mapping[str, Any]  # the file itself, for what only one module reads


def _statement(source: str, language: str) -> Statement:
    pronoun = predicate = None
    if source.startswith("{name} ") and source[len("{name} ")].isalpha():
        rest = source[len("{name} ") :]
        pronoun = rest if language == "es" else "{he/she/it name} " + rest
        predicate = rest.rstrip(".")
    elif source.startswith("{name}'s "):
        pronoun = "{his/her/its name} " + source[len("{name}'s ") :]
    return Statement(
        compile_template(source, language),
        compile_template(pronoun, language) if pronoun else None,
        compile_template(predicate, language) if predicate else None,
    )


def _label(label: str) -> tuple[str, Phrase]:
    """Take the article off a Spanish label that has one: it tells the gender."""
    article, _, rest = label.partition(" ")
    if article in ("el", "la"):
        return rest, Phrase(rest, "f" if article == "la" else "m")
    return label, Phrase(label)


def _templates(sources: list[str], language: str) -> tuple[Template, ...]:
    return tuple(compile_template(source, language) for source in sources)


def _flatten(raw: Mapping[str, Any], prefix: str = "") -> dict[str, list[str]]:
    """Lists of plain templates by dotted path; what is not such a list is skipped."""
    found: dict[str, list[str]] = {}
    for key, value in raw.items():
        if isinstance(value, dict) and key not in ("kinds", "attributes"):
            found.update(_flatten(value, f"{prefix}{key}."))
        elif isinstance(value, list) and key not in ("header", "titles", "genders"):
            found[prefix + key] = value
    return found


@functools.cache
def load(domain: str, language: str) -> Phrasings:
    """Read and compile a domain's phrasings; the result is kept.

    Raises
    ------
    DataError
        If the file is missing, is not JSON, or holds a template that can't be compiled.
    """
    check_language(language)
    path = DIRECTORY / f"{domain}.{language}.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        have = sorted(p.name for p in DIRECTORY.glob("*.json"))
        raise DataError(
            f"there are no phrasings {path.name}: there are {', '.join(have)}."
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}): mend it.") from error
    neuter = "n" if language == "en" else "m"
    kinds = {
        name: Kind(
            noun=Phrase(entry["noun"], entry.get("gender", neuter), True),
            pattern=entry["name"],
            intros=_templates(entry["intros"], language),
            titles=tuple(entry.get("titles", ())),
            genders=tuple(entry.get("genders", ())),
        )
        for name, entry in raw.get("kinds", {}).items()
    }
    attributes = {
        key: Attribute(
            *_label(entry.get("label", "")),
            tuple(_statement(source, language) for source in entry["statements"]),
            _templates(entry["questions"], language),
            _templates(entry.get("reverse", []), language),
        )
        for key, entry in raw.get("attributes", {}).items()
    }
    texts = {key: _templates(sources, language) for key, sources in _flatten(raw).items()}
    return Phrasings(language, kinds, attributes, texts, raw)


@functools.cache
def load_plain(domain: str, language: str) -> Phrasings:
    """Read a domain's phrasings, its facts put into the plain frames of the nonce exercises.

    "The paediatric dose of X is 40 mg" for every attribute alike: the domain's nouns are new to
    a base model, the wording around them is not. Halfway between the general world and the domain.
    """
    own, frames = load(domain, language), load("nonce", language).raw["attributes"]["noun"]

    def bound(sources: list[str], noun: Phrase) -> list[str]:
        return [bind(source, "attr", noun, language) for source in sources]

    attributes = {
        key: Attribute(
            attribute.label,
            attribute.noun,
            tuple(_statement(s, language) for s in bound(frames["statements"], attribute.noun)),
            _templates(bound(frames["questions"], attribute.noun), language),
        )
        for key, attribute in own.attributes.items()
    }
    return replace(own, attributes=attributes)


@functools.cache
def load_half(domain: str, language: str) -> Phrasings:
    """Read a domain's phrasings, every other attribute put into plain frames; the same in Spanish.

    Half of what is said, and of what is asked, is worded as the base knows it.
    """
    own, plain = load(domain, language), load_plain(domain, language)
    known = sorted(own.attributes)[::2]
    return replace(own, attributes={**own.attributes, **{k: plain.attributes[k] for k in known}})


# How far a domain's wording lies from what a base model knows: the nearest first.
WORDINGS: Mapping[str, Callable[[str, str], Phrasings]] = {
    "plain": load_plain,
    "half": load_half,
    "domain": load,
}


def phrasings_of(domain: str, language: str, wording: str = "domain") -> Phrasings:
    """Read a domain's phrasings in one of the :data:`WORDINGS`.

    Raises
    ------
    UsageError
        If there is no such wording, or it is the general world's, which is what the base knows.
    """
    if wording not in WORDINGS:
        raise UsageError(f"the wording is {wording!r}: give one of {', '.join(WORDINGS)}.")
    if domain == "general" and wording != "domain":
        raise UsageError(f"the general world has no {wording} wording: it is what the base knows.")
    return WORDINGS[wording](domain, language)
