"""The code that a process runs: what is said of it, and which mixtures are refused."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

import pipeline
from pipeline.distributed import installation as module
from pipeline.distributed.installation import check_not_hidden, check_same_source, installation, search_folders
from pipeline.errors import UserError


def test_an_installation_names_what_decides_results():
    """Catches a note that lacks the grader's version, or that names another place than the code's."""
    here = installation()
    assert Path(here.path) == Path(pipeline.__file__).resolve().parents[1]
    assert here.version == pipeline.__version__ and len(here.source) == 16
    for library in ("torch", "transformers", "ray", "math-verify"):
        assert here.libraries[library] == version(library)


def test_any_change_of_the_source_is_another_source(tmp_path):
    """Catches two copies of the package that pass for one."""
    (tmp_path / "router").mkdir()
    (tmp_path / "router" / "one.py").write_text("a = 1\n")
    before = module._source(tmp_path)
    (tmp_path / "router" / "notes.txt").write_text("no code")
    assert module._source(tmp_path) == before
    (tmp_path / "router" / "one.py").write_text("a = 2\n")
    assert module._source(tmp_path) != before


def test_an_actor_of_another_source_is_refused_by_name():
    """Catches a run whose actors are of another release than the process that plans it."""
    here = installation()
    check_same_source(here, here)
    with pytest.raises(UserError, match=r"from /elsewhere \(source 0123\), this process .* install one version"):
        check_same_source(replace(here, path="/elsewhere", source="0123"), here)


@pytest.mark.parametrize("file", ["pipeline.py", "router.py", "pipeline/__init__.py", "router/__init__.py"])
def test_a_file_that_hides_the_package_is_named(tmp_path, file):
    """Catches actors that die one after the other because Ray's workers import a user's file for the package."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    with pytest.raises(UserError, match=rf"{file} hides the installed package .*rename it, or start"):
        check_not_hidden([tmp_path])


def test_what_hides_nothing_is_left_alone(tmp_path):
    """Catches a refusal of the package's own checkout, or of a folder that is only called like it."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "data.jsonl").write_text("")
    (tmp_path / "my_pipeline.py").write_text("")
    check_not_hidden([tmp_path, Path(pipeline.__file__).parents[1]])


def test_the_working_folder_is_looked_at(tmp_path, monkeypatch):
    """Catches a check of the script's folder alone: Ray's workers look into the working folder too."""
    monkeypatch.chdir(tmp_path)
    assert tmp_path in search_folders()
