"""Medicine: an invented pharmacopoeia, its diseases and its guidelines.

Nothing of its vocabulary occurs in the general world, so that a base model has never seen it.
"""

from __future__ import annotations

from minirag.corpus import names, values
from minirag.corpus.dice import Dice
from minirag.corpus.facts import Domain
from minirag.corpus.grammar import Bilingual, Phrase, decimal, number
from minirag.corpus.values import Maker

_DRUG_ENDINGS = [("ol", "ol", "m"), ("ine", "ina", "f"), ("ate", "ato", "m"), ("ab", "ab", "m"),
                 ("ide", "ida", "f"), ("one", "ona", "f"), ("um", "um", "m")]  # fmt: skip
_DISEASE_ENDINGS = [("itis", "itis"), ("osis", "osis"), ("emia", "emia"), ("algia", "algia"),
                    ("opathy", "opatía"), ("uria", "uria")]  # fmt: skip
_COMPLAINTS = [
    ("swelling", "hinchazón", "f"), ("numbness", "entumecimiento", "m"),
    ("stiffness", "rigidez", "f"), ("itching", "picor", "m"), ("tingling", "hormigueo", "m"),
    ("inflammation", "inflamación", "f"), ("trembling", "temblor", "m"),
    ("paleness", "palidez", "f"), ("redness", "enrojecimiento", "m"),
    ("cramping", "agarrotamiento", "m"), ("ulceration", "ulceración", "f"),
    ("bleeding", "sangrado", "m"), ("peeling", "descamación", "f"),
    ("rash", "sarpullido", "m"), ("contraction", "contracción", "f"),
    ("paralysis", "parálisis", "f"),
]  # fmt: skip
_ORGANS = [
    ("the left ankle", "del tobillo izquierdo"), ("the right ankle", "del tobillo derecho"),
    ("the left knee", "de la rodilla izquierda"), ("the right knee", "de la rodilla derecha"),
    ("the fingers", "de los dedos"), ("the neck", "del cuello"), ("the lips", "de los labios"),
    ("the eyelids", "de los párpados"), ("the tongue", "de la lengua"),
    ("the scalp", "del cuero cabelludo"), ("the left shoulder", "del hombro izquierdo"),
    ("the right shoulder", "del hombro derecho"), ("the gums", "de las encías"),
    ("the throat", "de la garganta"), ("the stomach", "del estómago"),
    ("the elbows", "de los codos"), ("the toes", "de los dedos del pie"),
    ("the wrists", "de las muñecas"), ("the heels", "de los talones"),
    ("the jaw", "de la mandíbula"), ("the thighs", "de los muslos"),
    ("the lower back", "de la zona lumbar"), ("the nose", "de la nariz"),
    ("the ears", "de los oídos"), ("the bladder", "de la vejiga"), ("the hip", "de la cadera"),
]  # fmt: skip
_ROUTES = [("oral", "oral"), ("intravenous", "intravenosa"), ("nasal", "nasal"),
           ("subcutaneous", "subcutánea"), ("intramuscular", "intramuscular"),
           ("rectal", "rectal"), ("sublingual", "sublingual"), ("ocular", "ocular")]  # fmt: skip


def _stem(dice: Dice) -> str:
    return names.noun(dice).rstrip("aeiou")


def new_name(dice: Dice, kind: str) -> Bilingual:
    """Draw the name of a drug, a disease or a guideline."""
    if kind == "drug":
        english, spanish, gender = dice.pick(_DRUG_ENDINGS)
        stem = _stem(dice)
        return MEDICINE.mention(kind, stem + english, spanish=stem + spanish, gender=gender)
    if kind == "disease":
        english, spanish = dice.pick(_DISEASE_ENDINGS)
        stem = _stem(dice)
        return MEDICINE.mention(kind, stem + english, spanish=stem + spanish)
    return MEDICINE.mention(kind, names.place(dice))


def _of_kind(kind: str) -> Maker:
    return lambda dice, _: new_name(dice, kind)


def _milligrams(low: int, high: int) -> Maker:
    def make(dice: Dice, _: str) -> Bilingual:
        unit = dice.pick(("mg", "mg", "ml"))
        amount = dice.between(low, high) * (5 if unit == "mg" else 1)
        if unit == "ml":
            return Bilingual(
                Phrase(f"{decimal(amount, 'en')} ml"), Phrase(f"{decimal(amount, 'es')} ml", "m")
            )
        return values.same(f"{amount} mg")

    return make


