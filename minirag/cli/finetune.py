"""``minirag finetune``: a pretrained model learns a domain, or a task of its own."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirag.cli.bases import show_bars
from minirag.cli.stray import refuse_stray, was_typed
from minirag.errors import UsageError

if TYPE_CHECKING:
    from minirag.finetuning.config import FineTuneConfig

_DESCRIPTION = """\
Fine-tune a pretrained reader on a domain of the laboratory, and measure what
it gains there and what it forgets in general; or, with another --task, a model
for that task, beside its baselines.

--way closed-book learns facts by heart from questions and answers, raft
learns to read the domain's documents (with distractors, and sometimes without
the right one), pretraining goes on with plain text.

--data takes your own questions: lines {"question": ..., "answer": ...,
"passages": [...]} with null as the answer where the passages don't tell.

The directory given with --out gets the model in the hub's layout, its report
and its curve; a kill loses at most the steps since the last checkpoint, and
--resume goes on as if nothing had happened.

examples:
  minirag finetune --base gpt-base --domain medicine --way raft
  minirag finetune --way raft --freeze embeddings,0-2 --untie-head --cache
  minirag finetune --way closed-book --lora 8 --rate 2e-3
  minirag finetune --way raft --data mine.jsonl
  minirag finetune --task sentiment
  minirag finetune --task sentiment --base all-MiniLM-L6-v2 \\
      --data train.tsv --validation dev.tsv --test test.tsv
  minirag finetune --task summarise --domain law
  minirag finetune --task generate --base SmolLM2-135M-Instruct --data DOCS
"""

# Tasks besides reading, and the module that has their options and runs them.
TASKS = {
    "sentiment": "minirag.cli.finetune_classifier",
    "documents": "minirag.cli.finetune_classifier",
    "summarise": "minirag.cli.finetune_generation",
    "generate": "minirag.cli.finetune_generation",
}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``finetune`` to the command line."""
    parser = subparsers.add_parser(
        "finetune",
        help="adapt a pretrained model to a domain or a task",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--task", default="reading", choices=("reading", *TASKS), metavar="TASK",
        help="what is learned: reading (default); sentiment, of reviews; documents, the field of "
        "a report; summarise, case notes; generate, a domain's text",
    )  # fmt: skip
    add("--base", metavar="MODEL", help="a name or a directory (default: gpt-base, or bert-base)")
    add("--domain", default="medicine", choices=("medicine", "law"), help="default: medicine")
    add(
        "--way",
        default="raft",
        choices=("closed-book", "raft", "pretraining"),
        help="default: raft",
    )
    add("--out", type=Path, metavar="DIR", help="default: in runs/, named by base, data and task")
    add("--resume", action="store_true", help="go on with the run in --out")

    data = parser.add_argument_group("data").add_argument
    data(
        "--data", type=Path, metavar="FILE", help="your own: .tsv, .csv or .jsonl; reading: .jsonl"
    )
    data("--test", type=Path, metavar="FILE", help="default: a tenth of --data")
    data("--text-column", default="text", metavar="NAME", help="of --data (default: text)")
    data(
        "--language", choices=("en", "es", "both"), default="both",
        help="default: both; with --data, of lines that name none: en",
    )  # fmt: skip
    data(
        "--entities",
        type=int,
        default=280,
        metavar="N",
        help="to learn about, whose facts will stay as they are (default: 280)",
    )
    data(
        "--changing",
        type=int,
        default=200,
        metavar="N",
        help="to learn about before their facts change (default: 200)",
    )
    data(
        "--paraphrases",
        type=int,
        metavar="N",
        help="wordings of each closed-book question or document (default: 8)",
    )
    data(
        "--exercises",
        type=int,
        metavar="N",
        help="of way raft (default: 6000), or summaries (default: 3000)",
    )
    data(
        "--unanswerable",
        type=float,
        metavar="SHARE",
        help="of the questions of way raft, without the passage that answers (default: 0.3)",
    )
    data("--world-seed", type=int, default=0, metavar="N", help="of the domain's facts")
    data(
        "--rehearsal",
        type=float,
        metavar="SHARE",
        help="of general exercises among the tokens, against forgetting (default: as the way has "
        "it)",
    )

    much = parser.add_argument_group("how long and how fast").add_argument
    much("--epochs", type=int, metavar="N", help="default: as the way has it")
    much("--steps", type=int, metavar="N", help="end after N steps at the latest")
    much("--rate", type=float, metavar="R", help="the peak; default: as the way has it")
    much(
        "--schedule", choices=("linear", "cosine", "slanted", "constant"),
        help="how the rate falls (default: as the way has it, mostly linear)",
    )  # fmt: skip
    much("--warmup", type=float, default=0.06, metavar="SHARE", help="of the steps (default: 0.06)")
    much(
        "--optimizer",
        choices=("adamw", "muon"),
        help="what moves the matrices; default: as the way has it",
    )
    much(
        "--weight-decay", type=float, default=0.01, metavar="D", help="of matrices (default: 0.01)"
    )
    much(
        "--batch-tokens",
        type=int,
        metavar="N",
        help="default: as the task has it, 4096 for reading",
    )
    much("--accumulate", type=int, default=1, metavar="N", help="batches a step (default: 1)")

    kept = parser.add_argument_group("what is kept").add_argument
    kept(
        "--average", type=float, metavar="SHARE",
        help="of the run, its last, whose weights' mean is kept; 0: no mean (default: as the way "
        "has it)",
    )  # fmt: skip
    kept(
        "--base-share", type=float, metavar="SHARE",
        help="of the base's weights mixed in, against forgetting (default: as the way has it)",
    )  # fmt: skip

    which = parser.add_argument_group("which weights move").add_argument
    which("--freeze", default="", metavar="PARTS", help="embeddings,0-2 or all-but-head or names")
    which("--untie-head", action="store_true", help="give the head a matrix of its own")
    which("--gradual", action="store_true", help="unfreeze a layer an epoch, from the top")
    which(
        "--layer-decay",
        type=float,
        default=1.0,
        metavar="F",
        help="each layer's rate over that of the layer above (default: 1)",
    )
    which("--lora", type=int, metavar="RANK", help="train low-rank adapters, nothing else")
    which("--lora-alpha", type=float, metavar="A", help="default: twice the rank")
    which("--lora-targets", metavar="LAYERS", help="default: query,value")
    which("--cache", action="store_true", help="compute the frozen lower layers once")

    watch = parser.add_argument_group("validation").add_argument
    watch("--validate-every", type=int, metavar="N", help="steps (default: as the task has it)")
    watch(
        "--patience",
        type=int,
        metavar="N",
        help="stop after N validations without a better one; 0: never, and keep the last weights "
        "(with --max-forgetting the best; default: 5, or 0 where a mean is kept)",
    )
    watch(
        "--max-forgetting",
        type=float,
        metavar="SHARE",
        help="what the general score may lose in the weights that are kept",
    )
    watch(
        "--questions",
        type=int,
        default=100,
        metavar="N",
        help="of each test of the report (default: 100); on the way 30 at most",
    )

    watch("--scratch-rate", type=float, metavar="R",
          help="of the baseline from random weights (default: as the task has it)")  # fmt: skip
    watch("--no-scratch", action="store_true", help="leave that baseline out")

    add("--seed", type=int, default=0, metavar="N", help="of order, rehearsal and adapters")
    add(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="of matrix products; auto takes bf16 where it is faster",
    )
    add("--json", action="store_true", help="print one JSON object, no bars")
    for module in dict.fromkeys(TASKS.values()):
        importlib.import_module(module).add_options(parser)
    parser.set_defaults(run=run)


