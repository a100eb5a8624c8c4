"""Chunking: nothing lost, nothing longer than the encoder reads, cuts where a reader pauses."""

from itertools import pairwise

import pytest
import tokenizers
from fake_encoder import WordTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from minirag.errors import UsageError
from minirag.text.chunking import chunk, passage_text_for_encoder, sections
from minirag.text.documents import Document
from minirag.text.report import Report
from minirag.text.tokenizer import Tokenizer


def word_piece():
    """BERT's kind of tokenizer, with a vocabulary of letters and a few words."""
    letters = "abcdefghijklmnopqrstuvwxyzñáéíóú0123456789.,;:!?#>-()\"'"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "row", "first", "freeze", "##ing", "word"]
    vocabulary = [*words, *letters, *(f"##{letter}" for letter in letters)]
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({t: i for i, t in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    backend.normalizer = tokenizers.normalizers.BertNormalizer()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return Tokenizer(backend)


def byte_level():
    """GPT-2's kind: rare characters are several tokens, and a leading space belongs to the word."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "w"), ("o", "r"), ("Ġw", "or"), ("Ġwor", "d"), ("h", "e"), ("t", "he")]
    tokens = [*alphabet, *("".join(pair) for pair in merges)]
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, merges)
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return Tokenizer(backend)


TOKENIZERS = {"words": WordTokenizer(), "WordPiece": word_piece(), "byte-level": byte_level()}


def check_laws(document, passages, tokenizer, size, report):
    text = document.text
    covered = bytearray(len(text))
    for passage in passages:
        assert passage.text == text[passage.start : passage.end] != ""
        assert passage.text == passage.text.strip()
        assert passage.id == f"{document.id}#{passage.start}-{passage.end}"
        assert passage.document_id == document.id
        covered[passage.start : passage.end] = b"\1" * (passage.end - passage.start)
    assert [c for c, seen in zip(text, covered, strict=True) if not seen and not c.isspace()] == []
    lengths = tokenizer.encode_batch([passage_text_for_encoder(p) for p in passages])
    too_long = {p.id for p, ids in zip(passages, lengths, strict=True) if len(ids) > size}
    assert too_long == {n.name for n in report.notes if "heading" not in n.what}
    starts, ends = [p.start for p in passages], [p.end for p in passages]
    assert starts == sorted(set(starts))  # ever onwards
    assert ends == sorted(set(ends))


WORDS = ["the", "word", "freeze", "freezing", "first", "row.", "supercalifragilistic", "¿qué?"]
ODDITIES = ["日本語。", "😀", "é", "\u200b", "\x07", "\t", "-", "e.g.", "\u3000"]
BREAKS = ["\n\n", " \n\n# A \n\n", "\n\n## B\n\n", "\n- item", "\n```\n", "\nUnder\n===\n"]
words = st.sampled_from([*WORDS, *ODDITIES, *BREAKS])
texts = st.lists(words | st.text(max_size=5), max_size=120).map(" ".join)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(
    text=texts,
    title=st.text(max_size=40),
    size=st.integers(10, 60),
    share=st.floats(0, 0.5),
    suffix=st.sampled_from([".md", ".txt"]),
)
def test_laws_hold_for_any_text(kind, text, title, size, share, suffix):
    tokenizer, report = TOKENIZERS[kind], Report()
    document = Document(f"d{suffix}", text, title)
    passages = chunk(document, tokenizer, size=size, overlap=int(size * share), report=report)
    check_laws(document, passages, tokenizer, size, report)
    for passage in passages:  # no passage lies in two sections
        inside = [s for s in sections(document) if s.start <= passage.start < s.end]
        assert passage.end <= inside[0].end


def test_a_text_that_fits_is_one_passage_without_the_space_around_it():
    document = Document("d.txt", "\n\n The first row. \n", "Rows")
    (passage,) = chunk(document, word_piece(), size=20, overlap=5)
    assert (passage.text, passage.heading) == ("The first row.", "Rows")
    assert passage_text_for_encoder(passage) == "Rows\nThe first row."


def test_size_counts_special_tokens_and_heading():
    text = "one two three four five six seven eight nine ten"
    for title, size, n in [("", 12, 1), ("", 11, 2), ("A title", 14, 1), ("A title", 13, 2)]:
        passages = chunk(Document("d.txt", text, title), WordTokenizer(), size=size)
        assert len(passages) == n, (title, size)


def test_boundaries_are_preferred_in_order():
    def cut(text):
        return [p.text for p in chunk(Document("d.txt", text), WordTokenizer(), size=12)]

    # Room for 10 tokens; the best boundary in the second half of the passage is taken.
    assert cut("a b. c d e f\n\ng h. i j k l m") == ["a b. c d e f", "g h. i j k l m"]
    assert cut("a b c d e f. g h i j k l m") == ["a b c d e f.", "g h i j k l m"]
    assert cut("a b c d e f\ng h i j k l m") == ["a b c d e f", "g h i j k l m"]
    assert cut("a b c d e f g h i j k l m") == ["a b c d e f g h i j", "k l m"]
    assert cut("a-b-c-d-e-f-g-h") == ["a-b-c-d-e-", "f-g-h"]
    assert cut("a b c d “e.” H i j k") == ["a b c d “e.”", "H i j k"]


def test_overlap_begins_at_a_sentence_else_at_a_word_and_is_never_larger():
    def cut(text, overlap):
        document = Document("d.txt", text)
        return [p.text for p in chunk(document, WordTokenizer(), size=12, overlap=overlap)]

    text = "a b c d e. f g h. i j k l m n"
    assert cut(text, 0) == ["a b c d e. f g h.", "i j k l m n"]
    assert cut(text, 4) == ["a b c d e. f g h.", "f g h. i j k l m n"]
    assert cut(text, 3) == ["a b c d e. f g h.", "g h. i j k l m n"]
    assert cut("a b c d e。-f g. h i j k l m n", 3) == ["a b c d e。-f g.", "g. h i j k l m n"]
    # Half of a passage at most is repeated: here the last three tokens would be the whole of it.
    assert cut("an-endlessly-long-start. b c d e f g h", 5)[1] == "long-start. b c d e f g"
    assert cut("anendlesslylongstart. b c d e f g h i j", 5)[1] == ". b c d e f g h i j"
    for overlap in range(6):
        passages = chunk(
            Document("d.txt", "word " * 100), WordTokenizer(), size=12, overlap=overlap
        )
        shared = [(a.end - b.start + 1) // 5 for a, b in pairwise(passages)]
        assert set(shared) == {overlap}


MARKDOWN = """Preamble.

# Guide

Intro.

## Rows

### Freezing

Freeze it.

```
# a comment
```

## Columns

Hide it.

## See also
"""


def test_sections_carry_their_heading_path():
    document = Document("guide.md", MARKDOWN, "Guide")
    assert [(p.heading, p.text) for p in chunk(document, WordTokenizer(), size=60)] == [
        ("Guide", "Preamble."),
        ("Guide", "# Guide\n\nIntro."),
        (
            "Guide > Rows > Freezing",
            "## Rows\n\n### Freezing\n\nFreeze it.\n\n```\n# a comment\n```",
        ),
        ("Guide > Columns", "## Columns\n\nHide it."),
        ("Guide > See also", "## See also"),
    ]
    plain = Document("guide.txt", MARKDOWN, "Guide")
    assert {p.heading for p in chunk(plain, WordTokenizer(), size=60)} == {"Guide"}
    renamed = Document("guide.md", MARKDOWN, "Another title")
    assert chunk(renamed, WordTokenizer(), size=60)[2].heading == (
        "Another title > Guide > Rows > Freezing"
    )


def test_a_heading_that_is_too_long_is_shortened_and_said():
    report = Report()
    document = Document("d.txt", "word " * 50, "title " * 90 + "end")
    passages = chunk(document, WordTokenizer(), size=32, report=report)
    assert {p.heading for p in passages} == {"title " * 9 + "end"}  # a third of 30
    assert [(n.name, n.kind) for n in report.notes] == [("d.txt", "truncated")]
    check_laws(document, passages, WordTokenizer(), 32, report)


def test_what_can_not_fit_is_counted():
    class Greedy(WordTokenizer):
        def encode_batch(self, texts):  # whatever it is given, it makes fifty of it
            return [[0] * 50 for _ in texts]

    report = Report()
    passages = chunk(Document("d.txt", "a b c d"), Greedy(), size=20, report=report)
    assert [p.text for p in passages] == ["a", "b", "c", "d"]
    assert report.count("truncated") == 4
    assert str(report.notes[0]) == "d.txt#0-1 has 50 tokens; an encoder reads the first 20"


def test_space_behind_the_last_token_costs_nothing():
    # The eighth token is the full stop; byte-level tokens take the space before them.
    document = Document("d.txt", "aaaaa b. ccc")
    assert [p.text for p in chunk(document, byte_level(), size=8)] == ["aaaaa b.", "ccc"]


def test_characters_of_many_tokens_do_not_stop_the_cutting():
    # Six tokens of room, three of overlap, and a character of four tokens at the border.
    passages = chunk(Document("d.txt", "abcdef😀😀", "t"), byte_level(), size=8, overlap=4)
    assert [p.text for p in passages] == ["abcdef", "😀", "😀"]

    class ThreeEach(WordTokenizer):
        def offsets(self, text):
            spans = [(i, i + 1) for i in range(len(text)) for _ in range(3)]
            return [0] * len(spans), spans

        def encode_batch(self, texts):  # too long, however short: the room shrinks to one token
            return [[0] * 50 for _ in texts]

    passages = chunk(Document("d.txt", "abcd"), ThreeEach(), size=20)
    assert [p.text for p in passages] == ["a", "b", "c", "d"]


def test_one_endless_word_is_cut_by_its_characters():
    document = Document("d.txt", "x" * 10_000)
    passages = chunk(document, WordTokenizer(), size=12, overlap=4)
    assert {len(p.text) for p in passages[:-1]} == {160}
    check_laws(document, passages, WordTokenizer(), 12, Report())


@pytest.mark.parametrize("separator", ["\n\n", " ", ""])
def test_a_long_text_is_read_in_blocks(separator):
    tokenizer = WordTokenizer()
    longest = 0

    class Counting(WordTokenizer):
        def offsets(self, text):
            nonlocal longest
            longest = max(longest, len(text))
            return tokenizer.offsets(text)

    document = Document("d.txt", separator.join(["word."] * 60_000))
    passages = chunk(document, Counting(), size=64, overlap=8)
    assert longest <= 1 << 16
    check_laws(document, passages, tokenizer, 64, Report())


@pytest.mark.parametrize("text", ["", "   \n\n \t"])
def test_no_text_no_passages(text):
    assert chunk(Document("d.md", text, "Title"), WordTokenizer(), size=20) == []


@pytest.mark.parametrize(
    ("size", "overlap", "message"),
    [(9, 0, "too small"), (20, -1, "overlap of -1"), (20, 11, "overlap of 11")],
)
def test_impossible_sizes_are_refused(size, overlap, message):
    with pytest.raises(UsageError, match=message):
        chunk(Document("d", "text"), WordTokenizer(), size=size, overlap=overlap)
