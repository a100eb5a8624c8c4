"""Text to token ids and back: a thin layer over the ``tokenizers`` library, and chat templates.

The library does the cutting; this file decides what it must not decide for us. A ``tokenizer.json``
may carry a truncation length and a padding (all-MiniLM-L6-v2's cuts every text to 128 tokens
without a word): both are switched off here, and whoever needs a limit counts tokens himself.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from minirag.errors import CheckpointError, UsageError
from minirag.files import write_text_atomically

_SPECIAL_ROLES = ("pad", "bos", "eos")

# Half of a UTF-16 pair, alone: not a character, and not encodable. A command line can contain one.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

# Older releases of Jinja have known ways out of the sandbox.
_SAFE_JINJA = (3, 1, 6)


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
        self._compiled_template: Any = None
        self.n_special: int = backend.num_special_tokens_to_add(False)

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
        ids: list[int] = self._backend.encode(_encodable(text), add_special_tokens=special).ids
        return ids

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """:meth:`encode` for many texts, in parallel; no padding."""
        encodings = self._backend.encode_batch_fast(
            [_encodable(text) for text in texts], add_special_tokens=special
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
        encoding = self._backend.encode(_encodable(text), add_special_tokens=False)
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
        special = [
            re.escape(token.content)
            for token in self._backend.get_added_tokens_decoder().values()
            if token.special
        ]
        if not special:
            return text
        pattern = re.compile("|".join(sorted(special, key=len, reverse=True)))
        found = 1
        while found:  # taking one out can join the halves of another
            text, found = pattern.subn("", text)
        return text

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
        import jinja2  # only chat needs it; torch brings it along

        if self.chat_template is None:
            raise CheckpointError(
                "this model has no chat template: it was not trained on conversations. "
                "Encode plain text instead."
            )
        if self._compiled_template is None:
            self._compiled_template = _compile_template(self.chat_template)
        tokens = {
            f"{role}_token": token
            for role in _SPECIAL_ROLES
            if (token := getattr(self, f"{role}_token")) is not None
        }
        try:
            text: str = self._compiled_template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **tokens,
            )
        except UsageError:
            raise
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"the model's chat template failed: {error}.") from error
        return text

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
        }
        for role in _SPECIAL_ROLES:
            if (token := getattr(self, f"{role}_token")) is not None:
                config[f"{role}_token"] = token
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        write_text_atomically(directory / "tokenizer.json", self._backend.to_str(pretty=True))
        write_text_atomically(
            directory / "tokenizer_config.json",
            json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        )

    # -- building ----------------------------------------------------------------------------

    @classmethod
    def from_bpe(
        cls,
        vocab: Sequence[str],
        merges: Sequence[str],
        *,
        special: Sequence[str] = (),
        added: Sequence[str] = (),
        split: str = "gpt-2",
        pad_token: str | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
        add_bos: bool = False,
        chat_template: str | None = None,
    ) -> Tokenizer:
        """Build a byte-level BPE from its parts, as a GGUF file carries them.

        Parameters
        ----------
        vocab : sequence of str
            The tokens; a token's id is its place.
        merges : sequence of str
            Pairs joined by a space, the first learned first.
        special : sequence of str
            Control tokens: matched before anything is cut, left out by ``decode``.
        added : sequence of str
            Tokens matched whole like special ones, but kept by ``decode``.
        split : {"gpt-2", "default", "smollm"}
            How text is cut before merging: by GPT-2's pattern; ``"smollm"`` takes every digit by
            itself first.
        add_bos : bool
            ``encode`` puts ``bos_token`` in front.

        Raises
        ------
        CheckpointError
            If the parts contradict each other or the split is unknown.
        """
        ids = {token: index for index, token in enumerate(vocab)}
        if len(ids) != len(vocab):
            raise CheckpointError("the vocabulary holds a token twice.")
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
        for left, right in pairs:
            for token in (left, right, left + right):
                if token not in ids:
                    raise CheckpointError(
                        f"the merge {left!r} + {right!r} needs {token!r}, "
                        "which is not in the vocabulary."
                    )
        backend = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=pairs))
        backend.pre_tokenizer = _pre_tokenizer(split)
        backend.decoder = decoders.ByteLevel()
        for tokens, is_special in ((special, True), (added, False)):
            backend.add_tokens(
                [
                    tokenizers.AddedToken(token, normalized=False, special=is_special)
                    for token in tokens
                ]
            )
        if add_bos:
            if bos_token not in ids:
                raise CheckpointError("the tokenizer wants a bos token in front but has none.")
            backend.post_processor = processors.TemplateProcessing(
                single=f"{bos_token} $A",
                pair=f"{bos_token} $A {bos_token} $B",
                special_tokens=[(bos_token, ids[bos_token])],
            )
        return cls(
            backend,
            pad_token=pad_token,
            bos_token=bos_token,
            eos_token=eos_token,
            chat_template=chat_template,
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
        chat_template: str | None = None,
    ) -> Tokenizer:
        """Learn a byte-level BPE: every text can be encoded, and decodes to itself.

        Digits stand alone, so that numbers are copied digit by digit and never as a whole that
        was not in the training text. The same texts give the same tokenizer.

        Parameters
        ----------
        texts : iterable of str
        vocab_size : int
            Special tokens and the 256 bytes included. Fewer result if the texts give no more.
        special_tokens : sequence of str
            They get the ids 0, 1, ...; ``pad_token``, ``bos_token``, ``eos_token`` are among them.

        Raises
        ------
        UsageError
            If ``vocab_size`` has no room for the special tokens and the bytes.
        """
        least = 256 + len(special_tokens)
        if vocab_size < least:
            raise UsageError(
                f"a vocabulary of {vocab_size} is too small: {len(special_tokens)} special tokens "
                f"and the 256 bytes need {least}."
            )
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = _pre_tokenizer("smollm")
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(special_tokens),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator((_encodable(text) for text in texts), trainer)
        return cls(
            backend,
            pad_token=pad_token,
            bos_token=bos_token,
            eos_token=eos_token,
            chat_template=chat_template,
        )


def _encodable(text: str) -> str:
    """``text`` with lone surrogates replaced one for one, so that offsets stay right."""
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


def _pre_tokenizer(split: str) -> Any:
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if split in ("gpt-2", "default"):
        return words
    if split == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, words])
    raise CheckpointError(
        f"the tokenizer cuts words in the way {split!r}; known are 'gpt-2', 'default', 'smollm'."
    )


def _compile_template(source: str) -> Any:
    """Compile a chat template as transformers does, in a sandbox: it comes from outside."""
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    version = tuple(int(part) for part in re.findall(r"\d+", jinja2.__version__)[:3])
    if version < _SAFE_JINJA:
        raise CheckpointError(
            f"jinja2 {jinja2.__version__} can't run chat templates safely: "
            "pip install --upgrade 'jinja2>=3.1.6'."
        )

    def raise_exception(message: str) -> NoReturn:
        raise UsageError(f"the model's chat template refuses this conversation: {message}")

    def tojson(value: Any, indent: int | None = None) -> str:  # Jinja's own escapes HTML
        return json.dumps(value, ensure_ascii=False, indent=indent)

    def strftime_now(layout: str) -> str:
        return datetime.datetime.now().strftime(layout)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise CheckpointError(f"the model's chat template is broken: {error}.") from error


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(values).__name__}.")
    return values


def _read_special_tokens(directory: Path, backend: tokenizers.Tokenizer) -> dict[str, str | None]:
    """Find the pad, bos and eos tokens, as ``{"pad_token": ..., ...}``."""
    return {
        f"{role}_token": next(_named_tokens(directory, backend, role), None)
        for role in _SPECIAL_ROLES
    }


def _named_tokens(directory: Path, backend: tokenizers.Tokenizer, role: str) -> Iterator[str]:
    """Every token that the files name for ``role``, the file with the last word first."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _read_json(directory / name).get(f"{role}_token")
        if isinstance(token, dict):  # an AddedToken, written out
            token = token.get("content")
        if isinstance(token, str):
            yield token
    for name in ("config.json", "generation_config.json"):
        index = _read_json(directory / name).get(f"{role}_token_id")
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
    template = _read_json(directory / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several templates with names
        named = {
            item.get("name"): item.get("template") for item in template if isinstance(item, dict)
        }
        template = named.get("default")
    return template if isinstance(template, str) else None
