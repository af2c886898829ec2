"""The splits of a folder of data files, which their names show: of a cloned hub data set, or ``train.jsonl``.

Names are read as the library ``datasets`` reads them: ``SPLIT-00000-of-00001.parquet``, or a usual word for a split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from pipeline.errors import UserError
from pipeline.storage import AnyPath

#: The hub's name of a file: its split, its number, and the number of the split's files.
_SHARD = re.compile(r"(?P<split>\w+(?:\.\w+)*)-\d{5}-of-\d{5}")
#: Usual words for a split, by the name that ``--split`` gives it.
_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


def files_of_split(files: Sequence[AnyPath], split: str, *, folder: str) -> list[AnyPath]:
    """The files of one split; all files where no name shows a split.

    Args:
        files: Data files of one folder.
        split: Name of the split.
        folder: The folder, for messages.

    Raises:
        UserError: No file is of that split, or some names show a split and others do not.
    """
    splits = {file: split_of(file.name) for file in files}
    named = sorted({found for found in splits.values() if found is not None})
    if not named:
        return list(files)
    unnamed = [file.name for file, found in splits.items() if found is None]
    if unnamed:
        raise UserError(
            f"data folder {folder!r} holds the splits {', '.join(named)}, by the names of its files, and "
            f"{unnamed[0]!r}, whose name shows none; give one of the files"
        )
    wanted = _WORDS.get(split.lower(), split)
    if wanted not in named:
        raise UserError(
            f"data folder {folder!r} holds no split {split!r}, by the names of its files; it has: {', '.join(named)}"
        )
    return [file for file, found in splits.items() if found == wanted]


def split_of(name: str) -> str | None:
    """The split that a file's name shows; None for another name."""
    stem = PurePath(name).stem
    shard = _SHARD.fullmatch(stem)
    split = stem if shard is None else shard["split"]
    return _WORDS.get(split.lower(), None if shard is None else split)
