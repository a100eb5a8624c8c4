"""Invented names and words, built from syllables that both languages can pronounce.

The sets are open: a name of two long syllables and an ending is one of some ten million, a person's
full name one of 10**13. Two worlds of different seeds practically never share one.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

from minirag.corpus.dice import Dice

_ONSETS = "b c d f g l m n p r s t v z k br cr dr fr gr pr tr bl cl fl gl pl j".split(" ")
_VOWELS = "aeiou"
_CODAS = ("l", "n", "r", "s", "m")


def _soft(onset: str, vowel: str) -> bool:
    """C and g change their sound before e and i, and the two languages read j differently there."""
    return onset in ("c", "g", "j", "z") and vowel in "ei"


_OPEN = [o + v for o in _ONSETS for v in _VOWELS if not _soft(o, v)]
_CLOSED = [s + c for s in _OPEN for c in _CODAS]
_PLAIN = [s for s in _OPEN if len(s) == 2]
_SYLLABLES = _PLAIN * 16 + _OPEN * 3 + _CLOSED  # mostly easy ones, the others now and then
_INITIAL = _SYLLABLES + 8 * ["a", "e", "i", "o", "u", "al", "ar", "el", "en", "or", "ul", "os"]

_FEMININE = ["na", "ra", "la", "lia", "ria", "sa", "nda", "va", "mina", "tia", "da", "ma"]
_MASCULINE = ["no", "ro", "lo", "rio", "so", "ndo", "vo", "len", "tor", "dan", "mo", "sio"]
_SURNAME = ["ver", "mor", "dal", "rez", "nik", "ba", "kov", "lin", "tas", "gar", "mont", "bral",
            "duk", "sen", "vik", "ra", "no", "do", "rel", "mas"]  # fmt: skip
_PLACE = ["va", "nia", "dor", "mar", "tel", "burg", "lis", "na", "ro", "sk", "ta", "mil", "gor",
          "der", "len", "via", "za", "ran", "pol", "grad", "do", "sa"]  # fmt: skip
_BRAND = ["x", "ko", "tek", "lor", "vix", "na", "dis", "mar", "zon", "tra", "pex", "lum"]
_NOUN = ["n", "l", "r", "rin", "lo", "no", "to", "do", "vel", "ra", "na", "la", "ta", "da", "mel"]
_LETTERS = "ABCDEFGHJKLMNPRSTVXZ"

_SHORT_ENDS = ["m", "p", "k", "rn", "sk", "lt", "ft", "nd", "t", "b", "d", "g", "rk", "mp", "x"]


@functools.cache
def _beginnings_of_real_words() -> frozenset[str]:
    """Every beginning of every word in the phrasings: what a made-up word must not be.

    A made-up word that no real one begins with can take any ending ("merp", "merped", "merpos")
    and still be nobody's word: none of a domain's vocabulary enters the general world by chance.
    """
    words: set[str] = set()
    for path in sorted((Path(__file__).parent / "phrasings").glob("*.json")):
        words.update(re.findall(r"[^\W\d_]+", path.read_text("utf-8").lower()))
    return frozenset(word[:n] for word in words for n in range(2, len(word) + 1))


_HARSH = re.compile(  # "tommar", "donunr", "clomndo"
    r"([bcdfgkmnpstvz])\1|[^aeiou](?:[lnrx]|sk)$|[^aeiou]{2}[^aeioulr]"
)


def _word(dice: Dice, syllables: int, endings: list[str]) -> str:
    real = _beginnings_of_real_words()
    while True:
        middle = "".join([dice.pick(_SYLLABLES) for _ in range(syllables - 1)])
        word = dice.pick(_INITIAL) + middle + dice.pick(endings)
        if word not in real and not _HARSH.search(word):
            return word


def given_name(dice: Dice, gender: str) -> str:
    """A first name; feminine ones end in -a, masculine ones in -o or a consonant."""
    return _word(dice, dice.between(1, 2), _FEMININE if gender == "f" else _MASCULINE).capitalize()


def surname(dice: Dice) -> str:
    """A family name."""
    return _word(dice, dice.between(1, 2), _SURNAME).capitalize()


def person(dice: Dice, gender: str) -> str:
    """First name and family name."""
    return f"{given_name(dice, gender)} {surname(dice)}"


def place(dice: Dice) -> str:
    """A town, a region, a river, a mountain."""
    return _word(dice, 2, _PLACE).capitalize()


def brand(dice: Dice) -> str:
    """A company: one word, two joined by a hyphen, or two by "&"."""
    word = _word(dice, 2, _BRAND).capitalize()
    shape = dice.unit()
    if shape < 0.7:
        return word
    return f"{word}{'-' if shape < 0.85 else ' & '}{surname(dice)}"


def noun(dice: Dice, gender: str | None = None, *, short: bool = False) -> str:
    """Draw a made-up common noun in lower case, "torvin", or a short one, "plim".

    With a Spanish gender, feminine ones end in -a (and do not begin with a stressed a, which would
    want "el"), masculine ones do not end in -a.
    """
    while True:
        word = short_word(dice) if short else _word(dice, 2, _NOUN)
        if gender == "f":
            word = word.rstrip("aeio") + "a"
        elif gender == "m" and word.endswith("a"):
            word = word[:-1] + "o"
        if word not in _beginnings_of_real_words() and not (gender == "f" and word[0] == "a"):
            return word


def code(dice: Dice) -> str:
    """A code such as "KT-40", "B-2207", "XR-315"."""
    letters = "".join([dice.pick(_LETTERS) for _ in range(dice.between(1, 3))])
    return f"{letters}-{dice.between(10, 9999)}"


def short_word(dice: Dice) -> str:
    """Draw a short made-up word such as "plim" or "dorvisk", for nonce attributes and verbs."""
    real = _beginnings_of_real_words()
    while True:
        start = dice.pick(_OPEN) if dice.chance(0.5) else dice.pick(_INITIAL) + dice.pick(_OPEN)
        word = start + dice.pick(_SHORT_ENDS)
        if word not in real:
            return word
