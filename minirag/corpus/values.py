"""Makers of values: what a fact says of its subject, in both languages at once.

A maker is a function of (dice, gender of the subject) that draws one value. Values that a reader
must copy come from open sets: names, numbers, dates, amounts, codes. A few are closed (colours,
professions, months), because real text has those too.
"""

from __future__ import annotations

from collections.abc import Callable

from minirag.corpus import names
from minirag.corpus.dice import Dice
from minirag.corpus.grammar import MONTHS, Bilingual, Phrase, and_then, date, decimal, number

Maker = Callable[[Dice, str], Bilingual]

COLOURS = [("red", "rojo"), ("blue", "azul"), ("green", "verde"), ("yellow", "amarillo"),
           ("black", "negro"), ("white", "blanco"), ("grey", "gris"), ("brown", "marrón"),
           ("orange", "naranja"), ("violet", "violeta"), ("pink", "rosa"), ("golden", "dorado"),
           ("silver", "plateado"), ("purple", "morado"), ("crimson", "carmesí"),
           ("turquoise", "turquesa")]  # fmt: skip
PROFESSIONS = [
    ("baker", "panadero", "panadera"), ("carpenter", "carpintero", "carpintera"),
    ("painter", "pintor", "pintora"), ("sailor", "marinero", "marinera"),
    ("miller", "molinero", "molinera"), ("gardener", "jardinero", "jardinera"),
    ("tailor", "sastre", "sastra"), ("engineer", "ingeniero", "ingeniera"),
    ("musician", "músico", "música"), ("cook", "cocinero", "cocinera"),
    ("farmer", "agricultor", "agricultora"), ("shepherd", "pastor", "pastora"),
    ("librarian", "bibliotecario", "bibliotecaria"), ("pilot", "piloto", "piloto"),
    ("photographer", "fotógrafo", "fotógrafa"), ("potter", "alfarero", "alfarera"),
    ("watchmaker", "relojero", "relojera"), ("singer", "cantante", "cantante"),
    ("dancer", "bailarín", "bailarina"), ("writer", "escritor", "escritora"),
    ("actor", "actor", "actriz"), ("mechanic", "mecánico", "mecánica"),
    ("electrician", "electricista", "electricista"), ("shoemaker", "zapatero", "zapatera"),
    ("printer", "impresor", "impresora"), ("translator", "traductor", "traductora"),
    ("geologist", "geólogo", "geóloga"), ("astronomer", "astrónomo", "astrónoma"),
    ("beekeeper", "apicultor", "apicultora"), ("blacksmith", "herrero", "herrera"),
    ("bricklayer", "albañil", "albañila"), ("weaver", "tejedor", "tejedora"),
]  # fmt: skip
GOODS = [("lamps", "lámparas", "f"), ("clocks", "relojes", "m"), ("chairs", "sillas", "f"),
         ("boots", "botas", "f"), ("kites", "cometas", "f"), ("violins", "violines", "m"),
         ("bicycles", "bicicletas", "f"), ("umbrellas", "paraguas", "m"), ("ropes", "cuerdas", "f"),
         ("pencils", "lápices", "m"), ("mirrors", "espejos", "m"), ("carpets", "alfombras", "f"),
         ("buttons", "botones", "m"), ("candles", "velas", "f"), ("barrels", "barriles", "m"),
         ("bricks", "ladrillos", "m"), ("gloves", "guantes", "m"), ("engines", "motores", "m"),
         ("toys", "juguetes", "m"), ("masks", "máscaras", "f"), ("spoons", "cucharas", "f"),
         ("locks", "candados", "m"), ("bells", "campanas", "f")]  # fmt: skip
THINGS = [("hat", "sombrero", "m"), ("watch", "reloj", "m"), ("umbrella", "paraguas", "m"),
          ("map", "mapa", "m"), ("key", "llave", "f"), ("notebook", "cuaderno", "m"),
          ("scarf", "bufanda", "f"), ("basket", "cesta", "f"), ("ring", "anillo", "m"),
          ("lantern", "farol", "m"), ("knife", "navaja", "f"), ("flute", "flauta", "f"),
          ("coat", "abrigo", "m"), ("suitcase", "maleta", "f"), ("compass", "brújula", "f"),
          ("bracelet", "pulsera", "f"), ("blanket", "manta", "f")]  # fmt: skip
