"""``minirag evaluate --follow-ups`` and ``--faq``: a conversation's parts, measured in a world."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirag.cli.bases import check_png, counted, load_encoder, show_bars
from minirag.errors import UsageError
from minirag.pictures import new_figure, save_png

if TYPE_CHECKING:
    from minirag.intervals import Interval
    from minirag.rag.faq_curve import OperatingPoint, Point
    from minirag.retrieval.encoder import BiEncoder

DOMAINS = ("medicine", "law")
K = 3  # documents found for each follow-up
N = 300  # follow-ups, or FAQ entries, of each seed


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the two measurements, besides what is measured."""
    group = parser.add_argument_group("with --follow-ups and --faq")
    group.add_argument("--language", choices=("en", "es"), default="en")
    group.add_argument(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="worlds, from --seed on, with --limit (default: 300) questions each (default: 3)",
    )
    group.add_argument(
        "--precision-wanted",
        type=float,
        default=0.9,
        metavar="P",
        help="with --faq: the threshold is the lowest that reaches it (default: 0.9)",
    )
    group.add_argument("--picture", type=Path, metavar="PNG", help="with --faq: draw the curve")


def _seeds_and_n(args: argparse.Namespace) -> tuple[tuple[int, ...], int]:
    n = N if args.limit is None else args.limit
    if args.seeds < 1 or n < 1:
        raise UsageError(f"--seeds is {args.seeds}, --limit {n}: give 1 or more of each.")
    return tuple(range(args.seed, args.seed + args.seeds)), n


def _encoder(args: argparse.Namespace) -> BiEncoder | None:
    """What --encoder names; none if words alone are compared."""
    return None if args.encoder is None else load_encoder(args.encoder, args.precision)


def _named(encoder: BiEncoder | None) -> dict[str, str] | None:
    return None if encoder is None else {"name": encoder.name, "fingerprint": encoder.fingerprint}


def follow_ups(args: argparse.Namespace) -> dict[str, object]:
    """Recall with and without the history; by words, and with --encoder by vectors and both."""
    from minirag.rag.follow_up_recall import ASKED, follow_up_recall

    seeds, n = _seeds_and_n(args)
    encoder = _encoder(args)
    ways = ("lexical",) if encoder is None else ("lexical", "dense", "hybrid")
    scores = follow_up_recall(
        args.follow_ups,
        args.language,
        seeds,
        n=n,
        k=K if args.k is None else args.k,
        ways=ways if args.retriever is None else (args.retriever,),
        encoder=encoder,
        progress=show_bars(args),
    )
    if not args.json:
        print(
            f"{scores.domain} ({scores.language}): {counted(len(seeds), 'world')} of "
            f"{scores.n_documents} documents, {n} follow-ups in each\n"
            f"rewritten: {scores.rewritten:.1%} of those that lean on the history, and "
            f"{scores.changed} of {scores.standalone} that stand alone"
        )
        for recall in scores.recalls:
            print(f"\n{recall.way}: recall@{scores.k}{'':<11}{'all':<24}by kind")
            for asked in ASKED:
                kinds = ", ".join(f"{k} {v[asked].value:.3f}" for k, v in recall.by_kind.items())
                print(f"  {asked:<22}{recall.recall[asked]!s:<24}{kinds}")
            print(f"  {'gain by rewriting':<22}{recall.gain!s}")
    return {"follow_ups": scores.domain, "encoder": _named(encoder), **asdict(scores)}


def faq(args: argparse.Namespace) -> dict[str, object]:
    """Precision and recall over the threshold; chosen on half of the queries, counted on half."""
    from minirag.corpus.world import draw_world
    from minirag.rag.faq_curve import at_threshold, curve, faq_queries, threshold_for

    seeds, n = _seeds_and_n(args)
    if args.picture is not None:
        check_png("--picture", args.picture)
    if not 0 < args.precision_wanted <= 1:
        raise UsageError(f"--precision-wanted is {args.precision_wanted}: give a share up to 1.")
    encoder = _encoder(args)
    queries = [
        query
        for seed in seeds
        for query in faq_queries(draw_world(args.faq, seed), args.language, n, encoder)
    ]
    points = curve(queries)
    threshold = args.threshold
    judged = queries
    if threshold is None:
        threshold = threshold_for(queries[::2], args.precision_wanted)
        judged = queries[1::2]
    found = at_threshold(judged, threshold)
    if args.picture is not None:
        draw_curve(points, found, args.picture, f"FAQ of {args.faq} ({args.language})")
    if not args.json:
        by = "words" if encoder is None else encoder.name
        chosen = "given" if args.threshold is not None else "chosen on the other half"
        print(
            f"{args.faq} ({args.language}): {counted(len(seeds), 'world')}, {n} entries and "
            f"{n + n // 2} queries in each, compared by {by}\n"
            f"threshold {threshold:.2f}, {chosen}; counted on {found.n} queries"
        )
        for name, share in _rates(found).items():
            print(f"  {name:<18}{share!s}")
    return {
        "faq": args.faq,
        "language": args.language,
        "seeds": list(seeds),
        "n": n,
        "encoder": _named(encoder),
        "threshold": threshold,
        "counted_on": found.n,
        "rates": {name: list(share) for name, share in _rates(found).items()},
        "curve": [[round(x, 4) for x in (p.threshold, p.precision, p.recall)] for p in points],
    }


def _rates(found: OperatingPoint) -> dict[str, Interval]:
    return {
        "precision": found.precision,
        "recall": found.recall,
        "answered in vain": found.answered_in_vain,
    }


def draw_curve(points: list[Point], found: OperatingPoint, out: Path, title: str) -> None:
    """Draw precision and recall over the threshold (PNG).

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    figure = new_figure(7, 4.5)
    axes: Any = figure.subplots()
    thresholds = [point.threshold for point in points]
    axes.plot(thresholds, [point.precision for point in points], label="precision")
    axes.plot(thresholds, [point.recall for point in points], label="recall")
    axes.axvline(found.threshold, color="grey", linestyle="--", linewidth=1)
    for share, color in ((found.precision, "C0"), (found.recall, "C1")):
        error = [[share.value - share.low], [share.high - share.value]]
        axes.errorbar([found.threshold], [share.value], error, fmt="o", color=color, capsize=3)
    axes.set_xlabel("threshold: least likeness of the two questions")
    axes.set_ylabel("share (points: 95 % intervals)")
    axes.set_ylim(0, 1.02)
    axes.set_title(f"{title}: precision and recall over the threshold", fontsize=10)
    axes.legend(loc="lower left", fontsize=8)
    save_png(figure, out, 110)
