"""The folder of a router or a probe: ``config.json``, ``model.safetensors`` and a card, here or on the hub.

Routers and probes share the format; each refuses the other's folder by name. An evaluation lies beside the weights that
it judged, and goes when they do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import UserError
from pipeline.storage import (
    AnyPath,
    PathOrUrl,
    content,
    entries,
    is_folder,
    is_there,
    local_copy,
    locate,
    remove,
    uploaded,
    without_secrets,
    write_whole,
)

FORMAT_VERSION = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
EVALUATION_FILE, EVALUATION_PICTURE = "evaluation.json", "evaluation.png"
#: What trainings leave beside the weights: each kind of router or probe some of it.
METRICS_FILE, PICTURE_FILE, VALIDATION_FILE, TENSORBOARD = (
    "metrics.jsonl",
    "training.png",
    "validation.json",
    "tensorboard",
)
_Described = TypeVar("_Described")
#: For each kind, a key that only its configuration has.
_SIGNATURE_KEYS = {"router": "head", "probe": "labels"}


def check_folder(folder: AnyPath, kind: str) -> None:
    """Refuse a folder whose other files would be overwritten.

    Args:
        folder: The folder to write to.
        kind: ``router`` or ``probe``.

    Raises:
        UserError: The folder has files of these names that are not of that kind.
    """
    if not any(is_there(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)):
        return
    try:
        read_config(folder, kind)
    except UserError:
        raise UserError(f"{folder} holds something that is not a {kind}; give another folder") from None


def check_output_folder(folder: AnyPath, kind: str, *, overwrite: bool) -> None:
    """Refuse a folder that a training should not write to.

    Args:
        folder: The folder to write to.
        kind: ``router`` or ``probe``.
        overwrite: Whether the user asks to replace what is there.

    Raises:
        UserError: The folder holds something else, or a router or probe that is not to be replaced.
    """
    check_folder(folder, kind)
    if not overwrite and is_there(folder / CONFIG_FILE):
        raise UserError(
            f"{folder} holds a {kind} already; give --overwrite to replace it and its evaluation, or another folder "
            "to --out"
        )


def make_early(folder: AnyPath, kind: str) -> None:
    """Make a local folder before a long computation, so that an error in writing it shows at once.

    Raises:
        UserError: The folder cannot be written.
    """
    if isinstance(folder, Path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{kind} folder {folder} cannot be written: {error.strerror or error}") from None


def remove_training_records(folder: AnyPath) -> None:
    """Remove what an earlier training left beside the weights, so that no record of it lies beside new ones.

    Raises:
        UserError: A file stays.
    """
    try:
        for name in (METRICS_FILE, PICTURE_FILE, VALIDATION_FILE):
            remove(folder / name)
        if is_folder(folder / TENSORBOARD):
            for file in entries(folder / TENSORBOARD):
                remove(file)
    except OSError as error:
        raise UserError(f"an older training's files in {folder} cannot be removed: {error}") from None


def write_folder(
    folder: PathOrUrl, kind: str, *, config: dict[str, Any], tensors: dict[str, torch.Tensor], card: str
) -> None:
    """Write a router or a probe: into a new folder, or over one of its kind, whose evaluation is removed.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    path = locate(folder)
    check_folder(path, kind)
    try:
        # These are removed first: they must never lie beside weights that they do not describe.
        if is_there(path / CONFIG_FILE):
            for of_old_weights in (EVALUATION_FILE, EVALUATION_PICTURE, CONFIG_FILE):
                remove(path / of_old_weights)
        with uploaded(path) as written:
            written.mkdir(parents=True, exist_ok=True)
            kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(kept, written / WEIGHTS_FILE, metadata={"format": "pt"})
            (written / CARD_FILE).write_text(card, encoding="utf-8")
        described = json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2) + "\n"
        write_whole(path / CONFIG_FILE, described.encode())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{kind} folder {folder} cannot be written: {error}") from None


