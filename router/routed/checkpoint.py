"""A router on disk: ``config.json``, ``model.safetensors`` and a model card. The base model is named, not copied.

ROUTER/config.json         kind, sizes, the base model by name and revision, how prompts are tokenized, how it was made
ROUTER/model.safetensors   the weights, and what the head predicts on held-out prompts
ROUTER/README.md           model card
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.program import LayerProgram
from pipeline.storage import PathOrUrl
from router.artifact.base_model import BaseModelRef
from router.artifact.folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    load_weights,
    read_described,
    read_tensors,
    write_folder,
)
from router.artifact.model_card import model_card
from router.heads.head import Head
from router.heads.registry import UNNAMED_KIND, find_kind

_KIND = "router"
_SAMPLE = "held_out_log_probs"
_TRAINED_ON = "trained_on"


@dataclass(frozen=True, kw_only=True)
class Router:
    """A trained router with everything that its use needs, but for the base model.

    Attributes:
        base: The base model.
        head: The trained head.
        held_out: The head's predictions on held-out prompts, ``[N, …]``: budgets are planned on them.
        trained_on: Fingerprints (see ``text_fingerprint``) of the prompts and examples that were searched for training:
            a fair evaluation leaves them out.
        add_special_tokens: Whether the tokenizer adds its special tokens to a prompt, as it did in training.
        made: Settings and metrics of the training.
        fallback: The static program that did better on held-out examples than the head; None where none did.
    """

    base: BaseModelRef
    head: Head
    held_out: torch.Tensor
    trained_on: frozenset[int] = frozenset()
    add_special_tokens: bool = True
    made: dict[str, Any] = field(default_factory=dict)
    fallback: LayerProgram | None = None

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
            **({} if self.fallback is None else {"fallback": str(self.fallback)}),
            "made": self.made,
        }
        tensors = {
            **self.head.network.state_dict(),
            _SAMPLE: self.held_out,
            _TRAINED_ON: torch.tensor(sorted(self.trained_on), dtype=torch.int64),
        }
        write_folder(
            folder,
            _KIND,
            config=config,
            tensors=tensors,
            card=model_card(config, describe=find_kind(self.head.name).card),
        )

    @classmethod
    def load(cls, source: PathOrUrl) -> Router:
        """Read a router from a folder, or from the hub by its id.

        Raises:
            UserError: There is no such router, or its files are damaged; the message says which.
        """
        router, folder = read_described(source, _KIND, cls._described)
        file = folder / WEIGHTS_FILE
        tensors = read_tensors(file, _KIND)
        trained_on = tensors.pop(_TRAINED_ON, torch.empty(0, dtype=torch.int64))
        held_out = tensors.pop(_SAMPLE, torch.empty(0))
        has_sample = held_out.ndim > 0 and len(held_out) > 0 and held_out.shape[1:] == router.head.sample_shape
        if not has_sample or trained_on.ndim != 1 or trained_on.dtype != torch.int64:
            raise UserError(f"{file} does not hold the weights that {CONFIG_FILE} describes")
        load_weights(router.head.network, tensors, file)
        return replace(router, held_out=held_out, trained_on=frozenset(trained_on.tolist()))

    @classmethod
    def _described(cls, config: dict[str, Any]) -> Router:
        """The router of a configuration, with weights that are yet to be loaded.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: The configuration is not valid.
        """
        head = find_kind(config.get("head", UNNAMED_KIND)).head.from_settings(config)
        return cls(
            base=BaseModelRef(**config["base_model"]),
            head=head,
            held_out=torch.empty(0),
            add_special_tokens=bool(config["add_special_tokens"]),
            made=dict(config["made"]),
            fallback=LayerProgram.parse(config["fallback"], head.num_layers) if "fallback" in config else None,
        )
