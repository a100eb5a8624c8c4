"""What more passages cost: the same answers whatever the room, every number in the table."""

import dataclasses

import pytest
import torch
from test_training_pretrain import TINY

from minirag.cli import bench_passages as bench
from minirag.cli.main import main
from minirag.corpus.exercises import reading_set
from minirag.errors import UsageError
from minirag.text.reading_format import reading_prompt
from minirag.text.tokenizer import Tokenizer
from minirag.training.evaluate_reading import answer_exercises
from minirag.training.run import train_tokenizer
from minirag.transformer.checkpoints import save
from minirag.transformer.models import Decoder, Encoder, EncoderDecoder


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    tokenizer = train_tokenizer(TINY)
    out = []
    for name, kind in (("short", "decoder"), ("apart", "encoder-decoder"), ("mute", "encoder")):
        recipe = dataclasses.replace(
            TINY, kind=kind, max_length=700, n_decoder_layers=int(kind == "encoder-decoder")
        )
        config = recipe.config(tokenizer)
        model = {"decoder": Decoder, "encoder": Encoder}.get(kind, EncoderDecoder)(config, seed=3)
        directory = tmp_path_factory.mktemp(name)
        save(model, directory, torch.float32)
        tokenizer.save(directory)
        out.append((name, directory))
    return out


def test_longer_than_its_context_and_the_same_answers_within_it(readers):
    costs = bench.bench_passages(readers[:2], counts=(1, 12), n=3, bar=False)
    assert [(c.reader, c.passages) for c in costs] == [
        ("short", 1), ("apart", 1), ("short", 12), ("apart", 12)
    ]  # fmt: skip
    exercises = reading_set(bench.REPORT_SEED, "en", 3, 12, held_out=False)
    tokenizer = Tokenizer.load(readers[0][1])
    lengths = [
        len(tokenizer.encode(reading_prompt(e.passages, e.questions[0].text), special=False))
        for e in exercises
    ]
    assert costs[2].tokens == pytest.approx(sum(lengths) / 3)
    assert costs[2].tokens > 700  # beyond its context as saved
    assert all(cost.n == 3 and cost.seconds > 0 for cost in costs)

    model = bench.load(readers[0][1])
    short = reading_set(1, "en", 4, 1)
    assert [a.answer for a in answer_exercises(model, tokenizer, short)] == [
        a.answer for a in answer_exercises(bench._with_room(model), tokenizer, short)
    ]


def test_an_encoder_is_no_reader(readers):
    with pytest.raises(UsageError, match="mute is an encoder"):
        bench.bench_passages(readers[2:], counts=(1,), n=1, bar=False)


def test_only_this_bench_draws(capsys):
    assert main(["bench", "search", "--picture", "x.png"]) == 64
    assert "`bench passages`" in capsys.readouterr().err
    assert main(["bench", "passages", "--picture", "x.xyz"]) == 64
    assert "--picture is x.xyz: pictures are written as PNG" in capsys.readouterr().err


def test_mistakes_are_told_by_what_was_typed(capsys):
    assert main(["bench", "search", "--threads", "0"]) == 64
    assert "--threads is 0: give 1 or more." in capsys.readouterr().err
    assert main(["bench", "passages", "--questions", "0"]) == 64
    assert "--questions is 0: give 1 or more." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", "fly"])
    assert "argument BENCH: invalid choice: 'fly'" in capsys.readouterr().err


def test_the_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    right = bench.wilson_interval(9, 10)
    costs = [bench.Cost("a", n, 10.0 * n, 0.01 * n, 10, right) for n in (1, 3)]
    bench.draw(costs, tmp_path / "cost.png")
    assert (tmp_path / "cost.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert costs[1].line().split() == ["a", "3", "30", "30.0", "0.900", "[0.596,", "0.982]"]
