"""``minirag bench``: speed, measured side by side with other libraries in one run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minirag.cli.bases import check_counts, check_png
from minirag.cli.runs import typed
from minirag.cli.stray import refuse_stray, was_typed
from minirag.errors import UsageError

_DESCRIPTION = """\
Measure speed beside the libraries that are known for it, in one process, turn
by turn. Machines are noisy: read the ratios, not the seconds. Above 1, minirag
is faster.

  search    exact search against faiss
  index     building and searching an IVF index against faiss
  encode    sentence vectors against sentence-transformers
  generate  writing on against transformers
  train     pretraining steps against transformers
  finetune  fine-tuning steps against transformers' Trainer, and peft with LoRA;
            with --freeze, full fine-tuning against that of the upper quarter
  passages  our readers against each other: time and score by number of passages

For a machine without newer vector units, set ONEDNN_MAX_CPU_ISA=AVX2 and
ATEN_CPU_CAPABILITY=avx2. The other libraries come with `pip install
'minirag[peers]'`.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``bench`` to the command line."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed side by side with other libraries",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=tuple(_BENCHES), metavar="BENCH", help="one of those above")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of both sides (default: 1)"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="default: fp32"
    )
    parser.add_argument("--large", action="store_true", help="search, index: a million vectors too")
    parser.add_argument(
        "--avx2", action="store_true", help="search, index: no newer vector units than AVX2"
    )
    parser.add_argument(
        "--picture", metavar="FILE", type=Path, help="passages: draw the curves into this PNG file"
    )
    parser.add_argument(
        "--questions", type=int, default=100, metavar="N",
        help="passages: of each number of passages (default: 100)",
    )  # fmt: skip
    add = parser.add_argument_group("finetune").add_argument
    add(
        "--model", default="gpt-base", metavar="MODEL",
        help="a reader of ours or a Llama, such as SmolLM2-135M-Instruct (default: gpt-base)",
    )  # fmt: skip
    add("--way", choices=("full", "lora"), default="full", help="default: full")
    add("--freeze", action="store_true", help="what freezing saves, on a model of 8 layers")
    add("--rounds", type=int, default=3, metavar="N", help="default: 3")
    add("--batch-tokens", type=int, metavar="N", help="default: 4096, of a public model 1024")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


_GO_WITH = {  # options that some of them have
    "--precision": ("encode", "generate", "train", "finetune"),
    "--large": ("search", "index"),
    "--avx2": ("search", "index"),
    "--picture": ("passages",),
    "--questions": ("passages",),
    **dict.fromkeys(("--model", "--way", "--freeze", "--rounds", "--batch-tokens"), ("finetune",)),
}


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    check_counts(args, "threads", "rounds", "batch_tokens", "questions")
    refuse_stray(args, _GO_WITH, args.what, "`bench {}`")
    if args.freeze:
        for option in ("--model", "--way"):
            if was_typed(args, option):
                raise UsageError(
                    f"{option} does not go with --freeze, which trains a model of its own: leave "
                    "one of them out."
                )
    if args.picture is not None:
        check_png("--picture", args.picture)
    results = _BENCHES[args.what](args)
    if args.json:
        print(json.dumps({"command": typed(args), **results}, indent=2))
    return 0


def _models(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from minirag.cli.bases import ENCODER, READER
    from minirag.cli.bench_models import HEADER, bench_encode, bench_generate
    from minirag.transformer.hub import locate

    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    name = locate(ENCODER if args.what == "encode" else READER).name
    bench = bench_encode if args.what == "encode" else bench_generate
    comparisons = bench(name, dtype)
    if not args.json:
        print(f"{name}, {args.precision}, {args.threads} threads")
        print(HEADER)
        for comparison in comparisons:
            print(comparison.line())
    return {
        "model": name,
        "precision": args.precision,
        "threads": args.threads,
        "comparisons": [comparison.to_json() for comparison in comparisons],
    }


def _train(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from minirag.cli.bench_train import bench_train

    torch.set_num_threads(args.threads)
    results = bench_train(precision=args.precision)
    if not args.json:
        print(f"training, {args.precision}, {args.threads} threads: tokens a second")
        for name, rate in results["tokens_per_second"].items():
            loss = results["last_loss"][name]
            print(f"{name:<32}{rate:>9,}   loss {loss:.3f} after {results['steps']} steps")
        print(f"ratio to the faster peer: {results['ratio_to_faster_peer']:.2f}x")
    return results


def _finetune(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from minirag.cli import bench_finetune, bench_freezing
    from minirag.cli.bases import show_bars
    from minirag.finetuning.config import Lora

    torch.set_num_threads(args.threads)
    how: dict[str, Any] = {
        "precision": args.precision,
        "rounds": args.rounds,
        "tokens_per_batch": args.batch_tokens,
        "bar": show_bars(args),
    }
    if args.freeze:
        results, table = bench_freezing.bench_freezing(**how), bench_freezing.table
    else:
        lora = Lora() if args.way == "lora" else None
        results = bench_finetune.bench_finetune(args.model, lora=lora, **how)
        table = bench_finetune.table
    if not args.json:
        print(table(results))
    return results


def _indexes(args: argparse.Namespace) -> dict[str, Any]:
    from minirag.cli.bench_index import bench_index, bench_search

    sizes = (10_000, 100_000, 1_000_000) if args.large else (10_000, 100_000)
    show: Callable[[str], None] = (lambda line: None) if args.json else print
    if args.what == "search":
        return bench_search(sizes, threads=args.threads, avx2=args.avx2, show=show)
    return bench_index(sizes, threads=args.threads, avx2=args.avx2, show=show)


def _passages(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    from minirag.cli.bases import show_bars
    from minirag.cli.bench_passages import HEADER, READERS, bench_passages, draw
    from minirag.training.weights import locate_weights, shipped

    torch.set_num_threads(args.threads)
    there = {path.name for path in shipped()}
    readers = [(name, locate_weights(name)) for name in READERS if name in there]
    costs = bench_passages(readers, n=args.questions, bar=show_bars(args))
    if not args.json:
        print(f"threads: {args.threads}; n = {args.questions}, 95 % Wilson intervals")
        print(HEADER)
        for cost in costs:
            print(cost.line())
    if args.picture is not None:
        draw(costs, args.picture)
    return {"threads": args.threads, "costs": [cost.as_json() for cost in costs]}


_BENCHES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "search": _indexes,
    "index": _indexes,
    "encode": _models,
    "generate": _models,
    "train": _train,
    "finetune": _finetune,
    "passages": _passages,
}
