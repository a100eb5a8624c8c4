"""The scores of a finished model, as they stand in its card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from minirag.corpus.general import well_known
from minirag.corpus.grammar import LANGUAGES
from minirag.files import write_text_atomically
from minirag.text.tokenizer import Tokenizer
from minirag.training.card import SCORES, save_card
from minirag.training.evaluate_masking import masked_accuracy, probe_scores
from minirag.training.evaluate_reading import Score, evaluate_reading, reading_tests
from minirag.training.weights import seal
from minirag.transformer.checkpoints import load
from minirag.transformer.models import Encoder

REPORT_SEED = 1001  # of the worlds that the model card reports: nothing is chosen by them


def report(directory: Path, questions: int, languages: Sequence[str] = LANGUAGES) -> list[Score]:
    """Test a finished model as it lies on the disk; write its scores, card and checksums."""
    model, tokenizer = load(directory), Tokenizer.load(directory)
    if isinstance(model, Encoder):
        scores = masked_accuracy(model, tokenizer, REPORT_SEED, questions, languages)
        scores += probe_scores(model, tokenizer, REPORT_SEED)
    else:
        tests = reading_tests(REPORT_SEED, questions, languages)
        scores = evaluate_reading(model, tokenizer, tests)
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


def well_known_fingerprint() -> str:
    """SHA-256 of the facts that a model learns by heart: changed, its weights know the old ones."""
    facts = [
        (entity.name.en.text, key, value.en.text, value.es.text)
        for entity in well_known()
        for key, value in entity.facts.items()
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
