"""A conversation: questions that build on each other, each searched with what it leaves out.

Every turn is a question of its own to the pipeline: the follow-up is made whole first (see
:mod:`minirag.rag.rewriting`), and passages are retrieved, read and cited for the whole question.
The history goes nowhere else: it is not read by the generator, so an earlier answer can't be taken
for a source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minirag.errors import UsageError
from minirag.rag.pipeline import Abstention, Answer, Answering
from minirag.rag.rewriting import Exchange, Rewrite, Rewriter
from minirag.retrieval.retriever import Hit


@dataclass(frozen=True)
class Turn:
    """One question of a conversation and what came of it."""

    question: str  # as typed
    rewrite: Rewrite  # what was searched and read, and why
    result: Answer | Abstention

    @property
    def searched(self) -> str:
        """The question that was searched: as typed, or rewritten."""
        return self.rewrite.text

    @property
    def sources(self) -> list[Hit]:
        """The passages that were read; after an abstention, those that were not near enough."""
        if isinstance(self.result, Answer):
            return self.result.read
        return self.result.hits


@dataclass(frozen=True)
class Bounds:
    """How much of a conversation is remembered; the oldest turns are forgotten first."""

    turns: int = 8
    tokens: int = 2048  # of questions and answers, as the reader counts; the last turn always stays

    def __post_init__(self) -> None:
        for name in ("turns", "tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"--history-{name} is {getattr(self, name)}: remember 1 at least.")


class Conversation:
    """A pipeline with a memory.

    Parameters
    ----------
    pipeline : Answering
        Asked once for every turn. With a live retriever each turn sees the documents of its moment.
    rewriter : Rewriter
        Makes follow-ups whole.
    bounds : Bounds, optional
    """

    def __init__(
        self, pipeline: Answering, rewriter: Rewriter, bounds: Bounds | None = None
    ) -> None:
        self.pipeline, self.rewriter, self.bounds = pipeline, rewriter, bounds or Bounds()
        self._turns: list[Turn] = []

    @property
    def turns(self) -> list[Turn]:
        """The turns remembered, oldest first."""
        return list(self._turns)

    def ask(
        self,
        question: str,
        on_text: Callable[[str], None] | None = None,
        on_rewrite: Callable[[Rewrite], None] | None = None,
    ) -> Turn:
        """Answer the next question, or abstain; if it can't be asked, nothing is remembered.

        Parameters
        ----------
        on_text : function, optional
            Given the answer piece by piece as it is written.
        on_rewrite : function, optional
            Called before the answer, and only if the question was rewritten.

        Raises
        ------
        UsageError
            If the question is empty, or too long for the reader's context.
        """
        history = [
            Exchange(turn.question, turn.searched, turn.result.text, turn.rewrite.rule)
            for turn in self._turns
        ]
        rewrite = self.rewriter.rewrite(question, history)
        if rewrite.rule is not None and on_rewrite is not None:
            on_rewrite(rewrite)
        turn = Turn(question, rewrite, self.pipeline.ask(rewrite.text, on_text))
        self._turns.append(turn)
        self._forget()
        return turn

    def reset(self) -> None:
        """Forget everything: the next question starts anew."""
        self._turns.clear()

    def _forget(self) -> None:
        tokenizer = self.pipeline.reader.tokenizer
        n_tokens = [
            len(tokenizer.encode(f"{turn.searched}\n{turn.result.text}", special=False))
            for turn in self._turns
        ]
        while len(self._turns) > 1 and (
            len(self._turns) > self.bounds.turns or sum(n_tokens) > self.bounds.tokens
        ):
            del self._turns[0], n_tokens[0]
