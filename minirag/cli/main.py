"""``minirag VERB``: the verbs, and how errors become sentences and exit codes."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn, TextIO

from minirag import __version__
from minirag.errors import DiskError, MiniragError, UsageError

# Verb, the module that has it, and what it does. A module is imported only when its verb is called,
# so that `minirag --help` does not wait for torch.
VERBS = {
    "tour": ("minirag.cli.tour", "see fine-tuning and RAG side by side, in a minute"),
    "download": ("minirag.cli.download", "fetch public models once, into the cache"),
    "index": ("minirag.cli.index", "make a knowledge base of a folder of text"),
    "kb": ("minirag.cli.kb", "look at a knowledge base, draw it, change single documents"),
    "ask": ("minirag.cli.ask", "ask a question and get an answer with its sources"),
    "chat": ("minirag.cli.chat", "ask one question after the other, with follow-ups"),
    "faq": ("minirag.cli.faq", "keep frequent questions with their answers, and ask them"),
    "evaluate": ("minirag.cli.evaluate", "score retrieval and answers: SQuAD, BEIR, your own"),
    "calibrate": ("minirag.cli.calibrate", "measure when to abstain"),
    "world": ("minirag.cli.world", "look at the laboratory's generated world"),
    "pretrain": ("minirag.cli.pretrain", "pretrain a base model"),
    "finetune": ("minirag.cli.finetune", "adapt a pretrained model to a domain or a task"),
    "compare": ("minirag.cli.compare", "five arms side by side: fine-tuning, retrieval, both"),
    "train-retriever": ("minirag.cli.train_retriever", "train an encoder that finds passages"),
    "claims": ("minirag.cli.claims", "what is claimed, what was measured, does it still stand"),
    "weights": ("minirag.cli.weights", "list and verify the models that come with minirag"),
    "map": ("minirag.cli.map", "when which arm is the most accurate, measured"),
    "choose": ("minirag.cli.choose", "fine-tuning, retrieval or both: advice from the map"),
    "bench": ("minirag.cli.bench", "measure speed side by side with other libraries"),
}

_EPILOG = """\
begin with:
  minirag tour
  minirag download
  minirag ask "How do I ...?" --docs FOLDER

exit codes:
  0 done, or abstained   1 anything else            2 a model can't be had
  3 no such documents    4 knowledge base, a run    5 disk or permission
  6 a model's files      7 what a data set holds    8 training
  64 usage               130 interrupted

`minirag VERB --help` explains each verb.
"""


class _Parser(argparse.ArgumentParser):
    """argparse exits with 2 on a wrong option; here 2 means that a model can't be had."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(UsageError.exit_code, f"minirag: {message}\n")


def build_parser(verbs: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with these verbs in full and the others by name."""
    parser = _Parser(
        prog="minirag",
        description="How fine-tuning and retrieval-augmented generation really work, by hand.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"minirag {__version__}")
    subparsers = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    for verb, (module, summary) in VERBS.items():
        if verb in verbs:
            importlib.import_module(module).add_parser(subparsers)
        else:
            subparsers.add_parser(verb, help=summary)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Threads that wait for each other in a loop starve whenever another program has a core: on two
    # cores with one busy, reading took 7 to 20 times as long. Asleep, they cost next to nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _write_utf8(sys.stdout, sys.stderr)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            args = build_parser(arguments[:1]).parse_args(arguments)
            args.arguments = arguments
            code: int = args.run(args)
            sys.stdout.flush()
    except MiniragError as error:
        print(f"minirag: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("minirag: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (`| head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # any that nobody foresaw: no permission, a disk that fails
        place = f"{error.filename}: " if error.filename else ""
        print(f"minirag: {place}{error.strerror or error}.", file=sys.stderr)
        return DiskError.exit_code
    except MemoryError:
        print("minirag: there is not enough memory for this: give less at a time.", file=sys.stderr)
        return 1
    return code


def _write_utf8(*streams: TextIO) -> None:
    """Answers hold any character; a Windows console's own encoding does not."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=file or sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
