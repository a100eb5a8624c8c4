"""The card of a fine-tuned reader says what its report says."""

from __future__ import annotations

import argparse
import json

import pytest
import small_bases

from minirag.cli.finetune import add_parser, config_of, given
from minirag.cli.runs import typed
from minirag.errors import DataError
from minirag.finetuning.base import Base, fingerprint
from minirag.finetuning.card import finetuning_card
from minirag.finetuning.config import RECIPES, FineTuneConfig, LaboratoryData
from minirag.finetuning.finetune import finetune
from minirag.training.weights import problems, weights_root

READERS = ("gpt-base-medicine-closed-book", "gpt-base-medicine-raft", "bart-base-medicine-raft")


@pytest.mark.parametrize("way", ["closed-book", "raft", "pretraining"])
def test_a_card_says_what_the_report_says(way: str, tmp_path) -> None:
    out = tmp_path / f"small-medicine-{way}"
    config = FineTuneConfig(
        max_steps=2, rest_weight=1.0, validate_every=0, rehearsal=0.25, tokens_per_batch=600
    )
    report = finetune(
        small_bases.base(), small_bases.data(way), config, out, command="minirag finetune --x"
    )
    card = (out / "README.md").read_text("utf-8")
    assert card == finetuning_card(out)
    assert problems(out) == []
    said = json.loads((out / "finetune.json").read_text("utf-8"))
    assert said["base_sha256"][:16] in card
    assert "`minirag finetune --x`, seed 0" in card
    assert "| stored as | float32, safetensors |" in card  # as this command saves them
    assert "25 % of the tokens are general exercises" in card
    assert (
        f"about {said['laboratory']['entities'] + said['laboratory']['changing']} entities" in card
    )
    assert report.processor_seconds > 0  # of two steps, rounded to 0 in the file, maybe
    assert said["processor_seconds"] == round(report.processor_seconds, 1)
    for part in ("domain", "general"):
        for then, now in zip(said["before"][part], said["after"][part], strict=True):
            (row,) = [line for line in card.splitlines() if line.startswith(f"| {now['name']} |")]
            assert f"| {now['n']} | {then['right'][0]:.3f} [" in row
            assert f"**{now['right'][0]:.3f}** [{now['right'][1]:.3f}" in row
    assert f"{said['after']['domain_perplexity']:.2f} |" in card  # of the rounded number
    assert "{" not in card


def test_a_report_without_what_a_card_says_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        finetuning_card(tmp_path)
    (tmp_path / "finetune.json").write_text('{"laboratory": null, "config": {}}')
    with pytest.raises(DataError, match="lacks what a model card says"):
        finetuning_card(tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("finetune --way raft --out DIR --resume --seed 3", "minirag finetune --way raft --seed 3"),
        ("finetune --out=DIR --json", "minirag finetune"),
    ],
)
def test_a_command_is_told_without_what_changes_no_result(given: str, said: str) -> None:
    assert typed(argparse.Namespace(arguments=given.split())) == said


@pytest.mark.parametrize("reader", READERS)
def test_a_shipped_readers_card_and_base_are_those_of_its_report(reader: str) -> None:
    directory = weights_root() / reader
    assert (directory / "README.md").read_text("utf-8") == finetuning_card(directory)
    assert problems(directory) == []
    report = json.loads((directory / "finetune.json").read_text("utf-8"))
    assert report["base_sha256"] == fingerprint(Base.load(report["base"]).model)
    what = LaboratoryData.from_json(report["laboratory"])
    assert reader == f"{report['base']}-{what.domain}-{what.way}"


@pytest.mark.parametrize("reader", [reader for reader in READERS if reader.endswith("raft")])
def test_the_command_of_a_shipped_reader_asks_for_what_it_was_made_by(reader: str) -> None:
    """Who types it today gets the configuration and the data of then, defaults included."""
    report = json.loads((weights_root() / reader / "finetune.json").read_text("utf-8"))
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(report["command"].split()[1:])
    assert args.base == report["base"]
    assert config_of(args, RECIPES[args.way]).as_json() == report["config"]
    typed = given(
        paraphrases=args.paraphrases, exercises=args.exercises, unanswerable=args.unanswerable
    )
    data = LaboratoryData(args.domain, args.way, questions=args.questions, **typed)
    assert data.as_json() == report["laboratory"]
