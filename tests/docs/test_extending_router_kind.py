"""The recipe for a kind of router, followed word for word in a copy of the packages."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from shard_rows import CONFIG, rows
from tiny import NUM_LAYERS, save_tiny_model

from pipeline.engine import FrozenModel
from pipeline.model_source import resolve_model
from pipeline.shards.run_folder import RunFolder
from router.features.window_features import FeatureStore, pooled_along
from router.labels.from_runs import read_runs, shortest_labels

REPOSITORY = Path(__file__).resolve().parents[2]
HEADING = "## A kind of router"
#: Runs each argument as a command, all in one interpreter: that of the checkout, since its folder comes first.
RUN_ALL = """
import shlex, sys
from pipeline.cli.main import main
for words in sys.argv[1:]:
    try:
        main(shlex.split(words))
    except SystemExit as ended:
        print("exit code", ended.code)
        if ended.code and "--gamma" not in words:
            raise
"""
#: A short program for one kind of prompt, a longer one for the other: what the centroids have to find.
RULES = {"Add": (1, 1, 0, 1, 0, 1), "Compare": (1, 1, 1, 1, 1, 1)}


def blocks_of(heading: str) -> list[tuple[str, str]]:
    """The fenced code blocks of a section of the document, each with its language."""
    text = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
    [section] = [part for part in re.split(r"(?m)^(?=## )", text) if part.startswith(f"{heading}\n")]
    return re.findall(r"(?ms)^```(\w+)\n(.*?)^```$", section)


def write_run(folder: Path, model: Path) -> None:
    """A run of the tiny model whose right programs follow the rules."""
    rng = random.Random(0)
    run = RunFolder(folder)
    run.open(replace(CONFIG, model=resolve_model(str(model))), provenance={})
    run.describe_model({"num_layers": NUM_LAYERS, "special_tokens_added": True})
    for number in range(60):
        kind = sorted(RULES)[number % 2]
        counts = list(RULES[kind])
        program = [layer for layer, count in enumerate(counts) for _ in range(count)]
        row = {
            **rows(f"q{number}")[0],
            "prompt": f"{kind} {rng.randrange(100)} and {rng.randrange(100)}",
            "program": program,
            "counts": counts,
            "length": len(program),
            "num_layers": NUM_LAYERS,
            "saved_layers": NUM_LAYERS - len(program),
        }
        run.commit(number, [row])
    run.close()


def keep_features(run: Path, model: Path, folder: Path) -> None:
    """Compute the features that the recipe's training needs, so that it starts no Ray."""
    labels = shortest_labels(read_runs([run]).solved)
    kind = {"num_windows": 1, "add_special_tokens": True}
    store = FeatureStore(folder, revision=resolve_model(str(model)).revision, dtype=CONFIG.dtype, **kind)
    store.add(labels, pooled_along(FrozenModel.load(str(model), device="cpu"), labels, **kind))


@pytest.mark.commands
def test_the_recipe_gives_a_router_that_trains_loads_and_keeps_its_budget(tmp_path):
    """Catches a kind that needs more than its two files and a line in each table, and a recipe that is out of date."""
    checkout = tmp_path / "checkout"
    for package in ("pipeline", "router"):
        shutil.copytree(REPOSITORY / package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    model, run = save_tiny_model(tmp_path / "model"), checkout / "runs" / "sums"
    write_run(run, model)
    keep_features(run, model, tmp_path / "cache" / "features")
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "DRLLM_CACHE": str(tmp_path / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    # Another kind's option is refused beside it, by the table alone.
    refused = "train --data runs/sums --out x --head nearest-centroid --gamma 1"
    commands = []
    for language, text in blocks_of(HEADING):
        first, _, rest = text.partition("\n")
        if language == "python":
            (checkout / first.removeprefix("# ")).write_text(rest, encoding="utf-8")
        elif language == "diff":
            subprocess.run(["git", "apply", "-"], input=text, text=True, cwd=checkout, check=True, timeout=60)
        elif language == "bash":
            commands += [line.removeprefix("drllm-pipeline ") for line in text.splitlines()]
    result = subprocess.run(
        [sys.executable, "-c", RUN_ALL, *commands, refused],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    said = result.stdout
    assert "Training centroids on" in said and f"4 of {NUM_LAYERS} layers ran" in said
    router = checkout / "routers" / "centroids"
    config = json.loads((router / "config.json").read_text())
    assert config["head"] == "nearest-centroid" and config["made"]["held_out_macro_f1"] == 1.0
    assert "Each prompt runs one of" in (router / "README.md").read_text()
    assert (router / "training.png").read_bytes().startswith(b"\x89PNG")
    assert "exit code 2" in said and "--gamma goes with --head per-layer" in result.stderr
