"""Measuring the map: each place's readers are fine-tuned once, and asked while the facts change.

The volatility changes the knowledge base alone. The readers have learned every entity as it was;
one share of the entities after the other is revised, the knowledge base follows, and all arms are
asked about what has changed and what has not, in just that proportion.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minirag.choosing.grid import SPECIALISATIONS, WAYS, Grid
from minirag.choosing.measured_map import Answering, Cell, MeasuredMap, Place, Training
from minirag.combination.arms import ARMS, ReaderName
from minirag.combination.collection import collection_documents, texts_of
from minirag.combination.compare import (
    LEAST_SHARED,
    PASSAGES,
    ArmResult,
    Readers,
    run_arms,
)
from minirag.combination.fine_tuned import FineTuned, fine_tuned
from minirag.combination.ledger import MISSING, checksum, wordings
from minirag.combination.study import RETRIEVER
from minirag.combination.workbench import Workbench
from minirag.corpus.slices import SliceQuestion, askable_facts, slice_questions
from minirag.corpus.world import Sizes, World, draw_world
from minirag.finetuning.base import Base, fingerprint
from minirag.finetuning.config import LaboratoryData, Way
from minirag.finetuning.data import FineTuneData
from minirag.finetuning.laboratory import laboratory_data
from minirag.intervals import clustered_bootstrap, clustered_share
from minirag.retrieval.knowledge_base import KnowledgeBase
from minirag.retrieval.retriever import TextEncoder
from minirag.text.documents import Document

_VERSION = 2  # of what an outcome depends on beside the grid: raise it with a change
_RESAMPLES = 2000  # of each interval: a map has hundreds
_UPDATES = 5  # documents whose change is timed, at each volatility

Tell = Callable[[str], None]


def measure(
    grid: Grid,
    base: Base,
    encoder: TextEncoder,
    cache: Path,
    bench: Workbench,
    *,
    command: str = "",
    tell: Tell = lambda _: None,
) -> Iterator[MeasuredMap]:
    """Measure what is not measured yet; gives the map of all seeds so far after each seed.

    Parameters
    ----------
    cache : Path
        Keeps fine-tuned readers; ``bench`` keeps what came of each place and seed.

    Raises
    ------
    ModelUnavailable, DiskError
        What was measured before is kept.
    """
    spots = list(itertools.product(grid.specialisations, grid.sizes))
    models = {"base": fingerprint(base.model), "encoder": encoder.fingerprint}
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {spot: [] for spot in spots}
    with bench.progress("the map", len(spots) * len(grid.seeds)):
        for number, seed in enumerate(grid.seeds, start=1):
            for specialisation, entities in spots:
                run = _Run(grid, specialisation, entities, seed, base, encoder, cache, bench, tell)
                runs[specialisation, entities].append(
                    bench.piece(
                        f"{specialisation}-{entities}-{seed}", run.decides(models), run.outcome
                    )
                )
            about = {
                "command": command,
                **grid.as_json(),
                "base": base.name,
                "seeds": list(grid.seeds[:number]),
                "machines": list(bench.machines),
                "weights": {
                    name: sum
                    for name in (base.name, encoder.name)
                    if (sum := checksum(name)) != MISSING
                },
            }
            yield MeasuredMap(about, _places(runs))


class _Run:
    """One place with the world of one seed."""

    def __init__(
        self,
        grid: Grid,
        specialisation: str,
        entities: int,
        seed: int,
        base: Base,
        encoder: TextEncoder,
        cache: Path,
        bench: Workbench,
        tell: Tell,
    ) -> None:
        self.grid, self.seed, self.base, self.encoder = grid, seed, base, encoder
        self.cache, self.bench, self.tell = cache, bench, tell
        sizes = Sizes(stable=0, unseen=0, updated=entities, new=0, unanswerable=0)
        wording = SPECIALISATIONS[specialisation]
        self.world = draw_world(grid.domain, seed, sizes, wording=wording)

    def decides(self, models: Mapping[str, str]) -> dict[str, Any]:
        """All that decides the outcome; what else the grid holds does not."""
        kept = {
            "volatilities",
            "questions",
            "tests",
            "language",
            "paraphrases",
            "exercises",
            "unanswerable",
        }
        return {
            "version": _VERSION,
            "models": dict(models),
            "retriever": RETRIEVER,
            "passages": PASSAGES,
            "least_shared": LEAST_SHARED,
            "wordings": wordings(),
            "world": [self.world.domain.name, self.world.wording, self.seed],
            "entities": len(self.world.records),
            "grid": {key: value for key, value in self.grid.as_json().items() if key in kept},
            "recipes": {
                way: self.grid.recipe(way, self.grid.exercises, self.seed).as_json() for way in WAYS
            },
        }

    def outcome(self) -> dict[str, Any]:
        """Fine-tune both readers, then ask at every volatility; plain values."""
        base = self.base.model.to(self.bench.machine.device)
        readers, training, perplexity = Readers(self.base.tokenizer, {"base": base}), {}, 0.0
        for way in WAYS:
            data = self._data(way)
            made = self._reader(way, data)
            name: ReaderName = "closed-book" if way == "closed-book" else "raft"
            readers.models[name] = made.model
            training[name] = _training(data, made.report)
            perplexity = made.report["before"]["domain_perplexity"]
        return {"perplexity": perplexity, "training": training, **self._ask(readers)}

    def _data(self, way: Way) -> FineTuneData:
        grid = self.grid
        what = LaboratoryData(
            domain=grid.domain,
            way=way,
            languages=(grid.language,),
            world_seed=self.seed,
            paraphrases=grid.paraphrases,
            exercises=grid.exercises,
            unanswerable=grid.unanswerable,
            questions=grid.tests,
            questions_on_the_way=grid.tests,
        )
        # It learns from the world given here, which is not one that these values would draw.
        return dataclasses.replace(laboratory_data(what, self.world), laboratory=None)

    def _reader(self, way: Way, data: FineTuneData) -> FineTuned:
        config = self.grid.recipe(way, len(data.train), self.seed)
        place, bench = self.cache / "readers", self.bench
        return fine_tuned(self.base, data, config, place, bench.machine, tell=self.tell)

    def _ask(self, readers: Readers) -> dict[str, Any]:
        """Let the world change, the knowledge base follow, and every arm answer."""
        knowledge = KnowledgeBase(self.encoder)
        began = time.perf_counter()
        knowledge.add(self._documents(self.world.revised_so_far(0)))
        knowledge.retriever(RETRIEVER)  # words are counted when they are first searched
        index_seconds = time.perf_counter() - began
        updates: list[float] = []
        cells = []
        for volatility in sorted(self.grid.volatilities):
            now = self.world.revised_so_far(volatility)
            updates += _follow(knowledge, self._documents(now))
            results = run_arms(
                ARMS,
                readers,
                self._questions(now, volatility),
                knowledge.retriever(RETRIEVER),
                texts_of(knowledge),
                seed=self.seed,
            )
            cells.append({"volatility": volatility, "arms": {r.arm.name: _arm(r) for r in results}})
        return {
            "index_seconds": index_seconds,
            "update_seconds": statistics.median(updates),
            "cells": cells,
        }

    def _documents(self, world: World) -> list[Document]:
        return collection_documents(world, self.grid.language, general=False)

    def _questions(self, world: World, volatility: float) -> dict[str, list[SliceQuestion]]:
        """About what has changed and what has not, in the volatility's proportion.

        What is asked at one volatility is, for the most part, asked at the next, as long as it is
        true: the scores differ by what has changed more than by the draw of questions.
        """
        revised = {record.id for record in world.group("updated")}
        changed = round(volatility * self.grid.questions)
        before, after = self._every_question
        stable = [q for q in before if q.document not in revised]
        return {
            "updated": [q for q in after if q.document in revised][:changed],
            "stable": stable[: self.grid.questions - changed],
        }

    @functools.cached_property
    def _every_question(self) -> tuple[list[SliceQuestion], list[SliceQuestion]]:
        """About every fact before any has changed, and about every change; in random order."""
        return self._all_of(0.0, "stable"), self._all_of(1.0, "updated")

    def _all_of(self, volatility: float, slice: str) -> list[SliceQuestion]:
        world = self.world.revised_so_far(volatility)
        n = len(askable_facts(world, slice))
        return slice_questions(world, self.grid.language, n, slices=(slice,))[slice]


def _follow(knowledge: KnowledgeBase, documents: Sequence[Document]) -> list[float]:
    """Bring a knowledge base up to date; gives the seconds until single changes were found."""
    changed = [d for d in documents if knowledge.document(d.id).text != d.text]
    seconds = []
    for document in changed[:_UPDATES]:
        began = time.perf_counter()
        knowledge.change(document)
        knowledge.retriever(RETRIEVER).search(document.title, PASSAGES)
        seconds.append(time.perf_counter() - began)
    knowledge.upsert(changed[_UPDATES:])
    return seconds


def _training(data: FineTuneData, report: Mapping[str, Any]) -> dict[str, Any]:
    """What a fine-tuning took; of an epoch that was not finished, its share of the questions."""
    epochs = report["steps"] / report["epoch_steps"]
    questions = sum(len(exercise.questions) for exercise in data.train)
    return {
        "seconds": report["seconds"],
        "tokens": report["tokens"],
        "labelled": round(min(1.0, epochs) * questions),
        "repetitions": max(1.0, epochs),
        "stopped": report["stopped"],
    }


def _arm(result: ArmResult) -> dict[str, Any]:
    return {
        "right": "".join(str(int(outcome.right)) for outcome in result.outcomes),
        "seconds": result.seconds,
        "tokens": result.tokens,
    }


# ----------------------------------------------------------------------------- from runs to the map


def _places(runs: Mapping[tuple[str, int], Sequence[dict[str, Any]]]) -> tuple[Place, ...]:
    return tuple(_place(*spot, some) for spot, some in runs.items())


def _place(specialisation: str, entities: int, runs: Sequence[Mapping[str, Any]]) -> Place:
    """What the seeds of one place say together."""

    def mean(key: str) -> float:
        return statistics.fmean(run[key] for run in runs)

    def middle(arm: str, key: str) -> float:
        """Mean over seeds of the median over cells."""
        return statistics.fmean(
            statistics.median(cell["arms"][arm][key] for cell in run["cells"]) for run in runs
        )

    return Place(
        specialisation,
        entities,
        mean("perplexity"),
        {
            reader: _mean_training([run["training"][reader] for run in runs])
            for reader in runs[0]["training"]
        },
        {a.name: Answering(middle(a.name, "seconds"), middle(a.name, "tokens")) for a in ARMS},
        mean("index_seconds"),
        mean("update_seconds"),
        tuple(_cell(cells) for cells in zip(*(run["cells"] for run in runs), strict=True)),
    )


def _mean_training(costs: Sequence[Mapping[str, Any]]) -> Training:
    def mean(key: str) -> float:
        return statistics.fmean(cost[key] for cost in costs)

    return Training(
        mean("seconds"),
        mean("tokens"),
        round(mean("labelled")),
        mean("repetitions"),
        tuple(cost["stopped"] for cost in costs),
    )


def _cell(cells: Sequence[Mapping[str, Any]]) -> Cell:
    """One volatility: each arm's exact match and every paired difference, over the seeds."""
    right = {
        arm.name: [[float(mark) for mark in cell["arms"][arm.name]["right"]] for cell in cells]
        for arm in ARMS
    }
    differences = []
    for one, other in itertools.combinations(right, 2):
        paired = [
            [a - b for a, b in zip(first, second, strict=True)]
            for first, second in zip(right[one], right[other], strict=True)
        ]
        differences.append((one, other, clustered_bootstrap(paired, 0, _RESAMPLES)))
    return Cell(
        cells[0]["volatility"],
        len(right[ARMS[0].name][0]),
        {arm: clustered_share(runs, 0, _RESAMPLES) for arm, runs in right.items()},
        {arm: tuple(statistics.fmean(run) for run in runs) for arm, runs in right.items()},
        tuple(differences),
    )
