"""Runs that get more examples, or other settings before anything is committed: what stays, and what is searched."""

from __future__ import annotations

import json
import random
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
from simulated_actors import SimulatedActors
from tiny import save_tiny_model

from pipeline.distributed.cluster import Placement, PoolConfig
from pipeline.distributed.coordinator import Coordinator
from pipeline.errors import UserError
from pipeline.search.config import SearchConfig
from pipeline.shards.reader import read_json, read_manifest, read_paths, read_settings
from pipeline.storage import LocalWriter
from pipeline.workflows import run_search as workflow
from pipeline.workflows.run_search import run_search
from pipeline.workflows.search_request import SearchRequest

CPU = Placement(device="cpu", dtype="float32", pool=PoolConfig(num_actors=2, cpus_per_actor=1, gpus_per_actor=0.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


class Bench:
    """Searches on simulated actors; ``handed`` are the examples that the last one searched."""

    def __init__(self, folder, model, patch):
        self.out = folder / "run"
        self._patch = patch
        self._request = SearchRequest(
            model=str(model),
            task="arithmetic",
            out=self.out,
            group_size=4,
            calibration=0,
            search=SearchConfig(simulations=5),
        )
        self.handed: list[str] = []
        self.lines: list[str] = []

        @contextmanager
        def joined(wanted, model=None):
            yield CPU

        patch.setattr(workflow, "joined_cluster", joined)

    def search(self, *, stop_after=None, **changes):
        """Search; where ``stop_after`` is given, Ctrl-C comes after so many groups were handed out."""
        handed = []

        def on_search(actor, examples):
            if len(handed) == stop_after:
                raise KeyboardInterrupt
            handed.append([example.id for example in examples])

        actors = SimulatedActors(on_search=on_search)
        self._patch.setattr(workflow, "Coordinator", partial(Coordinator, actors=actors))
        self.lines = []
        try:
            return run_search(replace(self._request, **changes), command=["a", "b c"], announce=self.lines.append)
        finally:
            self.handed = sorted(example for group in handed for example in group)

    def files(self, *folders):
        return {
            file.relative_to(self.out).as_posix(): file.read_bytes()
            for folder in folders
            for file in sorted((self.out / folder).glob("*"))
        }

    def ids(self):
        """The ids of all committed examples, with repetitions."""
        return sorted(example for record in read_manifest(self.out).values() for example in record.example_ids)


@pytest.fixture
def bench(tmp_path, model, monkeypatch):
    return Bench(tmp_path, model, monkeypatch)


@pytest.fixture
def ids(bench, tmp_path, model):
    """The ids of the first examples of the task."""
    request = replace(bench._request, limit=60)
    names = [example.id for example in workflow.read_examples(request)]
    return lambda number: names[:number]


@pytest.mark.parametrize("calibration", [0, 6, 32])
def test_an_extended_run_searches_only_what_is_new(bench, ids, calibration):
    """Catches examples that are searched twice or never, and shards or records that an extension writes anew."""
    assert bench.search(limit=10, calibration=calibration).complete
    before = bench.files("paths", "manifest")
    progress = bench.search(limit=27, calibration=calibration)
    assert progress.complete and progress.resumed_examples == 10
    assert "The run is extended: it had 10 examples, 17 are new." in bench.lines
    assert bench.handed == sorted(set(ids(27)) - set(ids(10))) and bench.ids() == sorted(ids(27))
    after = bench.files("paths", "manifest")
    assert {name: after[name] for name in before} == before
    assert [len(record.example_ids) for _, record in sorted(read_manifest(bench.out).items())] == [4, 4, 2] + [
        4
    ] * 4 + [1]
    assert (bench.out / "_SUCCESS").exists() and list(read_paths(bench.out).example_id.unique()) == ids(27)


def test_run_json_says_what_a_run_was_before(bench):
    """Catches provenance that an extension loses, and settings from which the examples cannot be read again."""
    for limit in (6, 6, 10, 13):
        bench.search(limit=limit)
    noted, settings = read_json(bench.out / "run.json"), read_settings(bench.out)
    assert (settings["limit"], settings["extended_at"], noted["examples"]) == (13, [6, 10], 13)
    assert [(one["limit"], one["examples"]) for one in noted["earlier"]] == [(6, 6), (10, 10)]
    assert len({noted["run_id"], *(one["run_id"] for one in noted["earlier"])}) == 3
    assert noted["command"] == ["a", "b c"] and noted["loaded_model"]["num_layers"] == 3


@pytest.mark.parametrize("case", range(6))
def test_an_extension_that_is_interrupted_is_resumed(bench, ids, case):
    """Catches an example that is lost, or committed twice, between interruptions and extensions in any order."""
    rng = random.Random(case)
    calibration, total, committed = rng.choice([0, 3, 9]), 0, {}
    for _ in range(3):
        total += rng.randrange(1, 12)
        for stop_after in [*(rng.randrange(4) for _ in range(rng.randrange(3))), None]:
            try:
                progress = bench.search(limit=total, calibration=calibration, stop_after=stop_after)
            except KeyboardInterrupt:
                assert not (bench.out / "_SUCCESS").exists()
            shards = bench.files("paths")
            assert {name: shards.get(name) for name in committed} == committed
            committed = shards
        assert progress.complete and bench.ids() == sorted(ids(total))


@pytest.mark.parametrize("calibration", [0, pytest.param(60, marks=pytest.mark.exhaustive)])
def test_a_crash_at_any_write_of_an_extension_loses_nothing(bench, ids, monkeypatch, calibration):
    """Catches a run that is complete by its mark and not by its settings, and one that no command can go on with."""
    write, remove, left = LocalWriter.write, LocalWriter.remove, [0]

    def counted(method):
        def crash_or_call(self, *arguments, **options):
            if left[0] == 0:
                raise ZeroDivisionError
            left[0] -= 1
            return method(self, *arguments, **options)

        return crash_or_call

    done = crashed = 0
    total = 5
    assert bench.search(limit=total, calibration=calibration).complete
    while done < 2:
        before, total, left[0] = bench.files("paths"), total + 3, crashed
        with monkeypatch.context() as patched:
            patched.setattr(LocalWriter, "write", counted(write))
            patched.setattr(LocalWriter, "remove", counted(remove))
            try:
                assert bench.search(limit=total, calibration=calibration).complete
                done += 1
            except ZeroDivisionError:
                crashed += 1
                number = read_json(bench.out / "run.json")["examples"]
                marked = (bench.out / "_SUCCESS").exists()
                assert not marked or bench.ids() == sorted(ids(number))
        assert bench.search(limit=total, calibration=calibration).complete
        after = bench.files("paths")
        assert {name: after[name] for name in before} == before and bench.ids() == sorted(ids(total))
    assert crashed > 5


def test_where_groups_end_alike_an_extended_run_is_the_longer_run(bench, tmp_path, model, monkeypatch):
    """Catches a prior of the first few examples alone, though no row was found with it."""
    for limit in (4, 12, 24):
        bench.search(limit=limit, calibration=16)
    fresh = Bench(tmp_path / "fresh", model, monkeypatch)
    fresh.out.parent.mkdir()
    fresh.search(limit=24, calibration=16)
    assert fresh.files("paths", "calibration") == bench.files("paths", "calibration")
    name = "prior.safetensors"
    assert (fresh.out / name).read_bytes() == (bench.out / name).read_bytes()
    bench.search(limit=40, calibration=16)
    assert (fresh.out / name).read_bytes() == (bench.out / name).read_bytes(), "it has guided rows by now"


def test_rows_may_be_appended_to_the_data_and_not_changed(bench, tmp_path):
    """Catches a run of two data sets: rows that were changed, removed or put before others."""
    data = tmp_path / "data.jsonl"
    lines = [json.dumps({"prompt": f"{n} + 1 =", "answer": str(n + 1)}) for n in range(12)]

    def search(rows, **changes):
        data.write_text("\n".join(rows))
        return bench.search(task="jsonl", data=str(data), **changes)

    assert search(lines[:6]).complete
    assert search(lines[:9]).complete and len(bench.handed) == 3
    for rows in ([*lines[1:]], [lines[1], lines[0], *lines[2:]], [*lines[:8], lines[9]], lines[:8]):
        with pytest.raises(UserError, match=r"data_sha256.*\n.*if its own come first and are unchanged"):
            search(rows)
    with pytest.raises(UserError, match=r"settings:\n  --keep: 4 there, 'all' now\n") as refusal:
        search(lines, keep="all")
    assert "limit" not in str(refusal.value)
    assert search(lines, limit=12).complete and len(bench.handed) == 3
    assert search(lines, limit=50).complete and not bench.handed


def test_settings_without_a_row_are_replaced(bench, ids):
    """Catches a folder that a refused call leaves, and that refuses the corrected call."""
    with pytest.raises(KeyboardInterrupt):
        bench.search(limit=10, calibration=8, stop_after=0)
    (bench.out / "calibration").mkdir()
    (bench.out / "calibration" / "group-000000.parquet").write_bytes(b"half a commit")
    assert bench.search(limit=7, seed=3).complete
    [line] = [line for line in bench.lines if "replace" in line]
    assert line.startswith("Nothing is committed in ")
    settings = read_settings(bench.out)
    assert (settings["limit"], settings["seed"], settings["calibration"]) == (7, 3, 0)
    assert "extended_at" not in settings and not list((bench.out / "calibration").iterdir())
    with pytest.raises(UserError, match="--seed: 3 there, 0 now"):
        bench.search(limit=7)


def test_a_given_prior_goes_with_its_settings(bench, tmp_path, model, monkeypatch):
    """Catches a calibration that is left out because the prior of a call that came to nothing lies there."""
    source = Bench(tmp_path / "source", model, monkeypatch)
    source.out.parent.mkdir()
    source.search(limit=8, calibration=4)
    with pytest.raises(KeyboardInterrupt):
        bench.search(limit=8, calibration=None, prior=source.out, stop_after=0)
    (bench.out / "prior.safetensors").write_bytes(b"the prior of the other call")
    assert bench.search(limit=8, calibration=4).complete
    assert len(bench.files("calibration")) == 1
