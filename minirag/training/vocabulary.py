"""How large a vocabulary should be: what each size does to the text, before any training.

A large vocabulary makes sequences short, but a word of a domain that the base never saw then falls
into rare pieces or single letters; a small one knows syllables, of which any name consists.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from minirag.corpus.dice import Dice
from minirag.corpus.exercises import ExerciseMix, draw_exercise
from minirag.corpus.questions import ReadingExercise
from minirag.corpus.raft import domain_reading_set
from minirag.text.reading_format import reading_example
from minirag.training.recipes import Recipe
from minirag.training.run import train_tokenizer

SIZES = (512, 640, 1024, 2048, 4096)
_OFTEN = 20  # a piece that occurs less often in the sample has hardly been learned


def _text(exercise: ReadingExercise) -> str:
    return reading_example(exercise.passages, [(q.text, q.answer) for q in exercise.questions])


def _words(texts: Iterable[str]) -> Counter[str]:
    return Counter(word for text in texts for word in re.findall(r"[^\W\d_]+", text))


def compare_vocabularies(
    recipe: Recipe, sizes: Sequence[int] = SIZES, seed: int = 1, n: int = 1500
) -> list[dict[str, Any]]:
    """Train a tokenizer of each size and look at what it makes of the text.

    Returns
    -------
    One entry a size: tokens a word and an exercise; of the words of medicine and law that general
    text lacks, the share that falls into two or more pieces, all of them frequent in general text.
    """
    dice = Dice(seed, "vocabulary sample")
    mix = ExerciseMix(english=recipe.stages[-1].mix.english)
    general = [_text(draw_exercise(dice, mix)) for _ in range(n)]
    domain = [
        _text(exercise)
        for name, language in itertools.product(("medicine", "law"), recipe.languages)
        for exercise in domain_reading_set(name, seed, language, n // 10)
    ]
    seen = _words(general)
    foreign = sorted(word for word in _words(domain) if word not in seen)
    entries = []
    for size in sizes:
        tokenizer = train_tokenizer(dataclasses.replace(recipe, vocab_size=size))
        encoded = tokenizer.encode_batch(general, special=False)
        often = {
            token
            for token, count in Counter(itertools.chain.from_iterable(encoded)).items()
            if count >= _OFTEN
        }
        pieces = tokenizer.encode_batch([f" {word}" for word in foreign], special=False)
        known = sum(len(ids) >= 2 and often.issuperset(ids) for ids in pieces)
        n_tokens = sum(map(len, encoded))
        entries.append(
            {
                "vocab_size": size,
                "tokens_per_word": round(n_tokens / sum(seen.values()), 2),
                "tokens_per_exercise": round(n_tokens / len(general)),
                "longest_exercise": max(map(len, encoded)),
                "domain_words": len(foreign),
                "domain_words_in_known_pieces": round(known / len(foreign), 3),
                "pieces_per_domain_word": round(sum(map(len, pieces)) / len(foreign), 2),
            }
        )
    return entries
