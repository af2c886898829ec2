"""A router on disk: ``config.json``, ``model.safetensors`` and a model card. The base model is named, not copied.

ROUTER/config.json         sizes, the base model by name and revision, how prompts are tokenized, how it was made
ROUTER/model.safetensors   the routers' weights, and what they said of held-out prompts
ROUTER/README.md           model card
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from router.base import BaseModel
from router.card import model_card
from router.folder import CONFIG_FILE, WEIGHTS_FILE, check_version, find_folder, read_config, read_tensors, write_folder
from router.model import NUM_CLASSES, LayerRouters, RouterConfig

_KIND = "router"
_SAMPLE = "held_out_log_probs"
_SEEN = "trained_on"


@dataclass(frozen=True, kw_only=True)
class Router:
    """Trained routers with everything that using them takes, but for the base model.

    Attributes:
        base: The base model.
        routers: The networks.
        held_out: Log-probabilities that they gave on held-out prompts, ``[N, L, 3]``: budgets are planned on them.
        trained_on: Marks (see ``mark``) of the prompts and examples that were searched for training: a fair evaluation
            leaves them out.
        add_special_tokens: Whether the tokenizer adds its special tokens to a prompt, as it did in training.
        made: How it was made: settings and metrics, as the training noted them.
    """

    base: BaseModel
    routers: LayerRouters
    held_out: torch.Tensor
    trained_on: frozenset[int] = frozenset()
    add_special_tokens: bool = True
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> RouterConfig:
        """The routers' size."""
        return self.routers.config

    def save(self, folder: str | Path) -> None:
        """Write the router to a folder: a new one, or one that holds a router.

        Raises:
            UserError: The folder holds something else, or cannot be written.
        """
        config = {
            "base_model": asdict(self.base),
            **asdict(self.config),
            "add_special_tokens": self.add_special_tokens,
            "made": self.made,
        }
        tensors = {
            **self.routers.state_dict(),
            _SAMPLE: self.held_out,
            _SEEN: torch.tensor(sorted(self.trained_on), dtype=torch.int64),
        }
        write_folder(Path(folder), _KIND, config=config, tensors=tensors, card=model_card(config))

    @classmethod
    def load(cls, source: str | Path) -> Router:
        """Read a router from a folder, or from the hub by its id.

        Raises:
            UserError: There is none, or its files are damaged; the message says which.
        """
        folder = find_folder(str(source), _KIND)
        config = read_config(folder, _KIND)
        try:
            check_version(config, folder)
            base = BaseModel(**config["base_model"])
            size = RouterConfig(**{name: config[name] for name in RouterConfig.__dataclass_fields__})
            special, made = bool(config["add_special_tokens"]), dict(config["made"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{folder / CONFIG_FILE} is no router's configuration: {error!r}") from None
        routers, held_out, seen = _read_weights(folder / WEIGHTS_FILE, size)
        return cls(
            base=base, routers=routers, held_out=held_out, trained_on=seen, add_special_tokens=special, made=made
        )


def mark(*parts: str) -> int:
    """A number that stands for a text: which prompts a router knows can be told without handing them out."""
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


def _read_weights(file: Path, size: RouterConfig) -> tuple[LayerRouters, torch.Tensor, frozenset[int]]:
    routers = LayerRouters(size)
    expected = {name: tuple(tensor.shape) for name, tensor in routers.state_dict().items()}
    found = read_tensors(file, _KIND)
    seen = found.pop(_SEEN, torch.empty(0, dtype=torch.int64))
    held_out = found.pop(_SAMPLE, torch.empty(0))
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    if shapes != expected or not len(held_out) or held_out.shape[1:] != (size.num_layers, NUM_CLASSES):
        raise UserError(f"{file} does not hold the weights that {CONFIG_FILE} describes")
    routers.load_state_dict(found)
    return routers.eval().requires_grad_(False), held_out, frozenset(seen.tolist())
