"""Follow-up questions made whole: "And in children?" can't be searched, "... in children?" can.

Whoever asks on leaves out what was said: the thing ("What are its contraindications?"), or what was
asked about it ("And fufidum?"). A search sees the question alone, so what was left out must be put
back in. :class:`RuleRewriter` does that with rules that can be read here, in English and Spanish:

================  ===================================================  ============================
rule              after "How is fufidum dosed in adults?"              becomes
================  ===================================================  ============================
``name``          And febedum?                                         How is febedum dosed in ...?
``addition``      And in children?                                     How is ... in children?
``pronoun``       Who manufactures it?                                 Who manufactures fufidum?
``topic``         And the maximum dose? · ¿Cuándo caduca?              ... the maximum dose of ...?
``question``      How often?                                           both questions together
================  ===================================================  ============================

A question that can be understood alone is left as it is, letter by letter; in doubt it counts as
such. What the rules can't do: they see a left-out thing only where the form of the question shows
it ("Which patients are eligible?" looks complete), they know names by titles and capitals alone,
they don't look further back than one turn, don't mend Spanish agreement ("indicado la bidrorinida")
and don't read the answers, so that "its maker" of an answer's maker is beyond them. A language
model that has learned to rewrite queries can (Ma et al. 2023, "Query Rewriting for
Retrieval-Augmented Large Language Models", arXiv:2305.14283), at the price of one more generation
for every turn: anything that is a :class:`Rewriter` takes the rules' place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from minirag.rag.names import Name, Names
from minirag.rag.question_forms import SPANISH, Forms, forms_of

LONGEST = 300  # characters; whoever writes more has left nothing out


@dataclass(frozen=True)
class Exchange:
    """A question of the conversation so far, and what came of it."""

    question: str  # as typed
    searched: str  # as searched: the same, or rewritten
    answer: str
    rule: str | None = None  # by which it was rewritten


@dataclass(frozen=True)
class Rewrite:
    """What is to be searched instead of a question."""

    text: str
    rule: str | None = None  # why it was rewritten; None: it stands alone and is left as it is


_TOGETHER = "question"  # the rule that puts two questions side by side


class Rewriter(Protocol):
    """Anything that makes a follow-up whole: the rules below, or a model."""

    def rewrite(self, question: str, history: Sequence[Exchange]) -> Rewrite:
        """The question with what the history (oldest first) adds to it."""


@dataclass(frozen=True)
class _Asked:
    """A question taken apart: ``head + lead + rest + tail``, without the spaces behind it."""

    head: str  # "¿" and spaces
    lead: str  # "And ", "What about "
    rest: str
    tail: str  # "?" and spaces

    @cached_property
    def low(self) -> str:
        """The rest in small letters, place by place the same."""
        return _low(self.rest)

    def addition(self, forms: Forms) -> bool:
        """Whether it begins with a preposition, and is no question in itself: "In children?"."""
        return bool(forms.preposition.search(self.low)) and not forms.clause.search(self.low)

    def fragment(self, forms: Forms) -> bool:
        """Whether nobody takes it for a whole question: "And ...", "For children?"."""
        short = "?" in self.tail and len(self.rest.split()) <= 4
        return bool(self.lead) or (short and self.addition(forms))


class RuleRewriter:
    """The rules at the top of this file.

    Parameters
    ----------
    names : function
        Gives the names of what the collection holds by then; see
        :func:`minirag.rag.names.names_of`. Without it, only capitals tell names.
    """

    def __init__(self, names: Callable[[], Names] = Names) -> None:
        self._names = names

    def rewrite(self, question: str, history: Sequence[Exchange]) -> Rewrite:
        """The question made whole, or as it is if it stands alone."""
        if not history or not question.strip() or len(question) > LONGEST:
            return Rewrite(question)
        last, names = history[-1], self._names()
        forms = forms_of(question)
        asked = _take_apart(question, forms)
        topic = next(iter(names.find(last.searched)), None)
        named = names.find(asked.rest, first=bool(asked.lead))
        if named:
            return _after_a_name(question, asked, forms, named[0], last, topic)
        # No name of its own: what does it lean on?
        pronoun = _pronoun(asked, forms)
        if pronoun is not None and topic is not None:
            return Rewrite(_with_noun(asked, pronoun, last.searched, topic, forms), "pronoun")
        if pronoun is not None or forms.bare.search(asked.low):
            return _together(last, question)
        if forms.person.search(asked.low):
            return Rewrite(question)
        if asked.fragment(forms) and asked.addition(forms):
            return Rewrite(_with_addition(last.searched, asked, forms, topic), "addition")
        if topic is not None and _is_new_word(asked, forms, names):
            new = Name(asked.rest, 0, len(asked.rest), titled=False)
            return Rewrite(_with_other_name(last.searched, topic, new, asked), "name")
        if not asked.lead and not _leaves_out(asked, forms):
            return Rewrite(question)
        if topic is None:
            return _together(last, question)
        return Rewrite(_about(asked, last.searched, topic, forms), "topic")


def _after_a_name(
    question: str, asked: _Asked, forms: Forms, name: Name, last: Exchange, topic: Name | None
) -> Rewrite:
    """A question with a name stands alone, unless it is the name alone or an addition."""
    if not asked.fragment(forms):
        return Rewrite(question)
    # "And in Spain?" after a question about cards: where, and not which other thing.
    elsewhere = asked.addition(forms) and topic is not None and topic.titled and not name.titled
    if _is_only(name, asked, forms) and not elsewhere:
        if topic is None:
            return _together(last, question)
        if _same_sort(last.searched, topic, name, asked, forms):
            return Rewrite(_with_other_name(last.searched, topic, name, asked), "name")
    elif asked.addition(forms) and (asked.lead or elsewhere):
        return Rewrite(_with_addition(last.searched, asked, forms, topic), "addition")
    return Rewrite(question)


# -- taking apart ----------------------------------------------------------------------------------


def _low(text: str) -> str:
    """In small letters; a capital that would become two characters stays, so that places hold."""
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _take_apart(question: str, forms: Forms) -> _Asked:
    body = question.strip().lstrip("¿¡ ")
    head = question[: question.index(body)] if body else question
    rest = body.rstrip("?!. ")
    tail = body[len(rest) :]
    found = forms.lead.search(_low(rest))
    lead = rest[: found.end()] if found and found.end() < len(rest) else ""
    return _Asked(head, lead, rest[len(lead) :], tail)


def _is_only(name: Name, asked: _Asked, forms: Forms) -> bool:
    """Whether nothing but a name is asked: "And for the Tor guideline?"."""
    before, after = asked.low[: name.start], asked.low[name.end :].strip(" ,")
    return bool(forms.before_name.search(before)) and after in ("", "then", "too", "entonces")


def _same_sort(last: str, old: Name, new: Name, asked: _Asked, forms: Forms) -> bool:
    """Whether one name can stand for the other: not "the opening hours" for "a card"."""
    article = _article(asked.rest, new.start, forms)[0]
    return article != "the" or _article(last, old.start, forms_of(last))[0] == "the"


def _is_new_word(asked: _Asked, forms: Forms, names: Names) -> bool:
    """ "And brolanol?": a word that no document has names something that is not in them."""
    single = asked.lead and re.fullmatch(r"\w+", asked.rest) and not forms.clause.search(asked.low)
    return bool(single) and not names.mentions(asked.rest)


def _pronoun(asked: _Asked, forms: Forms) -> re.Match[str] | None:
    """Where a pronoun leans on what was said before."""
    if forms.not_pronoun.search(asked.low):
        return None
    matches = (pattern.search(asked.low) for pattern in forms.pronoun)
    return next((match for match in matches if match), None)


def _leaves_out(asked: _Asked, forms: Forms) -> bool:
    """Without a lead: a verb without its subject, or a noun with nothing around it."""
    whole = asked.low + asked.tail.strip()[:1]
    if "?" in asked.tail and forms.noun_phrase.search(asked.low) and len(asked.low.split()) <= 3:
        return True  # "The fine?"
    return any(p.search(asked.low) or p.search(whole) for p in forms.left_out)


# -- putting together ------------------------------------------------------------------------------


def _together(last: Exchange, question: str) -> Rewrite:
    """Both questions; of a question that was put together itself, its first part."""
    before = last.searched
    if last.rule == _TOGETHER:
        before = before.removesuffix(last.question.strip()).strip()
    return Rewrite(f"{before} {question.strip()}", _TOGETHER)


def _article(text: str, start: int, forms: Forms) -> tuple[str, int]:
    """The article before a place, and where it begins: ("el", 9) for "del" before 12, too."""
    before = re.search(r"(\w+) $", text[:start])
    word = before[1].lower() if before else ""
    if before and word in forms.articles:
        return word, before.start()
    if before and forms is SPANISH and word in ("del", "al"):
        return "el", before.start()
    return "", start


def _phrase(text: str, name: Name, forms: Forms) -> str:
    """A name with its article as it stands in a text: "the Tor guideline", "la budunruria"."""
    article, _ = _article(text, name.start, forms)
    return f"{article} {name.text}".strip()


def _contracted(text: str) -> str:
    return re.sub(r"\b(de|a) el ", r"\1l ", text)


def _with_other_name(last: str, old: Name, new: Name, asked: _Asked) -> str:
    """The last question again, about something else."""
    forms = forms_of(last)
    old_article, start = _article(last, old.start, forms)
    article, _ = _article(asked.rest, new.start, forms)
    before = last[:start]
    if old_article and last[start : start + 3].lower() in ("del", "al "):
        before += "de " if last[start].lower() == "d" else "a "
    if forms is SPANISH:  # an article where the last question had one
        article = (article or old_article) if old_article else ""
    elif old_article == "the":
        article = "the"
    put = before + f"{article} {new.text}".strip() + last[old.end :]
    return _contracted(put) if forms is SPANISH else put


def _with_addition(last: str, asked: _Asked, forms: Forms, topic: Name | None) -> str:
    """The last question with an addition, in the place of one with the same preposition, or of the
    people whom it was about.
    """
    body = last.rstrip("?!. ")
    preposition = asked.low.split()[0]
    # "... dosed in adults" + "in children" -> "... dosed in children"
    end = re.search(rf" {re.escape(preposition)} [\w-]+(?: [\w-]+){{0,2}}$", body, re.IGNORECASE)
    # "the adult dose of ..." + "in children" -> "the dose of ... in children"
    others = _without_group(body, forms, topic) if forms.group.search(asked.low) else body
    if others != body:
        body = others
    elif end and (topic is None or topic.end <= end.start()):
        body = body[: end.start()]
    added = asked.low[:1] + asked.rest[1:]
    # "... dosed in adults?" + "In children!" -> "... in children?", with the last question's end
    return f"{body} {added}{last[len(last.rstrip('?!. ')) :] or asked.tail}"


def _without_group(body: str, forms: Forms, topic: Name | None) -> str:
    """A question that no longer says which people it is about; a name keeps all its words."""

    def left(found: re.Match[str]) -> str:
        in_name = topic is not None and found.start() < topic.end and topic.start < found.end()
        return found[0] if in_name else ""

    return forms.of_a_group.sub(left, body)


def _with_noun(asked: _Asked, found: re.Match[str], last: str, topic: Name, forms: Forms) -> str:
    """The name in the place of the pronoun; where that can't be said, before the question."""
    groups, phrase = found.groupdict(), _phrase(last, topic, forms)
    for group, noun in (("it", phrase), ("its", f"{phrase}'s")):
        if groups.get(group):
            start, end = found.span(group)
            rest = asked.rest[:start] + noun + asked.rest[end:]
            if forms.clause.search(asked.low):
                return f"{asked.head}{rest[:1].upper()}{rest[1:]}{asked.tail}"
            return f"{asked.head}{asked.lead}{rest}{asked.tail}"
    return _before(asked, phrase, forms)


def _about(asked: _Asked, last: str, topic: Name, forms: Forms) -> str:
    """ "The maximum dose of fufidum?"; for anything but a noun, "fufidum: how often?"."""
    phrase = _phrase(last, topic, forms)
    if not forms.noun_phrase.search(asked.low):
        return _before(asked, phrase, forms)
    joined = forms.of + phrase
    if forms is SPANISH:
        joined = _contracted(joined)
    return f"{asked.head}{asked.lead}{asked.rest}{joined}{asked.tail}"


def _before(asked: _Asked, phrase: str, forms: Forms) -> str:
    said = forms.conjunction.sub("", asked.lead) + asked.rest
    return f"{phrase}: {asked.head}{said[:1].lower()}{said[1:]}{asked.tail}"
