"""By what a question shows that it leans on the one before: patterns of English and Spanish.

Each pattern is deliberately narrow. A follow-up that is overlooked costs one answer, and the user
asks again in full; a complete question that is changed answers something that nobody asked.
Patterns see a question in small letters, without its marks and without a lead such as "And".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# -- English ---------------------------------------------------------------------------------------

_EN_WH = r"(?:what|which|who|whom|whose|when|where|why|how)"
_EN_CONJUNCTION = r"(?:(?:and|but|or|so|ok|okay|then)\b[, ]*)+"
_EN_PREPOSITION = (
    r"(?:in|on|for|with|without|at|by|from|during|after|before|under|until|since|of|to|against)"
)
_EN_AUXILIARY = (
    r"(?:is|are|was|were|does|do|did|can|could|will|would|should|must|may|might|has|have|had)"
)
_EN_OPENING = rf"^(?:(?:{_EN_PREPOSITION} )?{_EN_WH}(?: [\w-]+){{0,3}} )?{_EN_AUXILIARY} (?:not )?"
_EN_GROUP = r"(?:adults|children|infants|babies|teenagers|pregnant women|the elderly|older people)"

# -- Spanish ---------------------------------------------------------------------------------------

_ES_CONJUNCTION = r"(?:(?:y|e|pero|o|entonces|ahora)\b[, ]*)+"
_ES_PREPOSITION = (
    r"(?:en|para|con|sin|por|a|de|desde|hasta|durante|ante|contra|sobre|según|bajo|tras)"
)
_ES_ADVERB = r"(?:c[oó]mo|cu[aá]ndo|d[oó]nde|cada cu[aá]nto)"
_ES_WH = rf"(?:qu[eé]|qui[eé]n(?:es)?|cu[aá]l(?:es)?|cu[aá]nt[oa]s?|{_ES_ADVERB})"
_ES_CLITIC = r"(?:(?:se|lo|la|los|las|le|les) )?"
# Third persons, whose subject Spanish leaves out; -o, -s and -mos are I, you and we.
_ES_VERB = r"(?:es|son|fue|fueron|está|están|\w+(?:a|e|an|en|ó|aron|ieron))"
_ES_SINGULAR = r"(?:es|fue|está|\w+(?:a|e|ó))"
_ES_GROUP = (
    r"(?:adult[oa]s|niñ[oa]s|lactantes|bebés|adolescentes|embarazadas|ancian[oa]s"
    r"|personas mayores)"
)


@dataclass(frozen=True)
class Forms:
    """How one language asks on.

    Attributes
    ----------
    lead
        "And", "What about": the words that tie a question to the one before.
    conjunction
        The part of a lead that a whole question can do without.
    clause
        A whole question follows the lead: "And who makes it?"
    preposition
        An addition to the last question: "And in children?"
    noun_phrase
        "And the maximum dose?": something else about the same thing.
    before_name
        What may stand before a name when a question is nothing but the name: "And for fufidum?"
    pronoun
        A pronoun, the group ``it``, that nothing in the question itself explains; the possessive
        is the group ``its``.
    not_pronoun
        Questions whose pronoun stands for nothing: "How long does it take to get a card?"
    left_out
        A verb without its subject (Spanish): "¿Cuándo caduca?"
    bare
        Question words and nothing else: "How often?"
    person
        A pronoun and nothing else: "And you?". Whom it means, the last question doesn't tell.
    articles
        What belongs to a name that stands after it.
    of
        Joins a noun phrase and what it belongs to.
    group
        People that a thing is meant for; who asks on about other people means them instead.
    of_a_group
        Where a question says whom it is about: "adult " of "the adult dose", " in adults".
    """

    lead: re.Pattern[str]
    conjunction: re.Pattern[str]
    clause: re.Pattern[str]
    preposition: re.Pattern[str]
    noun_phrase: re.Pattern[str]
    before_name: re.Pattern[str]
    pronoun: tuple[re.Pattern[str], ...]
    not_pronoun: re.Pattern[str]
    left_out: tuple[re.Pattern[str], ...]
    bare: re.Pattern[str]
    person: re.Pattern[str]
    articles: frozenset[str]
    of: str
    group: re.Pattern[str]
    of_a_group: re.Pattern[str]


ENGLISH = Forms(
    lead=re.compile(
        rf"^(?:{_EN_CONJUNCTION}(?:what about |how about )?|what about |how about |what of )"
    ),
    conjunction=re.compile(rf"^{_EN_CONJUNCTION}", re.IGNORECASE),
    clause=re.compile(rf"^(?:{_EN_PREPOSITION} )?{_EN_WH}\b|^{_EN_AUXILIARY}\b"),
    preposition=re.compile(rf"^{_EN_PREPOSITION}\b"),
    noun_phrase=re.compile(r"^(?:the|any) "),
    before_name=re.compile(
        rf"^(?:(?:in the case of|as for|with regard to|{_EN_PREPOSITION}) ?)?(?:(?:the|a|an) ?)?$"
    ),
    pronoun=(
        re.compile(rf"{_EN_OPENING}(?P<it>it|they|he|she)\b"),
        re.compile(rf"{_EN_OPENING}(?P<its>its|their|his|her)\b"),
        re.compile(r"^(?P<its>its|their|his|her) "),
        re.compile(
            r"^what (?:happens|do i do|should i do|to do) (?:if|when|after) (?P<it>it|they)\b"
        ),
        re.compile(rf"{_EN_OPENING}(?:this|that|these|those)\b"),
        re.compile(  # last of a short question: "Who grants it?", not "... and how to renew it?"
            r"^(?!.*\b(?:a|an) )(?=\S+(?: \S+){0,8}$).*\b(?<!ing )(?P<it>it|them|him)$"
        ),
    ),
    not_pronoun=re.compile(
        r"\bit\b.*\b(?:to|that|if|whether) \w|\b(?:time|day|date|year|month|season) (?:is|was) it\b"
        r"|\bit (?:rain|snow|possible|worth|called when)|\bto \w+ (?:it|them|him)$"
    ),
    left_out=(),
    bare=re.compile(
        r"^(?:(?:for|since|until|by|at|with|to|from) )?"
        r"(?:why(?: not)?|when|where|who|whom|which(?: ones?)?"
        r"|(?:what|how)(?: (?:often|much|many|long|far|soon|exactly|else|time|for|so|come))?)$"
    ),
    person=re.compile(r"^(?:i|me|you|he|she|her|we|us|they)$"),
    articles=frozenset({"the", "a", "an"}),
    of=" of ",
    group=re.compile(rf"\b{_EN_GROUP}\b"),
    of_a_group=re.compile(
        rf"\b(?:adult|child|paediatric|pediatric) (?=\w)| (?:in|for|to) {_EN_GROUP}\b",
        re.IGNORECASE,
    ),
)

SPANISH = Forms(
    lead=re.compile(
        rf"^(?:{_ES_CONJUNCTION}(?:qu[eé] (?:hay de|tal|pasa con) )?"
        r"|qu[eé] (?:hay de|tal|pasa con) )"
    ),
    conjunction=re.compile(rf"^{_ES_CONJUNCTION}", re.IGNORECASE),
    clause=re.compile(rf"^(?:{_ES_PREPOSITION} )?{_ES_WH}\b|^(?:hay|tiene|es|son|se)\b"),
    preposition=re.compile(rf"^{_ES_PREPOSITION}\b"),
    noun_phrase=re.compile(r"^(?:el|la|los|las) "),
    before_name=re.compile(
        rf"^(?:(?:en el caso de|en cuanto a|respecto a|{_ES_PREPOSITION}|del|al) ?)?"
        r"(?:(?:en el caso )?(?:del|al) ?)?(?:(?:el|la|los|las|un|una) ?)?$"
    ),
    pronoun=(
        # "su" after a verb of being; ello, ella; lo between the question word and the verb
        re.compile(rf"^(?:{_ES_PREPOSITION} )?{_ES_WH}(?: \w+)? (?:es|son|era|fue) sus? "),
        re.compile(r"^sus? "),
        re.compile(rf"\b{_ES_PREPOSITION} (?:ello|ella|ellos|ellas|él|eso|esto)\b"),
        re.compile(rf"^(?:{_ES_PREPOSITION} )?{_ES_WH} (?:lo|le|les) (?!que\b|mejor\b|más\b)\w"),
        re.compile(
            r"\b(?:deben?|puede[ns]?|puedo|podemos|debo|hay que|suelen?|conviene|para|sin) "
            r"\w+[aei]r(?:lo|la|los|las|le|les)$"
        ),
    ),
    not_pronoun=re.compile(r"(?!)"),
    left_out=(
        re.compile(rf"^(?:{_ES_PREPOSITION} )?{_ES_ADVERB} (?:no )?{_ES_CLITIC}{_ES_VERB}$"),
        re.compile(
            rf"^(?:{_ES_PREPOSITION} )?{_ES_ADVERB} (?:no )?(?!se ){_ES_VERB} "
            r"(?:en|a|de|con|por|durante) (?:el |la |los |las )?\w+$"
        ),
        re.compile(rf"^{_ES_PREPOSITION} qu[eé](?: \w+)? (?:no )?{_ES_CLITIC}{_ES_VERB}$"),
        re.compile(rf"^cu[aá]nt[oa]s?(?: \w+)? (?:no )?{_ES_CLITIC}{_ES_VERB}$"),
        re.compile(rf"^qui[eé]n(?:es)? (?:no )?{_ES_CLITIC}{_ES_VERB}$"),
        # "¿Qué animales hibernan?" has its subject; "¿Qué efectos tiene?" has not
        re.compile(rf"^qu[eé] \w+s (?:no )?{_ES_CLITIC}{_ES_SINGULAR}$"),
        re.compile(rf"^qu[eé] \w+[^\Ws] (?:no )?{_ES_CLITIC}{_ES_VERB}$"),
        # "¿Tiene efectos secundarios?": a verb, and no article that could begin a subject
        re.compile(
            rf"^(?!{_ES_PREPOSITION} |{_ES_WH} |hay |una? |la |este |esta |ese |esa )"
            rf"(?:no )?(?:se )?{_ES_VERB}"
            r"(?: (?!el |la |los |las |una? |unos |unas |al |del |mi |tu |su )\w+){1,4}\?$"
        ),
    ),
    bare=re.compile(
        r"^(?:por qu[eé](?: no)?|para qu[eé]|cu[aá]ndo|d[oó]nde|qui[eé]n(?:es)?|c[oó]mo"
        r"|cu[aá]l(?:es)?|(?:cada |desde |hasta )?cu[aá]nt[oa]s?|(?:desde|hasta) cu[aá]ndo"
        r"|(?:durante )?cu[aá]nto tiempo|a qu[eé] hora|con qui[eé]n)$"
    ),
    person=re.compile(r"^(?:yo|m[ií]|t[uú]|ti|vos|usted(?:es)?|él|ell[ao]s?|[nv]osotr[ao]s)$"),
    articles=frozenset({"el", "la", "los", "las"}),
    of=" de ",
    group=re.compile(rf"\b{_ES_GROUP}\b"),
    of_a_group=re.compile(
        rf" (?:adult[oa]|infantil|pediátric[oa])\b| (?:en|para|a|de) (?:l[oa]s )?{_ES_GROUP}\b",
        re.IGNORECASE,
    ),
)

_SPANISH_SIGNS = re.compile(r"[¿¡áéíóúñ]")
_SPANISH_WORDS = re.compile(
    r"\b(?:y|el|la|los|las|de|del|en|para|que|con|su|sus|como|cual|cuando|cuanto|donde|quien|por|es)\b"
)
_ENGLISH_WORDS = re.compile(
    r"\b(?:and|the|of|in|for|what|how|about|is|are|does|do|it|its|who|which|when|where|with|to)\b"
)


def forms_of(question: str) -> Forms:
    """The forms of the language that a question is asked in, told by its commonest words."""
    low = question.lower()
    signs = 2 if _SPANISH_SIGNS.search(low) else 0
    spanish = len(_SPANISH_WORDS.findall(low)) + signs
    return SPANISH if spanish > len(_ENGLISH_WORDS.findall(low)) else ENGLISH
