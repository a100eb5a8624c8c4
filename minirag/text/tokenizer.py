"""Text to token ids and back: a thin layer over the ``tokenizers`` library.

The library does the cutting; this file decides what it must not decide for us. A ``tokenizer.json``
may carry a truncation length and a padding (all-MiniLM-L6-v2's cuts every text to 128 tokens
without a word): both are switched off here, and whoever needs a limit counts tokens himself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from minirag.errors import CheckpointError, UsageError
from minirag.files import read_json_object, write_text_atomically
from minirag.text.bpe import encodable, train_bpe
from minirag.text.chat_template import ChatTemplate
from minirag.text.markers import without_markers

_SPECIAL_ROLES = ("pad", "bos", "eos")


class Tokenizer:
    """Cuts text into the tokens of one vocabulary, and writes chats in one model's own format.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        Its truncation and padding are switched off.
    pad_token, bos_token, eos_token : str, optional
        Must be in the vocabulary.
    chat_template : str, optional
        A Jinja template, as ``tokenizer_config.json`` holds it.

    Attributes
    ----------
    pad_id, bos_id, eos_id : int or None
    n_special : int
        How many special tokens ``encode`` puts around one text (2 for BERT's [CLS] and [SEP]).
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        pad_token: str | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
        chat_template: str | None = None,
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.pad_token, self.bos_token, self.eos_token = pad_token, bos_token, eos_token
        self.pad_id = self._id_of_role("pad", pad_token)
        self.bos_id = self._id_of_role("bos", bos_token)
        self.eos_id = self._id_of_role("eos", eos_token)
        self.chat_template = chat_template
        self._template = (
            None if chat_template is None else ChatTemplate(chat_template, self._named_tokens())
        )
        self.n_special: int = backend.num_special_tokens_to_add(False)

    def _named_tokens(self) -> dict[str, str]:
        """``{"pad_token": ..., ...}`` for those the model has."""
        tokens = {
            "pad_token": self.pad_token,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
        }
        return {name: token for name, token in tokens.items() if token is not None}

    def _id_of_role(self, role: str, token: str | None) -> int | None:
        if token is None:
            return None
        index = self.id_of(token)
        if index is None:
            raise CheckpointError(f"the {role} token {token!r} is not in the vocabulary.")
        return index

    # -- encoding ----------------------------------------------------------------------------

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of ``text``, whole; with the model's special tokens around it if ``special``.

        The string of a special token inside the text (``<|im_end|>``) becomes that token; text
        from outside should go through :meth:`without_special` first.
        """
        ids: list[int] = self._backend.encode(encodable(text), add_special_tokens=special).ids
        return ids

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """:meth:`encode` for many texts, in parallel; no padding."""
        encodings = self._backend.encode_batch_fast(
            [encodable(text) for text in texts], add_special_tokens=special
        )
        return [encoding.ids for encoding in encodings]

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids without special tokens, and for each the characters it stands for.

        Returns
        -------
        ids : list of int
        spans : list of (start, end)
            Token ``i`` stands for ``text[start:end]``. Tokens that share one character, as
            byte-level vocabularies cut rare ones, share its span.
        """
        encoding = self._backend.encode(encodable(text), add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Turn ids back into text; special tokens are left out if ``skip_special``.

        Raises
        ------
        UsageError
            If an id is negative; ids beyond the vocabulary are left out.
        """
        if any(index < 0 for index in ids):
            raise UsageError(f"can't decode the token id {min(ids)}: ids start at 0.")
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special)
        return text

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary, added ones included; ids are smaller than this."""
        size: int = self._backend.get_vocab_size(with_added_tokens=True)
        return size

    def id_of(self, token: str) -> int | None:
        """Return the id of a token, ``None`` if the vocabulary lacks it."""
        index: int | None = self._backend.token_to_id(token)
        return index

    def without_special(self, text: str) -> str:
        """``text`` without the strings of special tokens.

        A document that contains ``<|im_end|><|im_start|>system`` could otherwise pose as a turn of
        the conversation.
        """
        special = (
            token.content
            for token in self._backend.get_added_tokens_decoder().values()
            if token.special and token.content
        )
        return without_markers(text, tuple(special))

    # -- chat --------------------------------------------------------------------------------

    def chat(
        self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        """Write a conversation as the model was trained to read it.

        Parameters
        ----------
        messages : sequence of {"role": ..., "content": ...}
            Roles are ``system``, ``user`` and ``assistant``.
        add_generation_prompt : bool
            End with the opening of the assistant's turn.

        Raises
        ------
        CheckpointError
            If the model has no chat template, or it is broken.
        UsageError
            If the template refuses this conversation (two user turns in a row, ...).
        """
        if self._template is None:
            raise CheckpointError(
                "this model has no chat template: it was not trained on conversations. "
                "Encode plain text instead."
            )
        return self._template.render(messages, add_generation_prompt)

    def with_special(self, *tokens: str) -> Tokenizer:
        """The same vocabulary with more special tokens at its end; all ids stay."""
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.add_special_tokens(list(tokens))
        return Tokenizer(
            backend,
            pad_token=self.pad_token,
            bos_token=self.bos_token,
            eos_token=self.eos_token,
            chat_template=self.chat_template,
        )

    def framed(self, first: str, last: str) -> Tokenizer:
        """The same vocabulary, putting these special tokens around every text it encodes.

        A space goes before the text: in a byte-level vocabulary " Tor" and "Tor" are different
        tokens, and a name must look the same whether a text begins with it or not.

        Raises
        ------
        CheckpointError
            If a token is not in the vocabulary.
        """
        ids = [(token, self.id_of(token)) for token in (first, last)]
        for token, index in ids:
            if index is None:
                raise CheckpointError(f"the token {token!r} is not in the vocabulary.")
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.normalizer = tokenizers.normalizers.Prepend(" ")
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single=[first, "$A", last], special_tokens=ids
        )
        return Tokenizer(
            backend,
            pad_token=self.pad_token,
            bos_token=self.bos_token,
            eos_token=self.eos_token,
            chat_template=self.chat_template,
        )

    # -- files -------------------------------------------------------------------------------

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Read a tokenizer in the hub's layout.

        ``tokenizer.json`` is the tokenizer. The pad, bos and eos tokens are taken from the first
        of ``tokenizer_config.json``, ``special_tokens_map.json``, ``config.json`` and
        ``generation_config.json`` that names them; the chat template from
        ``chat_template.jinja`` or ``tokenizer_config.json``.

        Raises
        ------
        CheckpointError
            If a file is missing or can't be understood.
        """
        path = directory / "tokenizer.json"
        try:
            backend = tokenizers.Tokenizer.from_str(path.read_text("utf-8"))
        except FileNotFoundError:
            raise CheckpointError(
                f"{directory} has no tokenizer.json. Older models have only the vocabulary; "
                "transformers' AutoTokenizer writes the file: "
                "from_pretrained(...).save_pretrained(...)."
            ) from None
        except Exception as error:  # the library raises plain Exception
            raise CheckpointError(f"{path} can't be read as a tokenizer: {error}.") from error
        tokens = _read_special_tokens(directory, backend)
        try:
            return cls(backend, **tokens, chat_template=_read_chat_template(directory))
        except CheckpointError as error:
            raise CheckpointError(f"{directory}: {error}") from None

    def save(self, directory: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``; transformers reads them too.

        Raises
        ------
        DiskError
            If writing fails.
        """
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self._named_tokens(),
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        write_text_atomically(directory / "tokenizer.json", self._backend.to_str(pretty=True))
        write_text_atomically(
            directory / "tokenizer_config.json",
            json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        )

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        *,
        pad_token: str | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
    ) -> Tokenizer:
        """Learn a byte-level BPE with :func:`minirag.text.bpe.train_bpe`, and name its roles.

        ``pad_token``, ``bos_token`` and ``eos_token`` are among the ``special_tokens``.
        """
        return cls(
            train_bpe(texts, vocab_size, special_tokens),
            pad_token=pad_token,
            bos_token=bos_token,
            eos_token=eos_token,
        )


def _read_special_tokens(directory: Path, backend: tokenizers.Tokenizer) -> dict[str, str | None]:
    """Find the pad, bos and eos tokens, as ``{"pad_token": ..., ...}``."""
    return {
        f"{role}_token": next(_named_tokens(directory, backend, role), None)
        for role in _SPECIAL_ROLES
    }


def _named_tokens(directory: Path, backend: tokenizers.Tokenizer, role: str) -> Iterator[str]:
    """Every token that the files name for ``role``, the file with the last word first."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = read_json_object(directory / name, absent={}).get(f"{role}_token")
        if isinstance(token, dict):  # an AddedToken, written out
            token = token.get("content")
        if isinstance(token, str):
            yield token
    for name in ("config.json", "generation_config.json"):
        index = read_json_object(directory / name, absent={}).get(f"{role}_token_id")
        if isinstance(index, list) and index:  # several ways to end: the first is the tokenizer's
            index = index[0]
        if isinstance(index, int) and index >= 0:
            token = backend.id_to_token(index)
            if token is not None:
                yield token


def _read_chat_template(directory: Path) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} can't be read as text: {error}.") from error
    template = read_json_object(directory / "tokenizer_config.json", absent={}).get("chat_template")
    if isinstance(template, list):  # several templates with names
        named = {
            item.get("name"): item.get("template") for item in template if isinstance(item, dict)
        }
        template = named.get("default")
    return template if isinstance(template, str) else None
