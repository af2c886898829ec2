"""Arrays on disk by key: a frozen model's states on texts, computed once and mapped into memory.

    FOLDER/*.safetensors    arrays in float16, one behind the other, a file for each chunk of work that an actor did

A file is written under another name and moved into place, so interrupted work is continued where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pipeline.errors import UserError

Array = np.ndarray[Any, Any]

_TENSOR = "arrays"
_LARGEST = float(np.finfo(np.float16).max)


class ArrayStore:
    """Arrays of one kind, in a folder that several trainings share.

    Args:
        root: The folder of all kinds.
        kind: All that determines an array beside its key, as JSON values: the model's revision, its precision, ….

    Raises:
        UserError: The folder cannot be written or read.
    """

    def __init__(self, root: Path, kind: Sequence[Any]) -> None:
        self.folder = root / hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:24]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"features cannot be kept in {root}: {error.strerror or error}") from None
        self._files: dict[Path, Any] = {}
        #: Where each key's array is: the file, and its first and last index there.
        self._slices: dict[str, tuple[Path, int, int]] = {}
        for file in sorted(self.folder.glob("*.safetensors")):
            self._note(file)

    def __contains__(self, key: str) -> bool:
        return key in self._slices

    def lengths(self, keys: Sequence[str]) -> list[int]:
        """The first dimension of each key's array."""
        return [end - start for _, start, end in (self._slices[key] for key in keys)]

    def add(self, keys: Sequence[str], arrays: Sequence[Array], *, names: Sequence[str]) -> None:
        """Keep arrays that differ in their first dimension at most.

        Args:
            keys: Key of each array.
            arrays: The arrays.
            names: Name of each array in messages.

        Raises:
            UserError: A value is not finite, or the arrays cannot be written.
        """
        broken = [name for name, array in zip(names, arrays) if not np.isfinite(array).all()]
        if broken:
            raise UserError(
                f"the features of {len(broken)} prompts are not finite, first those of {broken[0]}: the model "
                "overflows in this precision; use bfloat16 or float32"
            )
        ends = np.cumsum([len(array) for array in arrays]).tolist()
        file = self.folder / f"{hashlib.sha256(''.join(keys).encode()).hexdigest()[:24]}.safetensors"
        staged = self.folder / f"{uuid.uuid4().hex}.part"
        # Residual streams rarely leave float16's range, and clipping them there changes nothing that matters.
        stored = np.concatenate([np.clip(array, -_LARGEST, _LARGEST).astype(np.float16) for array in arrays])
        try:
            save_file({_TENSOR: stored}, staged, metadata={"arrays": json.dumps({"keys": list(keys), "ends": ends})})
            staged.replace(file)
        except (OSError, SafetensorError) as error:
            raise UserError(f"features cannot be written to {self.folder}: {error}") from None
        finally:
            staged.unlink(missing_ok=True)  # also after Ctrl-C
        self._note(file)

    def read(self, key: str) -> Array:
        """The array of a key, in float16, from the mapped file."""
        file, start, end = self._slices[key]
        found: Array = self._files[file].get_slice(_TENSOR)[start:end]
        return found

    def free_bytes(self) -> int:
        """Number of free bytes on the store's disk."""
        return shutil.disk_usage(self.folder).free

    def _note(self, file: Path) -> None:
        """Map a file and index its arrays; a damaged file counts as absent."""
        try:
            mapped = safe_open(file, framework="np")
            arrays = json.loads(mapped.metadata()["arrays"])  # type: ignore[no-untyped-call]
            keys, ends = arrays["keys"], arrays["ends"]
            slices = {key: (file, start, end) for key, start, end in zip(keys, [0, *ends], ends, strict=False)}
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return
        self._files[file] = mapped
        self._slices.update(slices)
