"""A router on disk: ``config.json``, ``model.safetensors`` and a model card. The base model is named, not copied.

ROUTER/config.json         sizes, the base model by name and revision, how prompts are tokenized, how it was made
ROUTER/model.safetensors   the routers' weights, and what they said of held-out prompts
ROUTER/README.md           model card
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.storage import AnyPath, PathOrUrl
from router.artifact.base_model import BaseModelRef
from router.artifact.folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_version,
    find_folder,
    read_config,
    read_tensors,
    write_folder,
)
from router.artifact.model_card import model_card
from router.heads.early_exit.early_exit_head import EarlyExitHead
from router.heads.head import Head
from router.heads.per_layer.per_layer_head import PerLayerHead

_KIND = "router"
_SAMPLE = "held_out_log_probs"
_SEEN = "trained_on"
#: What a router can be, by its name.
HEADS: dict[str, type[PerLayerHead | EarlyExitHead]] = {head.name: head for head in (PerLayerHead, EarlyExitHead)}


@dataclass(frozen=True, kw_only=True)
class Router:
    """A trained router with everything that using it takes, but for the base model.

    Attributes:
        base: The base model.
        head: What was learnt.
        held_out: Log-probabilities that it gave on held-out prompts, ``[N, …]``: budgets are planned on them.
        trained_on: Marks (see ``mark``) of the prompts and examples that were searched for training: a fair evaluation
            leaves them out.
        add_special_tokens: Whether the tokenizer adds its special tokens to a prompt, as it did in training.
        made: How it was made: settings and metrics, as the training noted them.
    """

    base: BaseModelRef
    head: Head
    held_out: torch.Tensor
    trained_on: frozenset[int] = frozenset()
    add_special_tokens: bool = True
    made: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: PathOrUrl) -> None:
        """Write the router to a folder: a new one, or one that holds a router.

        Raises:
            UserError: The folder holds something else, or cannot be written.
        """
        config = {
            "base_model": asdict(self.base),
            "head": self.head.name,
            **self.head.settings(),
            "add_special_tokens": self.add_special_tokens,
            "made": self.made,
        }
        tensors = {
            **self.head.network.state_dict(),
            _SAMPLE: self.held_out,
            _SEEN: torch.tensor(sorted(self.trained_on), dtype=torch.int64),
        }
        write_folder(folder, _KIND, config=config, tensors=tensors, card=model_card(config))

    @classmethod
    def load(cls, source: PathOrUrl) -> Router:
        """Read a router from a folder, or from the hub by its id.

        Raises:
            UserError: There is none, or its files are damaged; the message says which.
        """
        folder = find_folder(source, _KIND)
        config = read_config(folder, _KIND)
        try:
            check_version(config, folder)
            base = BaseModelRef(**config["base_model"])
            name = config.get("head", PerLayerHead.name)
            if name not in HEADS:
                raise ValueError(f"an unknown head, {name!r}")
            head = HEADS[name].from_settings(config)
            special, made = bool(config["add_special_tokens"]), dict(config["made"])
        # Torch has no memory for what is too large.
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{folder / CONFIG_FILE} is no router's configuration: {error!r}") from None
        held_out, seen = _read_weights(folder / WEIGHTS_FILE, head)
        return cls(base=base, head=head, held_out=held_out, trained_on=seen, add_special_tokens=special, made=made)


def _read_weights(file: AnyPath, head: Head) -> tuple[torch.Tensor, frozenset[int]]:
    """Fill a head's network; what it said of held-out prompts, and the marks of what it was trained on."""
    expected = {name: tuple(tensor.shape) for name, tensor in head.network.state_dict().items()}
    found = read_tensors(file, _KIND)
    seen = found.pop(_SEEN, torch.empty(0, dtype=torch.int64))
    held_out = found.pop(_SAMPLE, torch.empty(0))
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    sample = held_out.ndim > 0 and len(held_out) > 0 and held_out.shape[1:] == head.sample_shape
    if shapes != expected or not sample or seen.ndim != 1 or seen.dtype != torch.int64:
        raise UserError(f"{file} does not hold the weights that {CONFIG_FILE} describes")
    head.network.load_state_dict(found)
    head.network.eval().requires_grad_(False)
    return held_out, frozenset(seen.tolist())
