"""Chat templates: the Jinja text that comes with a model and writes a conversation its way.

A template comes from outside, so it runs in Jinja's sandbox, without access to Python's internals.
The settings are those of transformers' ``apply_chat_template``, whose output this equals.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from minirag.errors import CheckpointError, UsageError

# Older releases of Jinja have known ways out of the sandbox.
_SAFE_JINJA = (3, 1, 6)


class ChatTemplate:
    """One model's template, compiled when it is first needed.

    Parameters
    ----------
    source : str
        Jinja, as ``tokenizer_config.json`` or ``chat_template.jinja`` holds it.
    tokens : mapping
        What the template may call ``bos_token``, ``eos_token``, ``pad_token``.
    """

    def __init__(self, source: str, tokens: Mapping[str, str]) -> None:
        self.source, self.tokens = source, dict(tokens)
        self._compiled: Any = None

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        """Write a conversation; with the opening of the assistant's turn at its end if asked.

        Raises
        ------
        CheckpointError
            If the template is broken, or Jinja is too old to run it safely.
        UsageError
            If the template refuses this conversation (two user turns in a row, ...).
        """
        import jinja2  # only chat needs it; torch brings it along

        if self._compiled is None:
            self._compiled = _compile(self.source)
        try:
            return str(
                self._compiled.render(
                    messages=[dict(message) for message in messages],
                    add_generation_prompt=add_generation_prompt,
                    tools=None,
                    documents=None,
                    **self.tokens,
                )
            )
        except UsageError:
            raise
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"the model's chat template failed: {error}.") from error


def _compile(source: str) -> Any:
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