MATERIALS = [("copper", "cobre"), ("wood", "madera"), ("silver", "plata"), ("leather", "cuero"),
             ("glass", "vidrio"), ("wool", "lana"), ("stone", "piedra"), ("iron", "hierro"),
             ("silk", "seda"), ("tin", "hojalata"), ("straw", "paja")]  # fmt: skip
VIRTUES = [("courage", "valor"), ("patience", "paciencia"), ("silence", "silencio"),
           ("work", "trabajo"), ("joy", "alegría"), ("friendship", "amistad"), ("light", "luz"),
           ("honour", "honor"), ("memory", "memoria"), ("truth", "verdad"), ("peace", "paz"),
           ("wind", "viento"), ("fire", "fuego"), ("bread", "pan"), ("music", "música"),
           ("hope", "esperanza"), ("sea", "mar"), ("order", "orden"), ("beauty", "belleza"),
           ("strength", "fuerza"), ("kindness", "bondad"), ("wisdom", "sabiduría")]  # fmt: skip


def same(text: str, gender: str = "m") -> Bilingual:
    """A text that is the same in both languages: a proper name, a code."""
    return Bilingual(Phrase(text, gender), Phrase(text, gender))


def person(dice: Dice, _: str) -> Bilingual:
    """A man's or a woman's full name."""
    gender = "mf"[dice.below(2)]
    return same(names.person(dice, gender), gender)


def place(dice: Dice, _: str) -> Bilingual:
    """A town or a region."""
    return same(names.place(dice), "f")


def brand(dice: Dice, _: str) -> Bilingual:
    """A company."""
    return same(names.brand(dice), "f")


def pet_name(dice: Dice, _: str) -> Bilingual:
    """A dog's name."""
    return same(names.given_name(dice, "mf"[dice.below(2)]))


def code(dice: Dice, _: str) -> Bilingual:
    """A code such as "KT-40"."""
    return same(names.code(dice))


def year(dice: Dice, _: str) -> Bilingual:
    """A year from 1400 to 2019."""
    return same(str(dice.between(1400, 2019)))


def count(low: int, high: int) -> Maker:
    """A number; each number of digits as likely, so that small ones occur too."""
    return lambda dice, _: _counted(_spread(dice, low, high))


def _counted(n: int) -> Bilingual:
    return Bilingual(Phrase(number(n, "en")), Phrase(number(n, "es"), "m"))


def _spread(dice: Dice, low: int, high: int) -> int:
    lengths = range(len(str(low)), len(str(high)) + 1)
    digits = dice.pick(lengths)
    return dice.between(max(low, 10 ** (digits - 1)), min(high, 10**digits - 1))


def measure(low: int, high: int, english: str, spanish: str) -> Maker:
    """A number with its unit (in the plural: low is at least 2)."""

    def make(dice: Dice, _: str) -> Bilingual:
        n = _spread(dice, low, high)
        return Bilingual(
            Phrase(f"{number(n, 'en')} {english}"), Phrase(f"{number(n, 'es')} {spanish}", "m")
        )

    return make


def decimal_measure(low: int, high: int, english: str, spanish: str) -> Maker:
    """A number of tenths with its unit: "3.5 metres", "3,5 metros"; low and high in tenths."""

    def make(dice: Dice, _: str) -> Bilingual:
        n = dice.between(low, high)
        return Bilingual(
            Phrase(f"{decimal(n, 'en')} {english}"), Phrase(f"{decimal(n, 'es')} {spanish}", "m")
        )

    return make


def full_date(dice: Dice, _: str) -> Bilingual:
    """A day of the last two centuries."""
    day, month, when = dice.between(1, 28), dice.between(1, 12), dice.between(1800, 2009)
    return Bilingual(
        Phrase(date(day, month, when, "en")), Phrase(date(day, month, when, "es"), "m")
    )


