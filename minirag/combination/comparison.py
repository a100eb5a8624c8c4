"""Several studies summed up: what each arm can do, how sure that is, and what it costs.

Everything that is said comes from one dictionary of plain values, :func:`compare_studies`; the
Markdown and the picture only show it.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minirag.combination.arms import ARMS, BASE_RIGHT
from minirag.combination.compare import (
    ArmResult,
    Cell,
    as_table,
    paired_scores,
    pooled,
    slices_of,
    summarize,
)
from minirag.combination.finding import summarize_findings
from minirag.combination.lost import Losses, losses, losses_table
from minirag.combination.study import StudyResult
from minirag.combination.workbench import sum_of
from minirag.corpus.mixed import MIXED
from minirag.errors import UsageError
from minirag.intervals import Interval

N_RESAMPLES = 2000  # of every interval here: there are hundreds of them
BOTH = "both"  # languages: the questions of one world together

# The differences that the document's claims are about; the JSON has all pairs of arms.
_TOLD = (
    ("fine-tuned", "base"),
    ("RAG", "base"),
    ("RAG", "fine-tuned"),
    ("fine-tuned + RAG", "RAG"),
    ("RAFT + RAG", "RAG"),
    ("RAFT + RAG", "fine-tuned"),
    ("RAFT + RAG", "fine-tuned + RAG"),
)


def compare_studies(results: Sequence[StudyResult], *, bar: bool = False) -> dict[str, Any]:
    """Sum up studies that differ in their seeds alone.

    Returns
    -------
    dict of plain values
        ``cells`` (arm × slice × language), ``differences`` between arms, paired by question,
        ``finding`` (retrieval without reading), ``lost`` (which part loses what an arm falls
        short of), ``speed`` of each arm and ``costs`` of each seed. Intervals are 95 % bootstrap
        intervals [value, low, high]: seeds are resampled, then questions.

    Raises
    ------
    UsageError
        If there is nothing to sum up, or two studies differ in more than their seeds.
    """
    if not results:
        raise UsageError("there are no studies to compare: give at least one.")
    configurations = [_without_seed(result) for result in results]
    if any(configuration != configurations[0] for configuration in configurations):
        raise UsageError(
            "the studies differ in more than their seeds, so that their mean means nothing: "
            "compare those of one configuration."
        )
    if len({result.study.seed for result in results}) < len(results):
        raise UsageError("a seed comes twice, which would make the intervals too narrow.")
    study = results[0].study
    groups = {
        language: [arm for result in results for arm in result.arms(language)]
        for language in study.languages
    }
    findings = {
        language: [result.asked[language].findings for result in results]
        for language in study.languages
    }
    if len(study.languages) > 1:
        groups[BOTH] = pooled(arm for some in groups.values() for arm in some)
        findings[BOTH] = [
            tuple(f for language in study.languages for f in result.asked[language].findings)
            for result in results
        ]
    body: dict[str, Any] = {
        "domain": study.domain,
        "base": configurations[0]["base"],
        "seeds": [result.study.seed for result in results],
        "study": configurations[0],
        "study_sha256": sum_of(configurations[0]),
        "fingerprints": {str(r.study.seed): dict(r.fingerprints) for r in results},
        "resamples": N_RESAMPLES,
        "cells": [],
        "differences": [],
        "finding": [],
        "lost": [],
    }
    for language in tqdm(groups, desc="intervals", disable=not bar, leave=False):
        own = groups[language]
        cells = summarize(own, n_resamples=N_RESAMPLES)
        body["cells"] += [{"language": language, **cell.as_json()} for cell in cells]
        body["differences"] += [{"language": language, **row} for row in _differences(own)]
        found = summarize_findings(findings[language], n_resamples=N_RESAMPLES)
        body["finding"] += [{"language": language, **cell.as_json()} for cell in found]
        body["lost"] += [{"language": language, **row.as_json()} for row in losses(own)]
    body["speed"] = [
        {
            "arm": name,
            "seconds": round(statistics.fmean(r.seconds for r in some), 5),
            "tokens": round(statistics.fmean(r.tokens for r in some), 1),
        }
        for name, some in _by_arm(arm for own in groups.values() for arm in own).items()
    ]
    body["costs"] = [_costs(result) for result in results]
    return body


def _without_seed(result: StudyResult) -> dict[str, Any]:
    """A study's values but for the seed; models by their names, wherever they lie."""
    values = result.study.as_json()
    del values["seed"]
    return values | {key: Path(values[key]).name for key in ("base", "encoder")}


