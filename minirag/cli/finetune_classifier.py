"""``minirag finetune --task sentiment``, ``documents``: an encoder learns to tell classes apart."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minirag.cli.bases import show_bars
from minirag.cli.finetune import config_of, tell
from minirag.errors import UsageError

if TYPE_CHECKING:
    from minirag.finetuning.labelled import LabelledData


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what only classification knows."""
    add = parser.add_argument_group("--task sentiment, documents").add_argument
    add("--validation", type=Path, metavar="FILE", help="default: a tenth of --data")
    add("--label-column", default="label", metavar="NAME", help="of the class (default: label)")
    add("--texts", type=int, default=400, metavar="N", help="of a language (default: 400)")
    add("--pooling", choices=("mean", "cls"), help="default: as the base's own files say")
    add("--max-tokens", type=int, default=256, metavar="N", help="of a text (default: 256)")
    add("--batch-texts", type=int, default=32, metavar="N", help="about (default: 32)")


def run(args: argparse.Namespace) -> int:
    """Fine-tune, and print the classifier beside its baselines."""
    from minirag.cli.runs import typed
    from minirag.finetuning.classifier import EncoderBase
    from minirag.finetuning.classify import (
        ClassifierConfig,
        finetune_classifier,
        recipe_for,
        tokens_for,
    )
    from minirag.finetuning.labelled import balance
    from minirag.transformer.machine import this_machine

    say = (lambda _: None) if args.json else tell
    if args.batch_texts < 1:
        raise UsageError(f"--batch-texts is {args.batch_texts}: give 1 or more.")
    rate = ClassifierConfig.scratch_rate if args.scratch_rate is None else args.scratch_rate
    head = ClassifierConfig(
        pooling=args.pooling,
        max_tokens=args.max_tokens,
        scratch_rate=None if args.no_scratch else rate,
    )
    base = EncoderBase.load(args.base or "bert-base")
    config = config_of(args, recipe_for(base))
    data = _data(args)
    say(balance(data))
    for note in data.notes:
        say(f"note: {note}")
    if args.batch_tokens is None:
        size = tokens_for(args.batch_texts, base, data, head)
        config = dataclasses.replace(config, tokens_per_batch=size)
    source = args.data.name.partition(".")[0] if args.data else args.task
    if args.task == "documents" and not args.data:
        source = f"{args.domain}-{args.task}"
    out = args.out or Path("runs") / f"{base.name}-{source}"
    report = finetune_classifier(
        base,
        data,
        config,
        head,
        out,
        machine=this_machine(args.precision),
        resume=args.resume,
        bar=show_bars(args),
        tell=say,
        command=typed(args),
    )
    if args.json:
        print(json.dumps({"out": str(out), **report.as_json()}, indent=2, ensure_ascii=False))
        return 0
    print(report.table())
    print(report.ending)
    print(f"the classifier is in {out}", file=sys.stderr)
    return 0


def _data(args: argparse.Namespace) -> LabelledData:
    from minirag.finetuning.labelled import labelled_data, read_labelled
    from minirag.finetuning.laboratory_texts import LaboratoryTexts, laboratory_texts

    if args.data is None:
        languages = ("en", "es") if args.language == "both" else (args.language,)
        return laboratory_texts(
            LaboratoryTexts(args.task, args.domain, languages, args.world_seed, args.texts)
        )
    train, validation, test = (
        None if path is None else read_labelled(path, args.text_column, args.label_column)
        for path in (args.data, args.validation, args.test)
    )
    assert train is not None
    return labelled_data(args.data.name, train, validation, test, seed=args.seed)