_WRITING, _CLASSES = ("summarise", "generate"), ("sentiment", "documents")
_GO_WITH = {  # options that some of the tasks have
    "--way": ("reading",),
    "--unanswerable": ("reading",),
    "--paraphrases": ("reading", "generate"),
    "--exercises": ("reading", "summarise"),
    "--entities": ("reading", "generate"),
    "--changing": ("reading", "generate"),
    "--rehearsal": ("reading", *_WRITING),
    "--max-forgetting": ("reading", *_WRITING),
    "--text-column": (*_CLASSES, *_WRITING),
    "--test": (*_CLASSES, "summarise"),
    "--scratch-rate": (*_CLASSES, "summarise"),
    "--no-scratch": (*_CLASSES, "summarise"),
    **dict.fromkeys(
        ("--validation", "--label-column", "--texts", "--pooling", "--max-tokens", "--batch-texts"),
        _CLASSES,
    ),
    "--summary-column": ("summarise",),
    "--lower-case": ("summarise",),
    **dict.fromkeys(("--most-characters", "--limit", "--full"), _WRITING),
    **dict.fromkeys(("--question-column", "--general", "--samples"), ("generate",)),
}
_OF_THE_LABORATORY = (
    "--domain", "--entities", "--changing", "--world-seed", "--paraphrases", "--exercises",
    "--unanswerable", "--texts",
)  # fmt: skip
_OF_A_FILE = (
    "--test", "--validation", "--text-column", "--label-column", "--summary-column",
    "--question-column", "--lower-case", "--limit", "--most-characters", "--general",
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Fine-tune for the task."""
    refuse_stray(args, _GO_WITH, args.task, "--task {}")
    for option in _OF_A_FILE if args.data is None else _OF_THE_LABORATORY:
        if was_typed(args, option):
            raise UsageError(
                f"{option} goes with --data: without it, the laboratory's texts are learned."
                if args.data is None
                else f"{option} is about the laboratory's data: leave it out with --data."
            )
    if args.task in TASKS:
        code: int = importlib.import_module(TASKS[args.task]).run(args)
        return code
    return _run_reading(args)


def _run_reading(args: argparse.Namespace) -> int:
    """Fine-tune a reader, and print adaptation and forgetting."""
    from minirag.cli.runs import typed
    from minirag.finetuning.base import Base
    from minirag.finetuning.config import RECIPES, RECIPES_WITHOUT_MEAN, LaboratoryData
    from minirag.finetuning.finetune import finetune
    from minirag.finetuning.laboratory import laboratory_data
    from minirag.finetuning.own_reading import own_data
    from minirag.text.readers import JSONL_SUFFIXES
    from minirag.transformer.machine import this_machine

    # How long a run on other people's data should be, only validation can tell.
    recipes = RECIPES if args.data is None else RECIPES_WITHOUT_MEAN
    config = config_of(args, recipes[args.way])
    _refuse_other_ways(args)
    on_the_way = min(args.questions, 30)
    what = LaboratoryData(
        domain=args.domain,
        way=args.way,
        languages=("en", "es") if args.language == "both" else (args.language,),
        world_seed=args.world_seed,
        entities=args.entities,
        changing=args.changing,
        questions=args.questions,
        questions_on_the_way=on_the_way,
        **given(
            paraphrases=args.paraphrases,
            exercises=args.exercises,
            unanswerable=args.unanswerable,
        ),
    )
    base = Base.load(args.base or "gpt-base")
    if args.data is None:
        data, name = laboratory_data(what), args.domain
    else:
        if not args.data.name.lower().endswith(JSONL_SUFFIXES):
            raise UsageError(
                f"{args.data} is no .jsonl file, which the task reading takes alone: give one JSON "
                'object {"question": ..., "answer": ..., "passages": [...]} a line.'
            )
        name = args.data.name.partition(".")[0]
        data = own_data(
            args.data, args.way, what.languages[0], base=base, questions=args.questions,
            questions_on_the_way=on_the_way, seed=args.seed,
        )  # fmt: skip
    out = args.out or Path("runs") / f"{base.name}-{name}-{args.way}"
    report = finetune(
        base,
        data,
        config,
        out,
        machine=this_machine(args.precision),
        resume=args.resume,
        bar=show_bars(args),
        tell=(lambda _: None) if args.json else tell,
        command=typed(args),
    )
    if args.json:
        print(json.dumps({"out": str(out), **report.as_json()}, indent=2, ensure_ascii=False))
        return 0
    print(report.table())
    print(report.ending)
    print(f"the model is in {out}", file=sys.stderr)
    return 0


def _refuse_other_ways(args: argparse.Namespace) -> None:
    """Of numbers that the way of learning has no use for."""
    for option, number, ways in (
        ("--exercises", args.exercises, ("raft",)),
        ("--unanswerable", args.unanswerable, ("raft",)),
        ("--paraphrases", args.paraphrases, ("closed-book", "pretraining")),
    ):
        if number is not None and args.way not in ways:
            raise UsageError(
                f"{option} says nothing to the way {args.way}: it goes with --way "
                f"{' or '.join(ways)}."
            )


def given(**options: float | None) -> dict[str, Any]:
    """Those that were given; the others are as wherever they go."""
    return {name: value for name, value in options.items() if value is not None}


def tell(text: str) -> None:
    """Say on the way what a person may want to read."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)  # above the bar, if there is one


def config_of(args: argparse.Namespace, recipe: FineTuneConfig) -> FineTuneConfig:
    """The options' configuration; where nothing is given, the recipe's."""
    from minirag.finetuning.config import FineTuneConfig, Lora

    if args.lora is None and not (args.lora_alpha is None and args.lora_targets is None):
        raise UsageError(
            "--lora-alpha and --lora-targets say how adapters are made, and none are asked for: "
            "give --lora RANK, too."
        )

    options = (
        ("epochs", args.epochs),
        ("rate", args.rate),
        ("optimizer", args.optimizer),
        ("rehearsal", args.rehearsal),
        ("schedule", args.schedule),
        ("average", args.average),
        ("base_share", args.base_share),
        ("tokens_per_batch", args.batch_tokens),
        ("validate_every", args.validate_every),
    )
    averaged = recipe.average if args.average is None else args.average
    patience = None if averaged else FineTuneConfig.patience
    if args.patience is not None:
        patience = args.patience or None
    recipe = dataclasses.replace(
        recipe,
        patience=patience,
        **{name: value for name, value in options if value is not None},
    )
    lora = None
    if args.lora is not None:
        alpha = 2.0 * args.lora if args.lora_alpha is None else args.lora_alpha
        targets = Lora.targets
        if args.lora_targets is not None:
            targets = tuple(filter(None, (t.strip() for t in args.lora_targets.split(","))))
        lora = Lora(args.lora, alpha, targets)
    return dataclasses.replace(
        recipe,
        max_steps=args.steps,
        accumulate=args.accumulate,
        warmup=args.warmup,
        layer_decay=args.layer_decay,
        weight_decay=args.weight_decay,
        freeze=args.freeze,
        untie_head=args.untie_head,
        gradual=args.gradual,
        lora=lora,
        cache_frozen=args.cache,
        max_forgetting=args.max_forgetting,
        seed=args.seed,
    )
