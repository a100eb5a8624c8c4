"""``minirag chat``: a conversation with documents, in which follow-up questions are understood."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from minirag.cli.answer_texts import Frame
from minirag.cli.answers import (
    answer_as_json,
    described,
    hit_as_json,
    plain,
    print_piece,
    print_result,
    print_wrapped,
    unbroken,
)
from minirag.cli.ask import add_answer_options, frame_of, open_pipeline
from minirag.cli.bases import import_torch
from minirag.errors import MiniragError, UsageError

if TYPE_CHECKING:
    from minirag.rag.conversation import Conversation
    from minirag.rag.rewriting import Rewrite
    from minirag.retrieval.knowledge_base import KnowledgeBase

_DESCRIPTION = """\
Ask one question after the other. A follow-up that leaves something out ("And
for children?", "Who grants it?") is made whole from the question before it,
and what is searched is shown; a question that stands alone is left as it is.
Every answer has its own sources. In a pipe, one question a line; if none of
them could be asked, the exit code is the last error's.

while it runs:
  /sources  the passages of the last answer in full
  /reset    forget the conversation so far
  /help     these lines
  /quit     end, as Ctrl-D does
Any other line that begins with / is refused with a word, and not asked.

examples:
  minirag chat --docs handbook
  minirag chat --kb kb --quote
  minirag chat --kb kb --json < questions.txt
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``chat`` to the command line."""
    parser = subparsers.add_parser(
        "chat",
        help="ask one question after the other, with follow-ups",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_answer_options(parser)
    parser.add_argument(
        "--history-turns", type=int, default=8, metavar="N", help="turns remembered (default: 8)"
    )
    parser.add_argument(
        "--history-tokens",
        type=int,
        default=2048,
        metavar="N",
        help="of questions and answers remembered, at most (default: 2048)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object for each line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Talk until the input ends."""
    import_torch()
    from minirag.rag.conversation import Bounds, Conversation
    from minirag.rag.names import names_of
    from minirag.rag.rewriting import RuleRewriter

    bounds = Bounds(args.history_turns, args.history_tokens)  # wrong ones are told now
    pipeline, base = open_pipeline(args)
    talk = Conversation(pipeline, RuleRewriter(names_of(base)), bounds)
    frame = frame_of(args)
    loop = (_JsonLoop if args.json else _Loop)(talk, base, frame)
    try:
        for line in _lines(None if args.json else frame.commands):
            if line in ("/quit", "/exit"):
                break
            if line:
                loop.take(line)
    except KeyboardInterrupt:  # Ctrl-C ends the chat, in the middle of an answer, too
        print(file=sys.stderr)
        return 130
    return loop.exit_code


def _lines(greeting: str | None) -> Iterator[str]:
    """What is typed, or what comes out of a pipe, without the ends of lines."""
    if sys.stdin.isatty() and greeting is not None:
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # arrow keys and earlier lines, in input()
        print(greeting)
        with contextlib.suppress(EOFError):  # Ctrl-D
            while True:
                yield input("\n? ").strip()
        print()
        return
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="replace")
    for line in sys.stdin:
        yield line.strip()


class _Loop:
    """A conversation for people."""

    def __init__(self, talk: Conversation, base: KnowledgeBase, frame: Frame) -> None:
        self.talk, self.base, self.frame = talk, base, frame
        self.answered = False
        self.last_error = 0  # its exit code

    @property
    def exit_code(self) -> int:
        """That of the last question that failed, if no other one was answered."""
        return 0 if self.answered else self.last_error

    def take(self, line: str) -> None:
        """Answer a question or obey a command; what can't be done is said, and it goes on."""
        try:
            if line.startswith("/"):
                self.command(line)
            else:
                self.question(line)
                self.answered = True
        except MiniragError as error:
            if not line.startswith("/"):
                self.last_error = error.exit_code
            self.failed(line, error)

    def command(self, line: str) -> None:
        if line == "/sources":
            self.sources()
        elif line == "/reset":
            n = len(self.talk.turns)
            self.talk.reset()
            self.forgot(n)
        elif line == "/help":
            self.help()
        else:
            raise UsageError(f"there is no command {line.split()[0]}: /help lists them.")

    def question(self, line: str) -> None:
        if not sys.stdin.isatty():  # so that a transcript can be read
            print(f"? {plain(line)}")
        turn = self.talk.ask(line, print_piece, self.rewritten)
        print_result(self.talk.pipeline, self.base, turn.result, frame=self.frame)
        if not sys.stdin.isatty():
            print()

    def rewritten(self, rewrite: Rewrite) -> None:
        print(f"[{self.frame.searching}: {plain(rewrite.text)}]", flush=True)

    def sources(self) -> None:
        if not self.talk.turns:
            print(self.frame.nothing_asked)
            return
        turn = self.talk.turns[-1]
        for hit in turn.sources:
            number = turn.result.hits.index(hit) + 1  # as the answer cites it
            print(f"[{number}] {described(hit, self.frame)}")
            for line in unbroken(hit.passage.text):
                print_wrapped(line)
            print()

    def forgot(self, n: int) -> None:
        print(self.frame.forgot_one if n == 1 else self.frame.forgot.format(n=n))

    def help(self) -> None:
        print(self.frame.commands)

    def failed(self, line: str, error: MiniragError) -> None:
        print(f"minirag: {error}", file=sys.stderr)


class _JsonLoop(_Loop):
    """A conversation for programs: an object for each line that comes in."""

    def question(self, line: str) -> None:
        turn = self.talk.ask(line)
        values = answer_as_json(self.talk.pipeline, self.base, turn.result, None)
        asked = {
            "question": turn.question,
            "searched": turn.searched,
            "rewritten": turn.rewrite.rule is not None,
            "rule": turn.rewrite.rule,
        }
        self.say({**asked, **{k: v for k, v in values.items() if k != "question"}})

    def sources(self) -> None:
        hits = self.talk.turns[-1].sources if self.talk.turns else []
        self.say({"command": "/sources", "sources": [hit_as_json(hit) for hit in hits]})

    def forgot(self, n: int) -> None:
        self.say({"command": "/reset", "forgotten": n})

    def help(self) -> None:
        self.say({"command": "/help", "help": self.frame.commands})

    def failed(self, line: str, error: MiniragError) -> None:
        self.say({"question": line, "error": str(error)})

    def say(self, values: dict[str, object]) -> None:
        print(json.dumps(values, ensure_ascii=False), flush=True)