def find_folder(where: PathOrUrl, kind: str) -> AnyPath:
    """The folder of a router or a probe; a hub id is downloaded.

    Raises:
        UserError: There is no such folder.
    """
    path, source = locate(where), str(where)
    if is_folder(path):
        return path
    if "://" in source or is_there(path) or source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise UserError(
            f"{kind} {without_secrets(source)!r} cannot be found: there is no such folder, and a hub id has the form "
            "owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, CARD_FILE]))
    except Exception as error:  # any failure of the network, from any library
        raise UserError(
            f"{kind} {source!r} is not a folder here and cannot be read from the hub ({type(error).__name__})"
        ) from None


def weights_sha256(where: PathOrUrl, kind: str) -> str:
    """SHA-256 of the weights of a router or a probe: an evaluation names the ones that it judged.

    Raises:
        UserError: There is no such folder, or its weights cannot be read.
    """
    file = find_folder(where, kind) / WEIGHTS_FILE
    try:
        return hashlib.sha256(content(file)).hexdigest()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def read_config(folder: AnyPath, kind: str) -> dict[str, Any]:
    """The configuration of a router or a probe.

    Raises:
        UserError: There is no configuration, it is damaged, or it is of another kind.
    """
    file = folder / CONFIG_FILE
    try:
        config = json.loads(content(file).decode())
    except FileNotFoundError:
        raise UserError(f"{folder} is no {kind} folder: it has no {CONFIG_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{file} does not hold a JSON object")
    for other, sign in _SIGNATURE_KEYS.items():
        if other != kind and sign in config and "base_model" in config:
            raise UserError(f"{folder} holds a {other}, and not a {kind}")
    if "base_model" not in config:
        raise UserError(f"{file} is no {kind}'s configuration: it names no base model")
    return config


def check_version(config: dict[str, Any], folder: AnyPath, kind: str) -> None:
    """Refuse a format version that this release does not read.

    Raises:
        UserError: The format version is missing, or is not the one that this release reads.
    """
    if "format_version" not in config:
        raise UserError(f"{folder / CONFIG_FILE} is no {kind}'s configuration: it has no format_version")
    if config["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"{folder / CONFIG_FILE} has format version {config['format_version']!r}, this release reads "
            f"{FORMAT_VERSION}"
        )


def read_tensors(file: AnyPath, kind: str) -> dict[str, torch.Tensor]:
    """The tensors of a router or a probe; floating-point tensors in float32.

    Raises:
        UserError: There is no such file, it is damaged, or a weight in it is not finite.
    """
    try:
        with local_copy(file) as copy, safe_open(copy, framework="pt") as tensors:
            found = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118  (not a mapping)
    except FileNotFoundError:
        raise UserError(f"{file.parent} is no {kind} folder: it has no {file.name}") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is damaged (is it whole?): {error}") from None
    found = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    if not all(bool(tensor.isfinite().all()) for tensor in found.values()):
        raise UserError(f"{file} holds weights that are not finite")
    return found


def read_described(
    where: PathOrUrl, kind: str, describe: Callable[[dict[str, Any]], _Described]
) -> tuple[_Described, AnyPath]:
    """Find the folder of a router or a probe, and build the object that its configuration describes.

    Args:
        where: A folder, or a hub id.
        kind: ``router`` or ``probe``.
        describe: Builds the object from the configuration, with weights that are yet to be loaded.

    Returns:
        The object, and the folder.

    Raises:
        UserError: There is no such folder, or its configuration is damaged; the message says which.
    """
    folder = find_folder(where, kind)
    config = read_config(folder, kind)
    check_version(config, folder, kind)
    try:
        return describe(config), folder
    # RuntimeError: torch has no memory for the sizes.
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise UserError(f"{folder / CONFIG_FILE} is no {kind}'s configuration: {error!r}") from None


def load_weights(network: nn.Module, tensors: Mapping[str, torch.Tensor], file: AnyPath) -> None:
    """Load weights into a network and freeze them, for inference.

    Raises:
        UserError: Names or shapes of the weights differ from the network's.
    """
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise UserError(f"{file} does not hold the weights that {CONFIG_FILE} describes")
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False)
