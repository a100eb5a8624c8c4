"""The scores of a finished model, as they stand in its card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from minirag.corpus.exercises import reading_set, unanswerable_set
from minirag.corpus.general import well_known
from minirag.corpus.grammar import LANGUAGES
from minirag.corpus.questions import ReadingExercise
from minirag.errors import DataError
from minirag.files import write_text_atomically
from minirag.text.tokenizer import Tokenizer
from minirag.training.card import SCORES, TRAINING, save_card
from minirag.training.evaluate_masking import masked_accuracy, probe_scores
from minirag.training.evaluate_reading import Score, evaluate_reading, reading_tests
from minirag.training.refusing import RefusalQuestions, refuse_from
from minirag.training.weights import seal
from minirag.transformer.checkpoints import load
from minirag.transformer.models import Encoder

DEVELOPMENT_SEED = 1  # of the worlds that validation reads, and by which refusing is chosen
REPORT_SEED = 1001  # of the worlds that the model card reports: nothing is chosen by them

MOST_FALSE_REFUSALS = 0.04  # of the questions that passages answer, where refusing is chosen


def report(directory: Path, questions: int) -> list[Score]:
    """Test a finished model as it lies on the disk; write its scores, card and checksums."""
    scores = base_scores(directory, REPORT_SEED, questions, languages_of(directory))
    body = {
        "seed": REPORT_SEED,
        "interval": "95 % Wilson",
        "held_out_phrasings": True,
        "scores": [s.as_json() for s in scores],
    }
    write_text_atomically(directory / SCORES, json.dumps(body, indent=1) + "\n")
    save_card(directory)
    seal(directory)
    return scores


def languages_of(directory: Path) -> tuple[str, ...]:
    """The languages that a pretrained model has learned.

    Raises
    ------
    DataError
        If its ``training.json`` can't be read.
    """
    path = directory / TRAINING
    try:
        english = json.loads(path.read_text("utf-8"))["recipe"]["stages"][-1]["mix"]["english"]
        return tuple(code for code, share in (("en", english), ("es", 1 - english)) if share)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} does not tell what the model has learned ({error}).") from error


def base_scores(
    directory: Path, seed: int, questions: int, languages: Sequence[str] = LANGUAGES
) -> list[Score]:
    """What a pretrained model of the laboratory can do in the worlds of a seed.

    Parameters
    ----------
    questions : int
        Of each test of a reader; texts of an encoder.
    """
    model, tokenizer = load(directory), Tokenizer.load(directory)
    if isinstance(model, Encoder):
        scores = masked_accuracy(model, tokenizer, seed, questions, languages)
        return scores + probe_scores(model, tokenizer, seed)
    tests = reading_tests(seed, questions, languages)
    return evaluate_reading(model, tokenizer, tests, refuse_from(directory))


def refusal_questions(n: int, languages: Sequence[str] = LANGUAGES) -> RefusalQuestions:
    """By what it can be chosen when a pretrained reader refuses: phrased as in its training.

    Unless somebody does choose (``minirag calibrate --reader``), it refuses where no other
    beginning of an answer is likelier.

    Parameters
    ----------
    n : int
        Questions of a kind: with one and three passages, answerable or not, in each language.
    """

    def some(draw: Callable[..., list[ReadingExercise]]) -> list[ReadingExercise]:
        return [
            exercise
            for language in languages
            for k in (1, 3)
            for exercise in draw(DEVELOPMENT_SEED, language, n, k, held_out=False)
        ]

    return RefusalQuestions(
        DEVELOPMENT_SEED, some(reading_set), some(unanswerable_set), MOST_FALSE_REFUSALS
    )


def well_known_fingerprint() -> str:
    """SHA-256 of the facts that a model learns by heart: changed, its weights know the old ones."""
    facts = [
        (entity.name.en.text, key, value.en.text, value.es.text)
        for entity in well_known()
        for key, value in entity.facts.items()
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