def _daily_maximum(dice: Dice, _: str) -> Bilingual:
    amount = dice.between(100, 599) * 10
    return Bilingual(
        Phrase(f"{number(amount, 'en')} mg a day"), Phrase(f"{number(amount, 'es')} mg al día", "m")
    )


def _schedule(dice: Dice, _: str) -> Bilingual:
    hours, days = dice.pick((3, 4, 6, 8, 12, 18, 24, 36, 48, 72)), dice.between(3, 60)
    return Bilingual(
        Phrase(f"every {hours} hours for {days} days"),
        Phrase(f"cada {hours} horas durante {days} días", "m"),
    )


def complaint(dice: Dice, _: str) -> Bilingual:
    """A symptom of a part of the body: "numbness of the fingers"."""
    (what, que, gender), (where, donde) = dice.pick(_COMPLAINTS), dice.pick(_ORGANS)
    return Bilingual(Phrase(f"{what} of {where}"), Phrase(f"{que} {donde}", gender))


def _route(dice: Dice, _: str) -> Bilingual:
    english, spanish = dice.pick(_ROUTES)
    return Bilingual(Phrase(f"{english} route", "n", True), Phrase(f"vía {spanish}", "f"))


def _cold(dice: Dice, _: str) -> Bilingual:
    low = dice.between(-30, 12)
    high = low + dice.between(2, 12)
    return Bilingual(
        Phrase(f"between {low} and {high} °C"), Phrase(f"entre {low} y {high} °C", "m")
    )


def _bacterium(dice: Dice, _: str) -> Bilingual:
    return values.same(f"{_stem(dice).capitalize()}ella {_stem(dice)}ans", "f")


def _period(dice: Dice, _: str) -> Bilingual:
    n = dice.between(2, 99)
    english, spanish = dice.pick((("days", "días"), ("hours", "horas"), ("weeks", "semanas")))
    return Bilingual(Phrase(f"{n} {english}"), Phrase(f"{n} {spanish}", "m"))


def _every(dice: Dice, _: str) -> Bilingual:
    n = dice.between(2, 40)
    english, spanish = dice.pick((("days", "días"), ("weeks", "semanas"), ("months", "meses")))
    return Bilingual(Phrase(f"every {n} {english}"), Phrase(f"cada {n} {spanish}", "m"))


def _test(dice: Dice, _: str) -> Bilingual:
    core = names.place(dice)
    return Bilingual(Phrase(f"{core} test", "n", True), Phrase(f"prueba de {core}", "f", True))


def _percentage(dice: Dice, _: str) -> Bilingual:
    n = 10 * dice.between(1, 89) + dice.between(1, 9)
    return Bilingual(Phrase(f"{decimal(n, 'en')}%"), Phrase(f"{decimal(n, 'es')} %", "m"))


def _vaccine(dice: Dice, _: str) -> Bilingual:
    return values.same(f"{_stem(dice).capitalize()}vac", "f")


def _level(dice: Dice, _: str) -> Bilingual:
    low = dice.between(3, 180)
    high = low + dice.between(2, 90)
    return Bilingual(
        Phrase(f"{low} to {high} mg/dl"), Phrase(f"{low} a {high} mg/dl", "m")
    )  # fmt: skip


def _society(dice: Dice, _: str) -> Bilingual:
    core = names.place(dice)
    return Bilingual(Phrase(f"{core} Society", "n", True), Phrase(f"Sociedad {core}", "f", True))


def _ages(dice: Dice, _: str) -> Bilingual:
    low = dice.between(2, 70)
    high = low + dice.between(3, 20)
    return Bilingual(
        Phrase(f"between {low} and {high} years of age"),
        Phrase(f"de entre {low} y {high} años", "m"),
    )


MEDICINE = Domain(
    "medicine",
    {
        "drug": {
            "indication": _of_kind("disease"), "dose": _milligrams(5, 199),
            "child_dose": _milligrams(1, 60), "max_dose": _daily_maximum,
            "schedule": _schedule, "contraindication": _of_kind("disease"),
            "interaction": _of_kind("drug"), "adverse_effect": complaint,
            "manufacturer": values.brand, "route": _route, "storage": _cold,
            "antidote": _of_kind("drug"),
        },
        "disease": {
            "symptom": complaint, "pathogen": _bacterium, "incubation": _period,
            "treatment": _of_kind("drug"), "test": _test, "mortality": _percentage,
            "prevention": _vaccine,
        },
        "guideline": {
            "first_line": _of_kind("drug"), "checkup": _every, "target": _level,
            "society": _society, "eligible": _ages,
        },
    },
    new_name,
    closed=frozenset({"route"}),
)  # fmt: skip
