"""The scores of a finished model, as they stand in its card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from minirag.corpus.general import well_known
from minirag.corpus.grammar import LANGUAGES
from minirag.errors import DataError
from minirag.files import write_text_atomically
from minirag.text.tokenizer import Tokenizer
from minirag.training.card import SCORES, TRAINING, learned_languages, save_card
from minirag.training.evaluate_masking import masked_accuracy, probe_scores
from minirag.training.evaluate_reading import Score, evaluate_reading, reading_tests
from minirag.training.weights import seal
from minirag.transformer.checkpoints import load
from minirag.transformer.models import Encoder

REPORT_SEED = 1001  # of the worlds that the model card reports: nothing is chosen by them


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
        return learned_languages(json.loads(path.read_text("utf-8"))["recipe"])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path} does not tell what the model has learned ({error}).") from error


def base_scores(
    directory: Path,
    seed: int,
    questions: int,
    languages: Sequence[str] = LANGUAGES,
    *,
    progress: bool = False,
) -> list[Score]:
    """What a pretrained model of the laboratory can do in the worlds of a seed.

    Parameters
    ----------
    questions : int
        Of each test of a reader; texts of an encoder.
    progress : bool
        Show a bar on stderr while a reader is tested.
    """
    model, tokenizer = load(directory), Tokenizer.load(directory)
    if isinstance(model, Encoder):
        scores = masked_accuracy(model, tokenizer, seed, questions, languages)
        return scores + probe_scores(model, tokenizer, seed)
    tests = reading_tests(seed, questions, languages)
    bar = tqdm(tests, unit="test", disable=not progress, leave=False)
    return evaluate_reading(model, tokenizer, bar)


def well_known_fingerprint() -> str:
    """SHA-256 of the facts that a model learns by heart: changed, its weights know the old ones."""
    facts = [
        (entity.name.en.text, key, value.en.text, value.es.text)
        for entity in well_known()
        for key, value in entity.facts.items()
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