def _by_arm(results: Iterable[ArmResult]) -> dict[str, list[ArmResult]]:
    groups: dict[str, list[ArmResult]] = {}
    for result in results:
        groups.setdefault(result.arm.name, []).append(result)
    return groups


def _differences(results: Sequence[ArmResult]) -> list[dict[str, Any]]:
    rows = []
    names = list(dict.fromkeys(result.arm.name for result in results))
    for (other, one), slice in itertools.product(
        itertools.combinations(names, 2), slices_of(results)
    ):
        right = paired_scores(results, one, other, slice)
        f1 = paired_scores(results, one, other, slice, "f1")
        rows.append(
            {
                "one": one,
                "other": other,
                "slice": slice,
                "right": _rounded(right.interval(0, N_RESAMPLES)),
                "by_seed": _rounded(right.by_seed),
                "f1": _rounded(f1.interval(0, N_RESAMPLES)),
            }
        )
    return rows


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _costs(result: StudyResult) -> dict[str, Any]:
    """What one world took: its fine-tunings, its collections, its weights."""
    return {
        "seed": result.study.seed,
        "finetune": {
            way: {key: report[key] for key in ("seconds", "tokens", "steps", "stopped")}
            for way, report in result.reports.items()
        },
        "collection": {
            language: {
                "documents": asked.collection.documents,
                "seconds": round(asked.collection.seconds, 2),
                "update_seconds": round(asked.collection.update, 4),
                "bytes": asked.collection.bytes,
            }
            for language, asked in result.asked.items()
        },
        "weights_bytes": dict(result.bytes),
    }


# ----------------------------------------------------------------------------------------- to read


def cells_of(body: Mapping[str, Any], language: str) -> list[Cell]:
    """The cells of one language (or of "both"), as they were before they became plain values."""
    return [_cell(cell) for cell in body["cells"] if cell["language"] == language]


def _cell(values: Mapping[str, Any]) -> Cell:
    own = {key: value for key, value in values.items() if key != "language"}
    own["right"], own["f1"] = Interval(*own["right"]), Interval(*own["f1"])
    own["by_seed"], own["f1_by_seed"] = tuple(own["by_seed"]), tuple(own["f1_by_seed"])
    return Cell(**own)


def languages_of(body: Mapping[str, Any]) -> list[str]:
    """The languages that were asked in, and "both" where there are two."""
    return list(dict.fromkeys(cell["language"] for cell in body["cells"]))


def markdown(body: Mapping[str, Any]) -> str:
    """All of it as tables."""
    n = max(cell["n"] for cell in body["cells"] if cell["language"] != BOTH)
    seeds = ", ".join(map(str, body["seeds"]))
    parts = [
        f"# {_counted_arms(body)}: {body['domain']}, {body['base']}",
        f"Worlds {seeds}; up to {n} questions a slice and language in each. In brackets: 95 % "
        "bootstrap intervals: seeds are resampled, then questions, those about one fact (in two "
        "languages) together. With three worlds, read an interval as 'all worlds agree'.",
        *_about_mixed(body),
    ]
    for language in languages_of(body):
        cells = cells_of(body, language)
        parts += [
            f"## {_title(language)}",
            "Exact match (a right refusal counts):",
            as_table(cells),
            "Token F1:",
            as_table(cells, "f1"),
            "Exact match in each world:",
            _seeds_table(cells, body["seeds"]),
            "Differences in exact match, paired by question:",
            _differences_table(body, language),
            "Where answers are lost:",
            losses_table(
                [
                    Losses(**{k: v for k, v in row.items() if k != "language"})
                    for row in body["lost"]
                    if row["language"] == language and row["right"] < 1
                ]
            ),
            "Retrieval without reading:",
            _finding_table(body, language),
        ]
    parts += ["## Costs", _speed_table(body), _costs_table(body)]
    return "\n\n".join(parts) + "\n"


