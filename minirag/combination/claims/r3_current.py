"""R3: is retrieval current after an update, and what does the same cost a model's weights?

The documents that have changed are changed in the knowledge base, and the next question sees them.
To the same effect, the reader that knows its facts by heart is trained again: it goes on from where
it is, with nothing but the facts that have changed, which is the cheapest way there is (what it
loses of the others is told, too). Longer and longer trainings are tried until one answers as well
as retrieval; if none does, the longest stands for the least that it would take.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minirag.combination.claims import answers
from minirag.combination.claims.answers import AS_WELL, Ahead, Answering
from minirag.combination.ledger import Claim, Planned, Says, Verdict, checksum, wordings
from minirag.combination.study import Study
from minirag.combination.workbench import Workbench
from minirag.corpus.questions import Question, ReadingExercise
from minirag.corpus.slices import slice_questions
from minirag.finetuning.base import Base
from minirag.finetuning.config import FineTuneConfig
from minirag.finetuning.data import FineTuneData
from minirag.finetuning.finetune import finetune
from minirag.finetuning.laboratory import laboratory_data
from minirag.intervals import Interval
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import answer_exercises
from minirag.transformer.models import Decoder, EncoderDecoder

_TOLD = ("stable", "updated")  # slices
_TOKENS_A_SECOND = 10_000  # on two cores; for the plan alone
_VERSION = 2


@dataclass(frozen=True)
class Settings(Answering):
    """R3's."""

    # tokens of a training; the first are meant to be too few, so that the least is found
    lengths: tuple[int, ...] = (9_000, 18_000, 37_500, 75_000, 150_000, 300_000, 600_000)


def plan(settings: Settings) -> list[Planned]:
    """The trainings, if all of them are needed."""
    n = len(settings.seeds) * len(settings.lengths)
    seconds = statistics.fmean(settings.lengths) / _TOKENS_A_SECOND + 60
    return [answers.planned_worlds(settings), Planned("training again, at most", n, seconds)]


def run(settings: Settings, bench: Workbench) -> Verdict:
    """Is it current, and is it cheaper?"""
    worlds = answers.worlds(bench, settings)
    current = answers.weighed(
        worlds.results, Ahead("RAFT + RAG", "RAFT + RAG", "fine-tuned", ("updated",))
    )
    seeds = [
        _seed(bench, settings, seed, _score(worlds, seed), costs)
        for seed, costs in zip(settings.seeds, worlds.costs, strict=True)
    ]
    quotient = answers.row(
        "seconds of training again over seconds of updating",
        [[seed["last training tried"] / seed["updating all"]] for seed in seeds],
        1.0,
    )
    least = math.floor(min(seed["last training tried"] / seed["updating one"] for seed in seeds))
    times = Interval(*quotient["value"])
    reached = sum(seed["reached"] for seed in seeds)
    one, every, again = (
        statistics.fmean(seed[key] for seed in seeds)
        for key in ("updating one", "updating all", "last training tried")
    )
    return Verdict(
        *judge(current["so"], quotient["so"], least),
        f"On updated facts RAFT + RAG is {answers.in_points(current)} ahead of the reader that is "
        f"left as it was. Updating {seeds[0]['documents']} documents takes {every:.1f} s "
        f"({1000 * one:.0f} ms each), training again {again:.1f} s; it came to the same score in "
        f"{reached} of {len(seeds)} worlds.",
        times,
        "seconds of training again over seconds of updating all that has changed",
        {"current": current, "quotient": quotient, "seeds": seeds},
    )


def judge(current: bool, cheaper: bool, documents: int) -> tuple[Says, str]:
    """The rule; up to so many documents, updating is the cheaper one in every world."""
    if not current:
        return "does not hold", ""
    if cheaper:
        return "holds", ""
    if documents < 1:
        return "does not hold", ""
    return "holds only when", f"at most {documents} documents have changed"


def _score(worlds: answers.Worlds, seed: int) -> dict[str, float]:
    """Exact match on updated facts: of RAFT + RAG, and of the reader as it was."""
    return {
        result.arm.name: statistics.fmean(outcome.right for outcome in result.of("updated"))
        for result in worlds.results
        if result.seed == seed and result.arm.name in ("RAFT + RAG", "fine-tuned")
    }


def _seed(
    bench: Workbench,
    settings: Settings,
    seed: int,
    score: dict[str, float],
    costs: dict[str, Any],
) -> dict[str, Any]:
    """Longer and longer trainings in one world, until one answers as well as retrieval."""
    study, update = answers.study_of(settings, seed), costs["updating one document"]
    documents = len(study.world().group("updated")) * len(study.languages)
    tried = []
    for tokens in settings.lengths:
        outcome = _again(bench, study, tokens)
        tried.append({"tokens": tokens, **outcome})
        if outcome["updated"] >= score["RAFT + RAG"] + AS_WELL:
            break
    return {
        "seed": seed,
        "documents": documents,
        "updating one": update,
        "updating all": documents * update,
        "learning everything at first": costs["fine-tuning"]["closed-book"],
        "last training tried": tried[-1]["seconds"],
        "reached": tried[-1]["updated"] >= score["RAFT + RAG"] + AS_WELL,
        "score": score,
        "tried": tried,
    }


