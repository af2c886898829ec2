"""From a request to a run folder, on simulated actors: what is checked when, and what a resumed run keeps."""

from __future__ import annotations

import json
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
from pipeline.shards import read_settings
from pipeline.shards.progress import Progress
from pipeline.shards.reader import read_json
from pipeline.shards.run_config import SCHEMA_VERSION
from pipeline.shards.source_examples import examples_of
from pipeline.tasks.prompting import PROMPT_VERSION
from pipeline.workflows import run_search as workflow
from pipeline.workflows.run_search import run_search
from pipeline.workflows.search_request import SearchRequest

POOL = PoolConfig(num_actors=2, cpus_per_actor=1, gpus_per_actor=0.0)
CPU = Placement(device="cpu", dtype="float32", pool=POOL)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def request_of(tmp_path, model):
    def make(**changes) -> SearchRequest:
        search = SearchConfig(simulations=5)
        request = SearchRequest(
            model=str(model), task="arithmetic", out=tmp_path / "run", limit=8, calibration=0, search=search
        )
        return replace(request, **changes)

    return make


@pytest.fixture
def on(monkeypatch):
    """Lets searches run on a placement; None for no cluster at all."""

    def use(placement: Placement | None) -> None:
        @contextmanager
        def joined(wanted, model):
            assert placement is not None, "a cluster is started"
            yield placement

        monkeypatch.setattr(workflow, "joined_cluster", joined)
        monkeypatch.setattr(workflow, "Coordinator", partial(Coordinator, actors=SimulatedActors()))

    return use


def test_a_run_has_the_placement_of_its_actors_in_its_settings(on, request_of, tmp_path):
    """Catches settings that say ``auto``: a run on another device would be taken for the same."""
    on(CPU)
    said = []
    assert run_search(request_of(), announce=said.append).complete
    settings = read_settings(tmp_path / "run")
    assert (settings["device"], settings["dtype"], settings["schema_version"]) == ("cpu", "float32", SCHEMA_VERSION)
    assert "8 examples of task arithmetic; up to 2 actors on cpu in float32; run folder" in said[-1]


def test_run_json_keeps_the_command_without_secrets(on, request_of, tmp_path):
    """Catches the signature of a URL in a file that is shared, and a command that decides what may be resumed."""
    on(CPU)
    run_search(request_of(), command=("drllm-pipeline", "search", "--data=https://host/q.jsonl?signature=secret", "x?"))
    assert run_search(request_of(), command=("other",)).resumed_examples == 8
    command = read_json(tmp_path / "run" / "run.json")["command"]
    assert command == ["drllm-pipeline", "search", "--data=https://host/q.jsonl?…", "x?"]


def test_a_run_is_resumed_by_the_same_request(on, request_of):
    """Catches a run whose settings differ in every call."""
    on(CPU)
    assert run_search(request_of()).resumed_examples == 0
    assert run_search(request_of()).resumed_examples == 8


def test_a_run_keeps_its_prompts_and_its_date(on, request_of, tmp_path, monkeypatch):
    """Catches a run whose later examples are asked in other words, or on another date, than its earlier ones."""
    on(CPU)
    monkeypatch.setattr(workflow, "today", lambda: "2026-01-31")
    run_search(request_of())
    file = tmp_path / "run" / "run.json"
    stored = json.loads(file.read_text())
    assert (stored["day"], stored["settings"]["prompt_version"]) == ("2026-01-31", PROMPT_VERSION)
    monkeypatch.setattr(workflow, "today", lambda: "2026-02-01")
    seen = []
    monkeypatch.setattr(workflow, "Coordinator", lambda **given: seen.append(given["config"]) or Stopped())
    for settings in (stored["settings"], first_release(stored["settings"])):
        file.write_text(json.dumps({**stored, "settings": settings}))
        with pytest.raises(KeyboardInterrupt):
            run_search(request_of())
    assert [(config.day, config.prompt_version, config.schema_version) for config in seen] == [
        ("2026-01-31", PROMPT_VERSION, SCHEMA_VERSION),
        ("2026-01-31", 1, 1),
    ]


def test_a_local_model_is_its_weights_and_not_its_spelling(on, request_of, model, monkeypatch):
    """Catches a run that a trailing slash, or a command from another folder, cannot resume."""
    on(CPU)
    run_search(request_of())
    monkeypatch.chdir(model.parent)
    for spelled in (f"{model}/", model.name, f"./{model.name}"):
        assert run_search(request_of(model=spelled)).resumed_examples == 8


def test_paths_are_kept_absolute_beside_what_was_typed(on, request_of, model, tmp_path, monkeypatch):
    """Catches a run whose model and questions are found from the folder alone in which it was made."""
    on(CPU)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "1 + 1 =", "answer": "2"}\n')
    monkeypatch.chdir(tmp_path)
    run_search(request_of(task="jsonl", data="rows.jsonl", limit=None))
    notes = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (notes["data"], notes["data_path"]) == ("rows.jsonl", str(tmp_path / "rows.jsonl"))
    assert notes["model_path"] == str(model.resolve())
    monkeypatch.chdir(model)
    assert [example.answer for example in examples_of(tmp_path / "run")] == ["2"]
    (tmp_path / "rows.jsonl").rename(tmp_path / "moved.jsonl")
    with pytest.raises(UserError, match=r"rows\.jsonl"):
        examples_of(tmp_path / "run")
    assert [example.answer for example in examples_of(tmp_path / "run", data=str(tmp_path / "moved.jsonl"))] == ["2"]


def first_release(settings):
    """The settings of a run as the first release wrote them."""
    return {name: value for name, value in settings.items() if name != "prompt_version"} | {"schema_version": 1}


class Stopped:
    """A coordinator that is interrupted at once."""

    def __init__(self) -> None:
        self.progress = Progress(num_examples=8, programs_an_example=6)

    def run(self) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("changes", "said"), [({"seed": 3}, "--seed: 0 there, 3 now"), ({"keep": "all"}, "--keep: 4 there, 'all' now")]
)
def test_other_settings_are_refused_before_a_cluster_is_started(on, request_of, changes, said):
    """Catches minutes of waiting for a cluster, of a call that is refused in any case."""
    on(CPU)
    run_search(request_of())
    on(None)
    with pytest.raises(UserError, match=said):
        run_search(request_of(**changes))


@pytest.mark.parametrize(
    ("placement", "said"),
    [
        (replace(CPU, device="cuda"), "--device: 'cpu' there, 'cuda' now"),
        (replace(CPU, dtype="bfloat16"), "--dtype: 'float32' there, 'bfloat16' now"),
    ],
)
def test_a_run_is_not_resumed_on_another_device(on, request_of, placement, said):
    """Catches rows of two precisions in one run."""
    on(CPU)
    run_search(request_of())
    on(placement)
    with pytest.raises(UserError, match=said):
        run_search(request_of())


def test_a_folder_of_something_else_is_refused_before_a_cluster_is_started(on, request_of, tmp_path):
    """Catches a run that spills into the user's files, and one that is refused only after a cluster was started."""
    on(None)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("")
    with pytest.raises(UserError, match="exists and is no run folder"):
        run_search(request_of())
