"""Folders that hold something trained: ``config.json``, ``model.safetensors`` and a card, here or on the hub.

Routers and probes are both kept so; each refuses the other's by name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipeline.errors import UserError
from pipeline.storage import (
    AnyPath,
    PathOrUrl,
    content,
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
#: Something that each kind's configuration has, and the other's has not.
_SIGNS = {"router": "head", "probe": "labels"}


def check_folder(folder: AnyPath, kind: str) -> None:
    """Refuse a folder in which something else would be written over.

    Args:
        folder: Where something is to be written.
        kind: What: ``router`` or ``probe``.

    Raises:
        UserError: It has files of these names that are none of that kind.
    """
    if not any(is_there(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)):
        return
    try:
        read_config(folder, kind)
    except UserError:
        raise UserError(f"{folder} holds something that is no {kind}; give another folder") from None


def make_early(folder: AnyPath, kind: str) -> None:
    """Make a folder before long work is done for it, and so know that it can be written; a far one is made by writing.

    Raises:
        UserError: It cannot.
    """
    if isinstance(folder, Path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{kind} folder {folder} cannot be written: {error.strerror or error}") from None


def write_folder(
    folder: PathOrUrl, kind: str, *, config: dict[str, Any], tensors: dict[str, torch.Tensor], card: str
) -> None:
    """Write something trained: into a new folder, or over one of its kind.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    place = locate(folder)
    check_folder(place, kind)
    try:
        # Without its configuration the folder holds nothing: none may stand beside weights that it does not describe.
        remove(place / CONFIG_FILE)
        with uploaded(place) as written:
            written.mkdir(parents=True, exist_ok=True)
            kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(kept, written / WEIGHTS_FILE, metadata={"format": "pt"})
            (written / CARD_FILE).write_text(card, encoding="utf-8")
        described = json.dumps({"format_version": FORMAT_VERSION, **config}, indent=2) + "\n"
        write_whole(place / CONFIG_FILE, described.encode())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{kind} folder {folder} cannot be written: {error}") from None


def find_folder(place: PathOrUrl, kind: str) -> AnyPath:
    """The folder of something trained; a hub id is downloaded.

    Raises:
        UserError: There is none.
    """
    path, source = locate(place), str(place)
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
    except Exception as error:  # any failure of the network, in whatever library raised it
        raise UserError(
            f"{kind} {source!r} is no folder here and cannot be read from the hub ({type(error).__name__})"
        ) from None


def read_config(folder: AnyPath, kind: str) -> dict[str, Any]:
    """The configuration of something trained.

    Raises:
        UserError: There is none, it is damaged, or it is of another kind.
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
    for other, sign in _SIGNS.items():
        if other != kind and sign in config and "base_model" in config:
            raise UserError(f"{folder} holds a {other}, and not a {kind}")
    if "base_model" not in config:
        raise UserError(f"{file} is no {kind}'s configuration: it names no base model")
    return config


def check_version(config: dict[str, Any], folder: AnyPath) -> None:
    """Refuse what another release wrote.

    Raises:
        KeyError: It does not say which.
        UserError: Its format is another.
    """
    if config["format_version"] != FORMAT_VERSION:
        raise UserError(
            f"{folder / CONFIG_FILE} has format version {config['format_version']!r}, this release reads "
            f"{FORMAT_VERSION}"
        )


def read_tensors(file: AnyPath, kind: str) -> dict[str, torch.Tensor]:
    """The tensors of something trained; what is no whole number in float32.

    Raises:
        UserError: There is no such file, it is damaged, or a number in it is none.
    """
    try:
        with local_copy(file) as copy, safe_open(copy, framework="pt") as tensors:
            found = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118  (no mapping)
    except FileNotFoundError:
        raise UserError(f"{file.parent} is no {kind} folder: it has no {file.name}") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is damaged (is it whole?): {error}") from None
    found = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    if not all(bool(tensor.isfinite().all()) for tensor in found.values()):
        raise UserError(f"{file} holds weights that are no numbers")
    return found