def _again(bench: Workbench, study: Study, tokens: int) -> dict[str, Any]:
    """Train the study's closed-book reader on what has changed; its scores then."""
    config = config_for(study, tokens)

    def work() -> dict[str, Any]:
        base = Base.load(study.base)
        learned = answers.reader_of(bench, study, base, "closed-book")
        report = finetune(
            Base("by heart", learned.model, base.tokenizer),
            changed_facts(study),
            config,
            machine=bench.machine,
            bar=bench.bar,
        )
        assert isinstance(report.model, Decoder | EncoderDecoder)  # as the base
        return {"seconds": report.seconds, **_scores(study, report.model, base.tokenizer)}

    decides = {
        "version": _VERSION,
        "study": {**study.as_json(), "base": checksum(study.base), "encoder": ""},
        "config": config.as_json(),
        "wordings": wordings(),
    }
    return bench.piece(f"again-{Path(study.base).name}-{study.seed}", decides, work)


def config_for(study: Study, tokens: int) -> FineTuneConfig:
    """By the recipe, but so many tokens and no validation."""
    recipe = study.recipe("closed-book")
    steps = max(1, tokens // recipe.tokens_per_batch)
    return dataclasses.replace(
        recipe, epochs=steps, max_steps=steps, validate_every=0, patience=None, checkpoint_every=0
    )


def changed_facts(study: Study) -> FineTuneData:
    """The questions for those facts that have changed, with the answers of now."""
    world = study.world()
    records = tuple(
        dataclasses.replace(record, entity=record.current, revision=None, revised=None)
        for record in world.records
    )
    what = dataclasses.replace(study.laboratory("closed-book"), questions=1, questions_on_the_way=1)
    before = set(laboratory_data(what, world).train)
    now = laboratory_data(what, dataclasses.replace(world, records=records))
    changed = [exercise for exercise in now.train if exercise not in before]
    return dataclasses.replace(now, name="what has changed", train=changed, laboratory=None)


def _scores(
    study: Study, model: Decoder | EncoderDecoder, tokenizer: Tokenizer
) -> dict[str, float]:
    """Exact match without passages, on the study's own questions, both languages together."""
    world = study.world()
    scores: dict[str, list[float]] = {slice: [] for slice in _TOLD}
    for language in study.languages:
        asked = slice_questions(world, language, study.questions, slices=_TOLD)
        for slice, questions in asked.items():
            exercises = [
                ReadingExercise((), (Question(q.text, q.answer, None, q.attribute),), language, "")
                for q in questions
            ]
            answered = answer_exercises(model, tokenizer, exercises)
            scores[slice] += [float(answer.right) for answer in answered]
    return {slice: statistics.fmean(right) for slice, right in scores.items()}


def draw(figure: Any, results: dict[str, Any]) -> None:
    """Score on updated facts over the seconds spent; each world a line."""
    axes = figure.subplots()
    seeds: Sequence[dict[str, Any]] = results["seeds"]
    for number, seed in enumerate(seeds):
        tried, first = seed["tried"], number == 0
        axes.plot(
            [one["seconds"] for one in tried], [one["updated"] for one in tried], "o-",
            color="#e69f00", label="training again on what has changed" if first else None,
        )  # fmt: skip
        axes.plot(
            seed["updating all"], seed["score"]["RAFT + RAG"], "s", color="#0072b2",
            label="updating every document that has changed" if first else None,
        )  # fmt: skip
    axes.set(
        xscale="log", xlabel="seconds spent", ylim=(-0.02, 1.03),
        ylabel="exact match on updated facts",
    )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left")


CLAIM = Claim(
    id="R3",
    sentence="With retrieval, answers are current as soon as the documents are; to train the "
    "change into the weights takes longer.",
    rule="Answers are current if, on updated facts, RAFT + RAG is ahead of the fine-tuned reader "
    "as it was (95 % interval of the paired difference above 0), else it does not hold. It holds "
    "if training again, until that reader is at most 3 points behind RAFT + RAG, takes more "
    "seconds than updating all documents that have changed (interval over seeds of the quotient "
    "above 1); only when, for so few changed documents (one at least) that updating takes less in "
    "every world. Where no training that is tried comes that near, the longest counts.",
    version=_VERSION,
    full=Settings(),
    reduced=Settings(answers.REDUCED.seeds, study=answers.REDUCED.study, lengths=(4096, 8192)),
    plan=plan,
    run=run,
    draw=draw,
    size=(7.0, 4.2),
)
