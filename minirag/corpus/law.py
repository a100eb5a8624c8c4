"""Law: an invented penal code, licences and statutes.

Nothing of its vocabulary occurs in the general world, so that a base model has never seen it.
"""

from __future__ import annotations

from minirag.corpus import names, values
from minirag.corpus.dice import Dice
from minirag.corpus.facts import Domain
from minirag.corpus.grammar import Bilingual, Phrase, date, number
from minirag.corpus.values import Maker

_DEEDS = [
    ("smuggling", "introducir de contrabando"), ("forging", "falsificar"),
    ("pawning", "empeñar"), ("hoarding", "acaparar"), ("embezzling", "malversar"),
    ("bootlegging", "revender clandestinamente"), ("defacing", "desfigurar"),
    ("misappropriating", "apropiarse indebidamente de"), ("counterfeiting", "adulterar"),
    ("trafficking in", "traficar con"),
]  # fmt: skip
_STATES = [
    ("unlicensed", "sin licencia"), ("impounded", "embargados"), ("entailed", "vinculados"),
    ("undeclared", "no declarados"), ("confiscated", "decomisados"), ("sealed", "precintados"),
    ("mortgaged", "hipotecados"), ("inherited", "heredados"),
]  # fmt: skip
_OFFICES = [
    ("notaries", "los notarios"), ("bailiffs", "los alguaciles"), ("diplomats", "los diplomáticos"),
    ("customs officers", "los aduaneros"), ("auctioneers", "los subastadores"),
    ("trustees", "los fideicomisarios"), ("heirs", "los herederos"), ("minors", "los menores"),
    ("tenants", "los inquilinos"), ("creditors", "los acreedores"), ("guarantors", "los avalistas"),
    ("magistrates", "los magistrados"),
]  # fmt: skip


def new_name(dice: Dice, kind: str) -> Bilingual:
    """Draw the name of an offence, a licence or a statute."""
    if kind == "offence":
        stem = names.noun(dice).rstrip("aeiou")
        return LAW.mention(kind, stem + "age", spanish=stem + "aje")
    if kind == "licence":
        return LAW.mention(kind, names.noun(dice))
    return LAW.mention(kind, names.place(dice))


def _of_kind(kind: str) -> Maker:
    return lambda dice, _: new_name(dice, kind)


def _conduct(dice: Dice, _: str) -> Bilingual:
    (deed, hecho), (state, estado) = dice.pick(_DEEDS), dice.pick(_STATES)
    stem = names.noun(dice).rstrip("aeiou")
    return Bilingual(Phrase(f"{deed} {state} {stem}s"), Phrase(f"{hecho} {stem}os {estado}", "m"))


def _prison(dice: Dice, _: str) -> Bilingual:
    low = dice.between(2, 40)
    high = low + dice.between(2, 50)
    english, spanish = dice.pick((("months", "meses"), ("weeks", "semanas")))
    return Bilingual(
        Phrase(f"between {low} and {high} {english} in prison"),
        Phrase(f"prisión de {low} a {high} {spanish}", "f"),
    )


def _office(dice: Dice, _: str) -> Bilingual:
    (english, spanish), where = dice.pick(_OFFICES), names.place(dice)
    return Bilingual(Phrase(f"{english} of {where}"), Phrase(f"{spanish} de {where}", "m"))


def _court(dice: Dice, _: str) -> Bilingual:
    where = names.place(dice)
    return Bilingual(
        Phrase(f"Court of {where}", "n", True), Phrase(f"Tribunal de {where}", "m", True)
    )


def _years(dice: Dice, _: str) -> Bilingual:
    n = dice.between(2, 96)
    english, spanish = dice.pick((("years", "años"), ("months", "meses")))
    return Bilingual(Phrase(f"{n} {english}"), Phrase(f"{n} {spanish}", "m"))


def _section(dice: Dice, _: str) -> Bilingual:
    n = dice.between(2, 2999)
    return Bilingual(Phrase(f"Section {n}"), Phrase(f"artículo {n}", "m", True))


def _chancellery(dice: Dice, _: str) -> Bilingual:
    where = names.place(dice)
    return Bilingual(
        Phrase(f"Chancellery of {where}", "n", True), Phrase(f"Cancillería de {where}", "f", True)
    )


def _working_days(dice: Dice, _: str) -> Bilingual:
    n = dice.between(3, 120)
    return Bilingual(Phrase(f"{n} working days"), Phrase(f"{n} días hábiles", "m"))


def _issue(dice: Dice, _: str) -> Bilingual:
    n = dice.between(100, 9999)
    return Bilingual(
        Phrase(f"issue {number(n, 'en')}"), Phrase(f"número {number(n, 'es')}", "m", True)
    )


def _day_in_force(dice: Dice, _: str) -> Bilingual:
    day, month, year = dice.between(1, 28), dice.between(1, 12), dice.between(1990, 2039)
    return Bilingual(
        Phrase(date(day, month, year, "en")), Phrase(date(day, month, year, "es"), "m")
    )


def _ministry(dice: Dice, _: str) -> Bilingual:
    where = names.place(dice)
    return Bilingual(
        Phrase(f"Ministry of {where}", "n", True), Phrase(f"Ministerio de {where}", "m", True)
    )


LAW = Domain(
    "law",
    {
        "offence": {
            "conduct": _conduct, "penalty": _prison, "fine": values.crowns(50, 90_000),
            "exemption": _office, "court": _court, "limitation": _years, "section": _section,
            "repeat": _prison,
        },
        "licence": {
            "authority": _chancellery, "fee": values.crowns(5, 9000), "validity": _years,
            "appeal": _working_days, "form": values.code,
        },
        "statute": {
            "gazette": _issue, "in_force": _day_in_force, "rapporteur": values.person,
            "repeals": _of_kind("statute"), "ministry": _ministry,
        },
    },
    new_name,
)  # fmt: skip