def day_of_year(dice: Dice, _: str) -> Bilingual:
    """A day and a month."""
    day, month = dice.between(1, 28), dice.between(1, 12)
    return Bilingual(
        Phrase(date(day, month, None, "en")), Phrase(date(day, month, None, "es"), "m")
    )


def month(dice: Dice, _: str) -> Bilingual:
    """A month's name."""
    n = dice.below(12)
    return Bilingual(Phrase(MONTHS["en"][n]), Phrase(MONTHS["es"][n], "m"))


def profession(dice: Dice, gender: str) -> Bilingual:
    """What a man or a woman does for a living."""
    english, masculine, feminine = dice.pick(PROFESSIONS)
    return Bilingual(Phrase(english), Phrase(feminine if gender == "f" else masculine, gender))


def colour(dice: Dice, _: str) -> Bilingual:
    """One colour (Spanish: in the masculine, "de color rojo")."""
    english, spanish = dice.pick(COLOURS)
    return Bilingual(Phrase(english), Phrase(spanish, "m"))


def two_colours(dice: Dice, _: str) -> Bilingual:
    """Two colours."""
    (a, x), (b, y) = dice.sample(COLOURS, 2)
    return Bilingual(Phrase(f"{a} and {b}"), Phrase(and_then(x, y, "es"), "m"))


def goods(dice: Dice, _: str) -> Bilingual:
    """Goods of a material, in the plural: "copper lamps", "lámparas de cobre"."""
    (thing, cosa, gender), (stuff, materia) = dice.pick(GOODS), dice.pick(MATERIALS)
    return Bilingual(Phrase(f"{stuff} {thing}"), Phrase(f"{cosa} de {materia}", gender))


def thing(dice: Dice, _: str) -> Bilingual:
    """A thing that somebody loses or buys: "a copper ring from Torvik", "un anillo de ..."."""
    (what, cosa, gender), (stuff, materia) = dice.pick(THINGS), dice.pick(MATERIALS)
    if dice.chance(0.5):
        english = f"{stuff} {what}"
        spanish = f"{cosa} de {materia}"
    else:
        where = names.place(dice)
        english, spanish = f"{what} from {where}", f"{cosa} de {where}"
    article = "an" if english[0] in "aeiou" else "a"
    return Bilingual(
        Phrase(f"{article} {english}"),
        Phrase(f"{'una' if gender == 'f' else 'un'} {spanish}", gender),
    )


def motto(dice: Dice, _: str) -> Bilingual:
    """Two or three virtues: "Courage and patience", "Valor y paciencia"."""
    picked = dice.sample(VIRTUES, dice.between(2, 3))
    *en_first, en_last = [en for en, _ in picked]
    *es_first, es_last = [es for _, es in picked]
    english, spanish = ", ".join(en_first), ", ".join(es_first)
    return Bilingual(
        Phrase(f"{english} and {en_last}".capitalize()),
        Phrase(and_then(spanish, es_last, "es").capitalize(), "m"),
    )


def address(dice: Dice, _: str) -> Bilingual:
    """A street and a number: "14 Torvik Street", "calle Torvik, 14"."""
    street, house = names.place(dice), dice.between(2, 199)
    return Bilingual(Phrase(f"{house} {street} Street"), Phrase(f"calle {street}, {house}", "f"))


def ground(dice: Dice, _: str) -> Bilingual:
    """A sports ground: "Torvik Park", "Parque Torvik"."""
    where = names.place(dice)
    return Bilingual(Phrase(f"{where} Park"), Phrase(f"Parque {where}", "m"))


def inn(dice: Dice, _: str) -> Bilingual:
    """An inn: "Torvik Inn", "Posada Torvik"."""
    where = names.place(dice)
    return Bilingual(Phrase(f"{where} Inn", "n", True), Phrase(f"Posada {where}", "f", True))


def crowns(low: int, high: int) -> Maker:
    """An amount of the invented country's money."""
    return measure(low, high, "crowns", "coronas")
