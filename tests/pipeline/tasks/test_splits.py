"""The splits of a folder of data files."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.tasks.rows import read_rows
from pipeline.tasks.splits import files_of_split, split_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("test-00000-of-00001.parquet", "test"),
        ("dev-00000-of-00001.parquet", "validation"),
        ("train_sft-00003-of-00010.parquet", "train_sft"),
        ("test.hard-00000-of-00001.parquet", "test.hard"),
        ("train.jsonl", "train"),
        ("Test.csv", "test"),
        ("val.jsonl", "validation"),
        ("eval.jsonl", "test"),
        ("train_v2.jsonl", None),
        ("questions.jsonl", None),
        ("part-0.parquet", None),
        ("contest.jsonl", None),
    ],
)
def test_a_name_shows_its_split(name, split):
    """Catches a split that is overlooked, and a word that is taken for one because it holds one."""
    assert split_of(name) == split


@pytest.fixture
def clone(tmp_path):
    """A hub data set as it is cloned: each split has other rows."""
    for split, names in (("train", ["a", "b"]), ("validation", ["c"]), ("test", ["d"])):
        for number, name in enumerate(names):
            frame = pd.DataFrame([{"prompt": name, "answer": name}])
            frame.to_parquet(tmp_path / f"{split}-{number:05d}-of-{len(names):05d}.parquet")
    (tmp_path / "README.md").write_text("# A data set")
    return tmp_path


@pytest.mark.parametrize(
    ("split", "prompts"), [("train", ["a", "b"]), ("validation", ["c"]), ("dev", ["c"]), ("test", ["d"])]
)
def test_a_clone_gives_the_split_that_was_asked_for(clone, split, prompts):
    """Catches a search of the test rows, because all files of a folder were read."""
    assert [row.values["prompt"] for row in read_rows(str(clone), split=split)] == prompts


def test_a_split_that_is_not_there_is_refused(clone):
    """Catches another split in its place."""
    with pytest.raises(UserError, match=r"holds no split 'hard', .* it has: test, train, validation$"):
        list(read_rows(str(clone), split="hard"))


def test_a_file_without_a_split_beside_splits_is_refused(clone):
    """Catches a file that is left out without a word, or read as part of every split."""
    (clone / "more.jsonl").write_text(json.dumps({"prompt": "e", "answer": "e"}))
    with pytest.raises(UserError, match=r"holds the splits test, train, validation, .* and 'more.jsonl', whose name"):
        list(read_rows(str(clone), split="train"))


def test_names_without_splits_are_all_read():
    """Catches a folder of parts of which some are left out."""
    files = [PurePosixPath("a.jsonl"), PurePosixPath("b.jsonl")]
    assert files_of_split(files, "test", folder="f") == files  # type: ignore[arg-type]


def test_a_folder_of_folders_names_them(tmp_path, clone):
    """Catches a clone with several configurations, for which the message says only that it holds no file."""
    outer = tmp_path / "outer"
    (outer / "ARC-Easy").mkdir(parents=True)
    (outer / ".git").mkdir()
    with pytest.raises(UserError, match=r"holds no .* file; it holds the folders ARC-Easy: give one of them$"):
        list(read_rows(str(outer), split="train"))
