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
    """What a chat model is told. ``SENTENCE`` for people, ``SHORT`` to be scored against a span.

    The wording hardly matters to a small reader: of seven that were tried on 30 questions of
    SQuAD's training part, none held the right phrase in more than 0.30 or less than 0.20 of its
    answers, which is within chance. These say the question last, where it is not taken for text to
    be repeated.
    """

    ask: str  # stands between passages and question
    system: str | None = None  # None: what the model's own chat template says


SENTENCE = Instruction("Based on the passages above, answer this question in one sentence:")
SHORT = Instruction(
    "Based on the passages above, answer this question with a few words copied from them:"
)


@dataclass(frozen=True)
class Prompt:
    """What goes into the model, and the account of what did not."""

    text: str
    ids: list[int]
    passages: list[Passage]  # given, in the prompt's order; [1] is the first
    dropped: list[Passage]  # no room for these
    spans: list[tuple[int, int]] = field(repr=False)  # tokens of each passage given: ids[a:b]
    context: int  # tokens the model reads
    reserved: int  # of them kept for the answer

    @property
    def used(self) -> int:
        """Tokens of the prompt."""
        return len(self.ids)


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

    def written(given: Sequence[Passage]) -> tuple[str, list[int]]:
        text = _chat(question, given, tokenizer, instruction)
        return text, tokenizer.encode(text, special=False)

    n_question = len(written([])[1])
    if n_question + reserve > context:
        raise UsageError(
            f"the question and its instruction have {n_question} tokens; with {reserve} kept for "
            f"the answer they don't fit into the {context} that the model reads: "
            "ask a shorter question."
        )
    # An estimate, so that each passage is tokenized once; the exact count has the last word.
    given: list[Passage] = []
    room = context - reserve - n_question
    for passage in passages:
        cost = len(tokenizer.encode(_numbered(1, passage, tokenizer), special=False))
        if cost > room:
            break
        given.append(passage)
        room -= cost
    text, ids = written(given)
    while len(ids) + reserve > context:
        given.pop()
        text, ids = written(given)
    return Prompt(
        text=text,
        ids=ids,
        passages=given,
        dropped=list(passages[len(given) :]),
        spans=_token_spans(text, given, tokenizer),
        context=context,
        reserved=reserve,
    )


def _numbered(number: int, passage: Passage, tokenizer: Tokenizer) -> str:
    """One passage as the model sees it. Nothing in it can pose as a turn of the conversation."""
    heading = tokenizer.without_special(passage.heading)
    text = tokenizer.without_special(passage.text).strip()
    return f"[{number}] {heading}\n{text}\n\n" if heading else f"[{number}] {text}\n\n"


def _chat(
    question: str, passages: Sequence[Passage], tokenizer: Tokenizer, instruction: Instruction
) -> str:
    shown = "".join(_numbered(n, p, tokenizer) for n, p in enumerate(passages, start=1))
    turns = [{"role": "user", "content": f"{shown}{instruction.ask} {question}"}]
    if instruction.system is not None:
        turns.insert(0, {"role": "system", "content": instruction.system})
    return tokenizer.chat(turns)


def _token_spans(
    text: str, passages: Sequence[Passage], tokenizer: Tokenizer
) -> list[tuple[int, int]]:
    """Which of the prompt's tokens are which passage's."""
    _, characters = tokenizer.offsets(text)
    spans = []
    place = 0
    for number, passage in enumerate(passages, start=1):
        block = _numbered(number, passage, tokenizer)
        place = text.index(block.strip(), place)
        end = place + len(block.strip())
        inside = [i for i, (a, b) in enumerate(characters) if a < end and b > place]
        spans.append((inside[0], inside[-1] + 1))
        place = end
    return spans
