"""Step 2, which weights move: all of them, or only some, from some time on.

The lower layers of a language model hold what is common to all text, the upper ones what the last
training was about (Yosinski et al. 2014). Whoever freezes the lower ones forgets less, and saves
their way back: below the lowest weight that moves no gradient is computed.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from minirag.errors import UsageError
from minirag.transformer.models import Decoder, EncoderDecoder, Model

EMBEDDINGS, HEAD, ALL_BUT_HEAD = "embeddings", "head", "all-but-head"

_BLOCK = re.compile(r"(tower|encoder|decoder)\.blocks\.(\d+)\.")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


# ----------------------------------------------------------------------------------------- by depth


def layers_of(model: Model) -> dict[str, list[str]]:
    """The names of all weights by layer, from the input up: embeddings, 0, 1, ..., head.

    An encoder-decoder's layers are counted through, the encoder's first. The last norm belongs to
    the head; a tied head's matrix is the token embedding and stands there.
    """
    two = isinstance(model, EncoderDecoder)
    n_blocks = model.config.n_layers + (model.config.decoder_layers if two else 0)
    layers: dict[str, list[str]] = {
        EMBEDDINGS: [],
        **{str(i): [] for i in range(n_blocks)},
        HEAD: [],
    }
    for name, _ in model.named_parameters():
        layers[_layer_of(name, model.config.n_layers)].append(name)
    return {layer: names for layer, names in layers.items() if names}


def _layer_of(name: str, n_encoder: int) -> str:
    if match := _BLOCK.match(name):
        return str(int(match[2]) + (n_encoder if match[1] == "decoder" else 0))
    if name.startswith("encoder.final_norm"):  # what the encoder's last layer gives
        return str(n_encoder - 1)
    return EMBEDDINGS if ".embeddings." in name else HEAD


# ----------------------------------------------------------------------------------- what to freeze


def weights_named(model: Model, what: str) -> set[str]:
    """The names of the weights that an expression such as ``embeddings,0-2`` means.

    Parameters
    ----------
    what : str
        Parts, by commas: ``embeddings``, ``head``, a layer ``3``, layers ``0-2``, ``all-but-head``,
        or the name of a weight or a module, with ``*`` for anything:
        ``tower.blocks.*.attention``.

    Raises
    ------
    UsageError
        If a part means nothing.
    """
    layers = layers_of(model)
    found: set[str] = set()
    for part in filter(None, (part.strip() for part in what.split(","))):
        names = _one_part(part, layers)
        if not names:
            blocks = [layer for layer in layers if layer.isdecimal()]
            raise UsageError(
                f"{part!r} is no part of this model: it has embeddings, the layers "
                f"{blocks[0]}-{blocks[-1]} and a head; all-but-head, or the name of a weight "
                f"such as {layers[blocks[0]][0]}, can be given, too."
            )
        found |= names
    return found


def _one_part(part: str, layers: dict[str, list[str]]) -> set[str]:
    everything = {name for names in layers.values() for name in names}
    if part == ALL_BUT_HEAD:
        return everything - set(layers.get(HEAD, ()))
    if part in layers:
        return set(layers[part])
    if match := _RANGE.fullmatch(part):
        wanted = [str(i) for i in range(int(match[1]), int(match[2] or match[1]) + 1)]
        if any(layer not in layers for layer in wanted):
            return set()
        return {name for layer in wanted for name in layers[layer]}
    return {
        name
        for name in everything
        if fnmatch.fnmatchcase(name, part) or fnmatch.fnmatchcase(name, f"{part}.*")
    }


def freeze(model: Model, names: Collection[str]) -> None:
    """Let these weights get no gradient: no optimizer takes them, nothing moves them."""
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def training_mode(model: nn.Module) -> None:
    """Switch dropout on, but not in parts that are frozen as a whole.

    Dropout is there to make the weights around it robust. Where none of them moves, it would only
    add noise, and another noise each time, so that nothing could be computed once and kept.
    """
    own = list(model.parameters())
    if own and not any(parameter.requires_grad for parameter in own):
        model.eval()
        return
    model.training = True
    for child in model.children():
        training_mode(child)


# ---------------------------------------------------------------------------------------- tied head


def is_tied(model: Model) -> bool:
    """Whether the head's matrix is the token embedding."""
    return model.config.tied and model.config.head != "none"


def untie(model: Decoder | EncoderDecoder) -> None:
    """Give the head a matrix of its own, at first a copy of the token embedding."""
    matrix = model.head.matrix
    matrix.weight = nn.Parameter(matrix.weight.detach().clone())
    model.config = dataclasses.replace(model.config, tied=False)


def note_on_tied_head(model: Model, frozen: Collection[str]) -> str | None:
    """What freezing does to a head that is tied to the token embedding, if it is."""
    if not is_tied(model):
        return None
    token = next(name for name in layers_of(model)[EMBEDDINGS] if name.endswith("token.weight"))
    head = set(layers_of(model).get(HEAD, ()))
    if token in frozen and not head <= set(frozen):
        return (
            "the head's matrix is the token embedding (they are tied), so it is frozen with it; "
            "untied (--untie-head) it gets a copy of its own, which moves."
        )
    if head & set(frozen) and token not in frozen:
        return (
            "the head's matrix is the token embedding (they are tied), so it moves with it; "
            "untied (--untie-head) it gets a copy of its own, which can be frozen."
        )
    return None


# --------------------------------------------------------------------------------- little by little


@dataclass(frozen=True)
class GradualUnfreezing:
    """The top layer first, then one more from the top with every epoch (Howard and Ruder 2018).

    At first the upper layers are far from fit for the new task, and their gradients would tear the
    lower ones away from what they know.
    """

    order: tuple[frozenset[str], ...]  # what may ever move: the names of each layer, from the top

    @classmethod
    def of(cls, model: Model) -> GradualUnfreezing:
        """Over the weights of a model that are not frozen now."""
        moving = {name for name, p in model.named_parameters() if p.requires_grad}
        layers = (frozenset(names) & moving for names in reversed(layers_of(model).values()))
        return cls(tuple(names for names in layers if names))

    def apply(self, model: Model, epoch: int) -> None:
        """Let move what may move in an epoch 0, 1, ..., and nothing else."""
        moving = frozenset().union(*self.order[: epoch + 1])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in moving)


# ---------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class LayerCount:
    """How many numbers of a layer move."""

    layer: str
    trainable: int
    total: int


def count_weights(model: Model) -> list[LayerCount]:
    """The numbers in each layer, and how many of them are not frozen."""
    weights = dict(model.named_parameters())
    return [
        LayerCount(
            layer,
            sum(weights[name].numel() for name in names if weights[name].requires_grad),
            sum(weights[name].numel() for name in names),
        )
        for layer, names in layers_of(model).items()
    ]


def weights_table(counts: Collection[LayerCount]) -> str:
    """The counts for people, with their sum and share."""
    trainable, total = sum(c.trainable for c in counts), sum(c.total for c in counts)
    rows = [("layer", "trainable", "weights")]
    rows += [(c.layer, f"{c.trainable:,}", f"{c.total:,}") for c in counts]
    rows.append(("all", f"{trainable:,}", f"{total:,}"))
    lines = [f"{layer:<12}{moving:>14}{all_:>14}" for layer, moving, all_ in rows]
    return "\n".join([*lines, f"{100 * trainable / total:.1f} % of the weights move"])
