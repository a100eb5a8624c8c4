"""Step 3, what a public chat model learns from: a conversation as its own template writes it.

The laboratory's readers have a format of their own (:mod:`minirag.text.reading_format`); a public
model keeps the one that it was trained on. What is asked is the user's turn (the passages, then the
question), the answer is the assistant's, and only the answer is learned. A text that nobody asks
about stands as it is, between two of the tokens that part documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minirag.corpus.dice import Dice
from minirag.corpus.exercises import one_question_each
from minirag.corpus.questions import ReadingExercise
from minirag.errors import TrainingError
from minirag.text.reading_format import ANSWER, reading_example
from minirag.text.tokenizer import Tokenizer
from minirag.training.batches import Batch, Form, padded, side_by_side
from minirag.training.evaluate_reading import prompts_of
from minirag.training.run import form_of
from minirag.transformer.models import Decoder, EncoderDecoder

_BETWEEN_DOCUMENTS = "<|endoftext|>"  # what GPT-2 and its successors were pretrained with


@dataclass(frozen=True)
class Marked:
    """A text whose answer is known by its place."""

    ids: NDArray[np.int64]  # (T,)
    in_answer: NDArray[np.bool_]  # (T - 1,) of the targets ids[1:]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ChatForm:
    """A public decoder's: one conversation for each question."""

    tokenizer: Tokenizer

    def sequences(self, exercises: Sequence[ReadingExercise], dice: Dice) -> list[Marked]:
        """As many as there are questions, and texts without any; nothing is random in it."""
        return [
            self._conversation(one) if one.questions else self._text(one)
            for exercise in exercises
            for one in (one_question_each(exercise) or [exercise])
        ]

    def length(self, sequence: Marked) -> int:
        """All tokens but the last are read."""
        return len(sequence) - 1

    def longest(self, sequence: Marked) -> int:
        """All of them."""
        return padded(self.length(sequence))

    def batch(self, sequences: Sequence[Marked]) -> Batch:
        """Conversations side by side."""
        if not sequences or min(map(len, sequences)) < 2:
            raise TrainingError("a batch needs texts of at least two tokens: nothing to predict.")
        return side_by_side(
            [s.ids for s in sequences],
            [s.in_answer for s in sequences],
            self.tokenizer.pad_id or 0,
        )

    def _conversation(self, exercise: ReadingExercise) -> Marked:
        answer = exercise.questions[0].answer
        if answer is None:
            raise TrainingError(
                "a chat model has no token that says 'not in the passages', and an exercise has no "
                "answer: give questions with answers only, or fine-tune a reader of the "
                "laboratory (gpt-base)."
            )
        asked = _turns(self.tokenizer, exercise)
        said = {"role": "assistant", "content": _plain(self.tokenizer, answer)}
        opening = self.tokenizer.chat(asked)
        whole = self.tokenizer.chat([*asked, said], add_generation_prompt=False)
        if not whole.startswith(opening):
            raise TrainingError(
                "the model's chat template writes an answered question in another way than the "
                "open one, so the answer's place can't be told: fine-tune another chat model."
            )
        prompt = self.tokenizer.encode(opening, special=False)
        # Cut apart as they are when the answer is written. What a template puts behind the end
        # token (a line break) belongs to the next turn.
        written = self.tokenizer.encode(whole[len(opening) :], special=False)
        if self.tokenizer.eos_id in written:
            written = written[: written.index(self.tokenizer.eos_id) + 1]
        in_answer = np.arange(1, len(prompt) + len(written)) >= len(prompt)
        return Marked(np.array(prompt + written, np.int64), in_answer)

    def _text(self, exercise: ReadingExercise) -> Marked:
        text = "\n\n".join(_plain(self.tokenizer, passage) for passage in exercise.passages)
        border = border_of(self.tokenizer)
        ids = [border, *self.tokenizer.encode(text, special=False), border]
        return Marked(np.array(ids, np.int64), np.zeros(len(ids) - 1, np.bool_))


def border_of(tokenizer: Tokenizer) -> int:
    """The token between two documents.

    Raises
    ------
    TrainingError
        If the tokenizer has none.
    """
    for index in (tokenizer.id_of(_BETWEEN_DOCUMENTS), tokenizer.eos_id, tokenizer.bos_id):
        if index is not None:
            return index
    raise TrainingError(
        f"the tokenizer has neither {_BETWEEN_DOCUMENTS} nor an end or begin token: nothing says "
        "where a text ends."
    )


def form_for(model: Decoder | EncoderDecoder, tokenizer: Tokenizer) -> Form:
    """The readers' format for a model of the laboratory, a conversation for a public decoder."""
    if isinstance(model, Decoder) and not knows_reading(tokenizer):
        return ChatForm(tokenizer)
    return form_of("reading", model, tokenizer)


def knows_reading(tokenizer: Tokenizer) -> bool:
    """Whether its model was trained on the readers' format."""
    return tokenizer.id_of(ANSWER) is not None


def prompts_for(
    model: Decoder | EncoderDecoder, tokenizer: Tokenizer, exercises: Sequence[ReadingExercise]
) -> list[list[list[int]]]:
    """What a model is given for the first question of each exercise, in the parts that it reads."""
    if isinstance(model, Decoder) and not knows_reading(tokenizer):
        opened = (tokenizer.chat(_turns(tokenizer, exercise)) for exercise in exercises)
        return [[tokenizer.encode(opening, special=False)] for opening in opened]
    return prompts_of(model, tokenizer, exercises)


def opened_text(tokenizer: Tokenizer, beginning: str) -> list[int]:
    """What a decoder is given to go on with a text that nobody asks about."""
    if knows_reading(tokenizer):
        return tokenizer.encode(reading_example([beginning], []), special=False)[:-1]
    return [border_of(tokenizer), *tokenizer.encode(_plain(tokenizer, beginning), special=False)]


def without_border(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """What a decoder wrote, up to where it ended the text and would have begun another."""
    if knows_reading(tokenizer) or (border := border_of(tokenizer)) not in ids:
        return list(ids)
    return list(ids[: ids.index(border)])


def _turns(tokenizer: Tokenizer, exercise: ReadingExercise) -> list[dict[str, str]]:
    """The passages, then the question, as the user's turn."""
    parts = (*exercise.passages, exercise.questions[0].text)
    content = "\n\n".join(_plain(tokenizer, part) for part in parts)
    return [{"role": "user", "content": content}]


def _plain(tokenizer: Tokenizer, text: str) -> str:
    """A text that can't pose as a turn."""
    return tokenizer.without_special(text).strip()