def _about_mixed(body: Mapping[str, Any]) -> list[str]:
    """What the mixed slice can show, by what its upper bound reaches."""
    bound = [
        cell["right"][0]
        for cell in body["cells"]
        if (cell["arm"], cell["slice"]) == (BASE_RIGHT.name, MIXED)
    ]
    if not bound:
        return []
    return [
        "*Mixed* questions need a passage and a fact of general knowledge. With the right passage "
        f"the base, which has forgotten nothing, answers {100 * max(bound):.1f} % of them: no arm "
        "can show that it has forgotten more than that."
    ]


def _title(language: str) -> str:
    return {"en": "English", "es": "Spanish", BOTH: "Both languages"}[language]


def _counted_arms(body: Mapping[str, Any]) -> str:
    """How many ways to answer were asked; what only bounds them is no arm."""
    asked = {cell["arm"] for cell in body["cells"]}
    arms = asked & {arm.name for arm in ARMS}
    diagnostics = len(asked - arms)
    return f"{len(arms)} arms" + (f" and {diagnostics} diagnostics" if diagnostics else "")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(values: Sequence[float], form: str = ".3f") -> str:
    value, low, high = (format(x, form) for x in values)
    return f"{value} [{low}, {high}]"


def _seeds_table(cells: Sequence[Cell], seeds: Sequence[int]) -> str:
    rows = [[c.arm, c.slice, *(f"{share:.3f}" for share in c.by_seed)] for c in cells]
    return _table(["arm", "slice", *(f"world {seed}" for seed in seeds)], rows)


def _differences_table(body: Mapping[str, Any], language: str) -> str:
    rows = [
        [f"{d['one']} − {d['other']}", d["slice"], _interval(d["right"], "+.3f")]
        + [f"{share:+.3f}" for share in d["by_seed"]]
        for d in body["differences"]
        if d["language"] == language and (d["one"], d["other"]) in _TOLD
    ]
    header = ["arms", "slice", "difference", *(f"world {seed}" for seed in body["seeds"])]
    return _table(header, rows)


def _finding_table(body: Mapping[str, Any], language: str) -> str:
    rows = [row for row in body["finding"] if row["language"] == language]
    ks = range(1, 1 + max((len(row["recall"]) for row in rows), default=0))
    return _table(
        ["slice", *(f"recall@{k}" for k in ks), "answer in the first"],
        [
            [row["slice"], *map(_interval, row["recall"]), _interval(row["in_first"])]
            for row in rows
        ],
    )


def _speed_table(body: Mapping[str, Any]) -> str:
    return _table(
        ["arm", "ms per answer", "tokens read per answer"],
        [
            [row["arm"], f"{1e3 * row['seconds']:.1f}", f"{row['tokens']:.0f}"]
            for row in body["speed"]
        ],
    )


def _costs_table(body: Mapping[str, Any]) -> str:
    rows = []
    for cost in body["costs"]:
        world = f"world {cost['seed']}"
        for way, run in cost["finetune"].items():
            rows.append([world, f"fine-tuning, {way}", f"{run['seconds']:.0f} s"])
        for language, made in cost["collection"].items():
            what = f"{made['documents']} documents ({language})"
            rows += [
                [world, f"indexing {what}", f"{made['seconds']:.1f} s"],
                [world, f"updating one of {what}", f"{1e3 * made['update_seconds']:.0f} ms"],
                [world, f"the knowledge base of {what}", f"{made['bytes'] / 1e6:.2f} MB"],
            ]
        for name, size in cost["weights_bytes"].items():
            rows.append([world, f"weights of {name} in memory", f"{size / 1e6:.2f} MB"])
    return _table(["", "what", "cost"], rows)
