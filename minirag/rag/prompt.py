"""From passages and a question to the tokens a model reads: within its context, or said why not.

The budget is made before anything is generated: room for the answer, then the question with its
instruction, then whole passages, best first, until one no longer fits. A passage is never cut, and
what was left out is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from minirag.errors import UsageError
from minirag.text.documents import Passage
from minirag.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Instruction:
    """What a chat model is told besides passages and question.

    Small models take an instruction for text to be repeated. Of seven wordings tried with
    SmolLM2-135M on twelve questions about a handbook (three passages each), the passages and then
    the bare question gave most right answers, 5; numbered passages with an instruction gave 1 or 2.
    """

    ask: str = ""  # stands before the question
    after: str = ""  # stands after it
    lead: str = ""  # the answer's first words: the model goes on from there
    system: str | None = None  # None: what the model's own chat template says
    numbered: bool = False  # passages as [1], [2], ..., for readers that can cite by number


SENTENCE = Instruction()
# For quotes. "The answer is:" is how SmolLM2 itself begins, given the chance.
QUOTED = Instruction("Question:", "\nAnswer:", "The answer is:")
UNASKED = Instruction(after="Answer:", lead="The answer is:")  # the same without a question
MARKED = Instruction(
    "Answer from the passages above and put the number of each passage that you use after the "
    "statement it supports, like [1].",
    numbered=True,
)


@dataclass(frozen=True)
class Prompt:
    """What goes into the model, and the account of what did not."""

    text: str
    ids: list[int]
    passages: list[Passage]  # given, in the prompt's order
    dropped: list[Passage]  # no room for these
    spans: list[tuple[int, int]] = field(repr=False)  # tokens of each passage given: ids[a:b]
    context: int  # tokens the model reads
    reserved: int  # of them kept for the answer

    @property
    def used(self) -> int:
        """Tokens of the prompt."""
        return len(self.ids)


# Stands for the user's words, to see where a template puts them; it occurs in no template.
_PLACE = "\N{OBJECT REPLACEMENT CHARACTER}minirag\N{OBJECT REPLACEMENT CHARACTER}"


def build_prompt(
    question: str,
    passages: Sequence[Passage],
    tokenizer: Tokenizer,
    *,
    context: int,
    reserve: int,
    instruction: Instruction = SENTENCE,
) -> Prompt:
    """Fit as many whole passages as the context holds, in order, and write the model's own chat.

    Parameters
    ----------
    passages : best first
    context : int
        Tokens that the model reads, prompt and answer together.
    reserve : int
        Tokens kept free for the answer.

    Raises
    ------
    UsageError
        If the question alone is too long for the context.
    """
    question = tokenizer.without_special(question).strip()

    def conversation(content: str) -> str:
        turns = [{"role": "user", "content": content}]
        if instruction.system is not None:
            turns.insert(0, {"role": "system", "content": instruction.system})
        return tokenizer.chat(turns) + instruction.lead

    def written(given: Sequence[Passage]) -> tuple[str, list[int], list[str]]:
        pieces = _content(question, given, tokenizer, instruction)
        text = conversation("".join(pieces))
        return text, tokenizer.encode(text, special=False), pieces

    n_question = len(written([])[1])
    if n_question + reserve > context:
        remedy = "ask a shorter question"
        if n_question < reserve:
            remedy = "keep less for the answer (a smaller --max-new-tokens)"
        raise UsageError(
            f"the question and its instruction have {n_question} tokens; with {reserve} kept for "
            f"the answer they don't fit into the {context} that the model reads: {remedy}."
        )
    # An estimate, so that each passage is tokenized once; the exact count has the last word.
    given: list[Passage] = []
    room = context - reserve - n_question
    for passage in passages:
        cost = len(tokenizer.encode(_shown(1, passage, tokenizer, instruction), special=False))
        if cost > room:
            break
        given.append(passage)
        room -= cost
    text, ids, pieces = written(given)
    while len(ids) + reserve > context:
        given.pop()
        text, ids, pieces = written(given)
    return Prompt(
        text=text,
        ids=ids,
        passages=given,
        dropped=list(passages[len(given) :]),
        spans=_token_spans(text, conversation(_PLACE).index(_PLACE), pieces, tokenizer),
        context=context,
        reserved=reserve,
    )


def _shown(number: int, passage: Passage, tokenizer: Tokenizer, instruction: Instruction) -> str:
    """One passage as the model sees it. Nothing in it can pose as a turn of the conversation."""
    text = tokenizer.without_special(passage.text).strip()
    if not instruction.numbered:
        return f"{text}\n\n"
    heading = tokenizer.without_special(passage.heading)
    return f"[{number}] {heading}\n{text}\n\n" if heading else f"[{number}] {text}\n\n"


def _content(
    question: str, passages: Sequence[Passage], tokenizer: Tokenizer, instruction: Instruction
) -> list[str]:
    """The pieces of the user's turn: one for each passage, then what is asked."""
    pieces = [_shown(n, p, tokenizer, instruction) for n, p in enumerate(passages, start=1)]
    asked = f"{instruction.ask} {question}" if instruction.ask else question
    return [*pieces, asked + instruction.after]


def _token_spans(
    text: str, start: int, pieces: Sequence[str], tokenizer: Tokenizer
) -> list[tuple[int, int]]:
    """Which of the prompt's tokens are which passage's; none, if nothing of it could be shown.

    The pieces begin at the character ``start`` of the text.
    """
    _, characters = tokenizer.offsets(text)
    spans = []
    content = "".join(pieces)
    if not text.startswith(content, start):  # some templates trim
        start -= len(content) - len(content.lstrip())
    for piece in pieces[:-1]:
        end = start + len(piece.rstrip())
        inside = [i for i, (a, b) in enumerate(characters) if a < end and b > start]
        spans.append((inside[0], inside[-1] + 1) if inside else (0, 0))
        start += len(piece)
    return spans
