"""The grammar that templates need: articles, agreement, contractions, numbers, dates.

A template is a sentence with slots, as a teacher would write it::

    {name} was founded by {value}.          {name} es {un value} muy conocid{o/a name}.

``{slot}`` puts a phrase, with its article if it takes one ("the river Tor", "el río Tor").
``{form slot}`` puts a form of it:

===================  ==========================================================================
English              ``{a value}`` a/an, ``{the value}``, ``{bare value}`` without article,
                     ``{he/she/it name}`` picks by gender (masculine/feminine/neuter)
Spanish              ``{un value}`` un/una, ``{el value}`` el/la, ``{bare value}``,
                     ``{o/a name}`` picks by gender (masculine/feminine)
verbs                ``{verb}`` base form, infinitive; English ``{-s verb} {-ed verb} {-ing verb}``;
                     Spanish ``{-a verb} {-ó verb} {-an verb} {-aba verb} {-ad verb}{o/a name}``
===================  ==========================================================================

The engine contracts "de el" and "a el" to "del" and "al", turns "y" into "e" where Spanish wants
it, and writes the first letter of a sentence as a capital; the author of a template need not care.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from minirag.errors import DataError, UsageError

LANGUAGES = ("en", "es")


def check_language(language: str) -> None:
    """Raise a UsageError if the world does not speak the language."""
    if language not in LANGUAGES:
        raise UsageError(f"the language is {language!r}: give one of {', '.join(LANGUAGES)}.")


class Phrase(NamedTuple):
    """A name or a noun in one language."""

    text: str  # without article; what an answer consists of
    gender: str = "n"  # "m", "f", or (English things) "n"
    article: bool = False  # does {slot} put the definite article before it?


class Verb(NamedTuple):
    """A regular verb: its stem is all that is needed."""

    stem: str


class Bilingual(NamedTuple):
    """The same thing in both languages; ``getattr(thing, language)`` picks one."""

    en: Phrase
    es: Phrase


Slots = Mapping[str, "Phrase | Verb"]


class Template(NamedTuple):
    """A compiled template: literal text and (form, slot) pairs in order."""

    parts: tuple[str | tuple[Callable[..., str], str], ...]
    spanish: bool
    source: str

    def fill(self, slots: Slots) -> str:
        """Return the sentence, first letter capital, contractions made."""
        return capitalised(self.inside(slots))

    def inside(self, slots: Slots) -> str:
        """Return the same for use inside a sentence: the first letter as it is."""
        text = "".join([p if isinstance(p, str) else p[0](slots[p[1]]) for p in self.parts])
        return contract(text) if self.spanish else text


_UNCONTRACTED = re.compile(r"\b([dD]e|[aA]) el ")


def contract(text: str) -> str:
    """Spanish "de el" to "del", "a el" to "al" (never before a capital "El" of a title)."""
    return _UNCONTRACTED.sub(r"\1l ", text) if " el " in text else text


def capitalised(text: str) -> str:
    """The text with its first letter (after "¿") as a capital."""
    if text[:1] == "¿":
        return "¿" + text[1:2].upper() + text[2:]
    return text[:1].upper() + text[1:]


def _english_plain(p: Phrase) -> str:
    return "the " + p.text if p.article else p.text


def _english_a(p: Phrase) -> str:
    return ("an " if p.text[0] in "aeiouAEIOU" else "a ") + p.text


def _english_the(p: Phrase) -> str:
    return "the " + p.text


def _bare(p: Phrase) -> str:
    return p.text


def _spanish_el(p: Phrase) -> str:
    return ("la " if p.gender == "f" else "el ") + p.text


def _spanish_plain(p: Phrase) -> str:
    return _spanish_el(p) if p.article else p.text


def _spanish_un(p: Phrase) -> str:
    return ("una " if p.gender == "f" else "un ") + p.text


def _by_gender(form: str) -> Callable[..., str]:
    choices = form.split("/")
    table = {"m": choices[0], "f": choices[1], "n": choices[-1] if len(choices) > 2 else choices[0]}
    return lambda p: table[p.gender]


def _plain_or_verb(
    noun: Callable[[Phrase], str], infinitive: str
) -> Callable[[Phrase | Verb], str]:
    return lambda p: p.stem + infinitive if isinstance(p, Verb) else noun(p)


_DOUBLING = re.compile(r"[^aeiou]*[aeiou][bdgklmnprt]")  # one syllable, one short vowel: "plim"


def with_s(word: str) -> str:
    """An English plural or third person: "plims", "baxes"."""
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def _past(v: Verb) -> str:
    if v.stem.endswith("e"):
        return v.stem + "d"
    return v.stem + (v.stem[-1] + "ed" if _DOUBLING.fullmatch(v.stem) else "ed")


def _gerund(v: Verb) -> str:
    if v.stem.endswith("e"):
        return v.stem[:-1] + "ing"
    return v.stem + (v.stem[-1] + "ing" if _DOUBLING.fullmatch(v.stem) else "ing")


def _ending(ending: str) -> Callable[[Verb], str]:
    return lambda v: v.stem + ending


_FORMS: dict[str, dict[str, Callable[..., str]]] = {
    "en": {
        "": _plain_or_verb(_english_plain, ""),
        "a": _english_a,
        "the": _english_the,
        "bare": _bare,
        "-s": lambda verb: with_s(verb.stem),
        "-ed": _past,
        "-ing": _gerund,
    },
    "es": {
        "": _plain_or_verb(_spanish_plain, "ar"),
        "un": _spanish_un,
        "el": _spanish_el,
        "bare": _bare,
        **{f"-{end}": _ending(end) for end in ("a", "ó", "an", "ad", "ando", "aba")},
    },
}
_SLOT = re.compile(r"\{([^{}]*)\}")


def compile_template(source: str, language: str) -> Template:
    """Compile a template; see the module's docstring for the notation.

    Raises
    ------
    DataError
        If a form is unknown or a brace is left open.
    """
    parts: list[str | tuple[Callable[..., str], str]] = []
    end = 0
    for match in _SLOT.finditer(source):
        if match.start() > end:
            parts.append(source[end : match.start()])
        form, _, slot = match[1].rpartition(" ")
        function = _by_gender(form) if "/" in form else _FORMS[language].get(form)
        if function is None or not slot:
            raise DataError(
                f"the template {source!r} has the slot {match[0]!r}, whose form is not known in "
                f"{language!r}: write {{slot}} or one of {sorted(_FORMS[language])[1:]} before it."
            )
        parts.append((function, slot))
        end = match.end()
    if end < len(source):
        parts.append(source[end:])
    if any(isinstance(part, str) and ("{" in part or "}" in part) for part in parts):
        raise DataError(f"the template {source!r} has a brace that is not closed or not opened.")
    return Template(tuple(parts), language == "es", source)


def bind(source: str, slot: str, phrase: Phrase, language: str) -> str:
    """Fill one slot of a template's source and leave the others open.

    ``bind("The {attr} of {name}", "attr", Phrase("dose"), "en")`` is "The dose of {name}".
    """

    def replace(match: re.Match[str]) -> str:
        form, _, name = match[1].rpartition(" ")
        if name != slot:
            return match[0]
        function = _by_gender(form) if "/" in form else _FORMS[language][form]
        return function(phrase)

    return _SLOT.sub(replace, source)


# ------------------------------------------------------------------ numbers, dates, lists of words

MONTHS = {
    "en": (
        "January February March April May June July August September October November December"
    ).split(" "),
    "es": (
        "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"
    ).split(" "),
}


def number(n: int, language: str) -> str:
    """4300 and 43000: "4,300" and "43,000" in English, "4300" and "43 000" in Spanish."""
    if language == "en":
        return f"{n:,}"
    return f"{n:,}".replace(",", " ") if n >= 10_000 else str(n)


def decimal(tenths: int, language: str) -> str:
    """35 tenths: "3.5" in English, "3,5" in Spanish; 30 tenths: "3"."""
    whole, rest = divmod(tenths, 10)
    if not rest:
        return str(whole)
    return f"{whole}{'.' if language == 'en' else ','}{rest}"


def date(day: int, month: int, year: int | None, language: str) -> str:
    """ "14 March 1873" and "14 de marzo de 1873" (month from 1 to 12; year may be None)."""
    if language == "en":
        return f"{day} {MONTHS['en'][month - 1]}" + (f" {year}" if year else "")
    return f"{day} de {MONTHS['es'][month - 1]}" + (f" de {year}" if year else "")


def and_then(first: str, second: str, language: str) -> str:
    """ "first and second"; Spanish "y", or "e" before the sound i."""
    if language == "en":
        return f"{first} and {second}"
    low = second.lower()
    is_i = low.startswith(("i", "í", "hi", "hí")) and not low.startswith(("hie", "hia", "io", "ia"))
    return f"{first} {'e' if is_i else 'y'} {second}"
