"""``minirag finetune --task summarise`` and ``generate``: a model learns to write."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minirag.cli.bases import show_bars
from minirag.cli.finetune import config_of, given, tell
from minirag.cli.runs import typed

if TYPE_CHECKING:
    from collections.abc import Callable

    from minirag.finetuning.base import Base
    from minirag.finetuning.config import FineTuneConfig
    from minirag.finetuning.domain_text import TextReport
    from minirag.finetuning.summaries import SummaryReport


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what only writing knows."""
    add = parser.add_argument_group("--task summarise, generate").add_argument
    add(
        "--summary-column", default="summary", metavar="NAME",
        help="of --data (default: summary)",
    )  # fmt: skip
    add(
        "--question-column", metavar="NAME", help="of --data: learn to answer it with --text-column"
    )
    add(
        "--most-characters", type=int, metavar="N",
        help="longer texts or answers are left out (default: 1200, answers 1000)",
    )  # fmt: skip
    add("--lower-case", action="store_true", help="learn summaries in lower case")
    add("--limit", type=int, metavar="N", help="take so many texts of --data, drawn by --seed")
    add("--general", type=Path, metavar="DOCS", help="other documents, to see what is forgotten")
    add("--samples", type=int, default=12, metavar="N", help="texts to write (default: 12)")
    add("--full", action="store_true", help="let all weights of a public model move, without LoRA")


def run(args: argparse.Namespace) -> int:
    """Fine-tune, and print what was learned beside what it is compared with."""
    from minirag.finetuning.base import Base

    report: SummaryReport | TextReport
    base = Base.load(args.base or "gpt-base")
    say = (lambda _: None) if args.json else tell
    out, report = (_summarise if args.task == "summarise" else _generate)(args, base, say)
    if args.json:
        print(json.dumps({"out": str(out), **report.as_json()}, indent=2, ensure_ascii=False))
        return 0
    print(report.table())
    print(report.finetuned.ending)
    print(f"the model is in {out}", file=sys.stderr)
    return 0


def _summarise(
    args: argparse.Namespace, base: Base, say: Callable[[str], None]
) -> tuple[Path, SummaryReport]:
    from minirag.finetuning.chat import knows_reading
    from minirag.finetuning.summaries import (
        RECIPE,
        SCRATCH_RATE,
        LaboratorySummaries,
        SummaryFile,
        finetune_summaries,
        laboratory_summaries,
        summaries_from,
    )
    from minirag.transformer.machine import this_machine

    config = _config(args, RECIPE, base, say)
    if args.data is None:
        data = laboratory_summaries(
            LaboratorySummaries(
                args.domain, _languages(args), args.world_seed, questions=args.questions,
                questions_on_the_way=min(args.questions, 30), **given(texts=args.exercises),
            ),
            base,
        )  # fmt: skip
    else:
        data = summaries_from(
            SummaryFile(
                args.data,
                args.test,
                args.text_column,
                args.summary_column,
                _languages(args)[0],
                args.most_characters or 1200,
                args.lower_case,
                args.limit,
                args.questions,
                min(args.questions, 40),
                args.seed,
            ),
            base,
        )
    rate: float | None = SCRATCH_RATE if args.scratch_rate is None else args.scratch_rate
    if args.no_scratch:
        rate = None
    elif not knows_reading(base.tokenizer):
        say(f"note: {base.name} is too large to be trained from scratch beside: left out.")
        rate = None
    out = _place(args, base)
    return out, finetune_summaries(
        base, data, config, out, scratch_rate=rate, machine=this_machine(args.precision),
        resume=args.resume, bar=show_bars(args), tell=say, command=typed(args),
    )  # fmt: skip


def _generate(
    args: argparse.Namespace, base: Base, say: Callable[[str], None]
) -> tuple[Path, TextReport]:
    from minirag.finetuning.config import LaboratoryData
    from minirag.finetuning.domain_text import (
        ANSWERS_RECIPE,
        TEXT_RECIPE,
        TextSource,
        finetune_text,
        laboratory_text,
        texts_from,
    )
    from minirag.transformer.machine import this_machine

    recipe = TEXT_RECIPE if args.question_column is None else ANSWERS_RECIPE
    config = _config(args, recipe, base, say)
    if args.data is None:
        data = laboratory_text(
            LaboratoryData(
                args.domain, "pretraining", _languages(args), args.world_seed, args.entities,
                args.changing, **given(paraphrases=args.paraphrases),
            ),
            base,
        )  # fmt: skip
    else:
        data = texts_from(
            TextSource(
                args.data,
                args.question_column,
                args.text_column,
                _languages(args)[0],
                args.general,
                args.most_characters or 1000,
                args.limit,
                seed=args.seed,
            ),
            base,
        )
    out = _place(args, base)
    return out, finetune_text(
        base, data, config, out, n_samples=args.samples, machine=this_machine(args.precision),
        resume=args.resume, bar=show_bars(args), tell=say, command=typed(args),
    )  # fmt: skip


def _config(
    args: argparse.Namespace, recipe: FineTuneConfig, base: Base, say: Callable[[str], None]
) -> FineTuneConfig:
    """The options' configuration; a public model gets adapters if nothing else is said."""
    from minirag.finetuning.chat import knows_reading
    from minirag.finetuning.config import Lora

    config = config_of(args, recipe)
    chosen = args.lora is not None or args.freeze or args.gradual or args.full
    if chosen or knows_reading(base.tokenizer):
        return config
    lora = Lora()
    say(f"note: {base.name} is large: LoRA of rank {lora.rank} moves (--full: all weights).")
    return dataclasses.replace(config, lora=lora)


def _languages(args: argparse.Namespace) -> tuple[str, ...]:
    """Both, if nothing else is said; the first is that of one's own data."""
    return ("en", "es") if args.language == "both" else (args.language,)


def _place(args: argparse.Namespace, base: Base) -> Path:
    source = args.data.name.partition(".")[0] if args.data else args.domain
    out: Path = args.out or Path("runs") / f"{base.name}-{source}-{args.task}"
    return out
