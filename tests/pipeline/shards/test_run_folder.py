"""A run folder that is damaged, taken up again, or none of ours."""

from __future__ import annotations

import dataclasses
import json
import math

import pyarrow.parquet as pq
import pytest
from shard_rows import CONFIG, opened, reopened, rows

from pipeline import read_paths
from pipeline.errors import UserError
from pipeline.prior import Evaluation, fit_prior
from pipeline.program import LayerProgram
from pipeline.search.config import DEFAULTS, SearchConfig
from pipeline.shards.extension import boundaries
from pipeline.shards.reader import read_manifest
from pipeline.shards.run_folder import RunFolder
from pipeline.storage import LocalWriter


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A run folder that holds nothing yet."""
    return opened(tmp_path / "run")


# -- damage -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: "{not json",
        lambda record: json.dumps([record]),
        lambda record: json.dumps({key: value for key, value in record.items() if key != "file"}),
        lambda record: json.dumps({**record, "surplus": 1}),
        *(
            lambda record, file=file: json.dumps({**record, "file": file})
            for file in ("../../x", "paths/../../x", "/etc/passwd", "run.json", "", 7, None)
        ),
        lambda record: json.dumps({**record, "group": "0"}),
    ],
)
def test_a_damaged_record_is_named(run, damage):
    """Catches a traceback at a broken record, or a record that leads the reader out of its folder."""
    run.commit(0, rows("a"))
    file = run.root / "manifest" / "group-000000.json"
    file.write_text(damage(json.loads(file.read_text())))
    for use in (lambda: read_paths(run.root), lambda: reopened(run)):
        with pytest.raises(UserError, match=r"group-000000\.json"):
            use()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-9]),
        lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
        lambda file: pq.write_table(pq.read_table(file).slice(1), file),
        lambda file: pq.write_table(pq.read_table(file).drop_columns("score"), file),
    ],
)
def test_a_damaged_shard_is_named(run, damage):
    """Catches rows that vanish silently, or a traceback of pyarrow, where a committed shard is damaged."""
    run.commit(0, rows("a"))
    damage(run.root / "paths" / "group-000000-train.parquet")
    with pytest.raises(UserError, match=r"committed shard .*group-000000-train\.parquet"):
        read_paths(run.root)


@pytest.mark.parametrize(
    "changes", [{"program": [0, 3]}, {"program": [-1]}, {"program": []}, {"program": [None]}, {"num_layers": 4}]
)
def test_programs_of_other_layers_are_refused(run, changes):
    """Catches an error from deep inside a report, or a wrong figure, where rows are not a search's."""
    best, identity = rows("a")
    run.commit(0, [{**best, **changes}, identity])
    with pytest.raises(
        UserError, match=r"group-000000-train\.parquet holds programs of layers that the model does not have"
    ):
        read_paths(run.root)


def test_a_group_without_rows_is_read(run):
    """Catches a check of rows that counts on there being any."""
    run.commit(0, [], failed={"a": "too long"})
    assert read_paths(run.root).empty


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_a_damaged_run_json_is_named(run, text):
    """Catches a traceback where the settings themselves cannot be read."""
    (run.root / "run.json").write_text(text, encoding="latin-1")
    for use in (lambda: read_paths(run.root), lambda: reopened(run)):
        with pytest.raises(UserError, match=r"run\.json"):
            use()


def test_a_folder_that_is_no_run_is_not_read(tmp_path):
    """Catches an empty data frame for a mistyped path."""
    with pytest.raises(UserError, match=r"no-run is no run folder.*run\.json"):
        read_paths(tmp_path / "no-run")


# -- opening ------------------------------------------------------------------------------


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    """Catches a run that spills into a folder, or over a file, that holds something else."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    (tmp_path / "file").write_text("")
    for name in ("photos", "file"):
        with pytest.raises(UserError, match=f"{name} exists and is no run folder"):
            opened(tmp_path / name)
    with pytest.raises(UserError, match="cannot be written"):
        opened(tmp_path / "file" / "below")
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["cat.png"]


def test_other_settings_are_named_with_both_values(run):
    """Catches rows of two settings in one data set, or a refusal that does not say what differs."""
    run.commit(0, rows("a"))
    other = dataclasses.replace(CONFIG, seed=5, search=SearchConfig(budget=0.5))
    with pytest.raises(UserError) as refusal:
        reopened(run, other)
    assert "\n  --budget: 1.0 there, 0.5 now\n  --seed: 0 there, 5 now\n" in str(refusal.value)
    assert "keep" not in str(refusal.value)


def test_the_same_weights_elsewhere_are_the_same_run(run):
    """Catches a run that cannot go on because the model's folder was moved."""
    moved = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, location="there"))
    assert reopened(run, moved) == {}


def test_resuming_finds_what_was_committed(run):
    """Catches a resumed run that searches committed questions again, or trusts what was only staged."""
    records = {group: run.commit(group, rows(example)) for group, example in ((0, "a"), (4, "e"))}
    (run.root / "_staging" / "group-000001-half.parquet").write_bytes(b"PAR1")
    before = (run.root / "run.json").read_bytes()
    run.close()
    assert run.open(CONFIG, provenance={"versions": "newer"}) == records
    assert not any((run.root / "_staging").iterdir())
    assert (run.root / "run.json").read_bytes() == before


def test_a_record_says_what_was_found_when(run):
    """Catches steps that are lost on the way, and a folder of an older version that cannot be taken up."""
    steps = {"a": [[0, 4], [3, 2]]}
    assert run.commit(0, rows("a"), improvements=steps).improvements == steps
    assert reopened(run)[0].improvements == steps
    file = run.root / "manifest" / "group-000000.json"
    older = json.loads(file.read_text())
    del older["improvements"]
    file.write_text(json.dumps(older))
    assert reopened(run)[0].improvements == {}


def test_a_run_from_before_a_setting_goes_on(run):
    """Catches a new setting, at what was always so, that makes every run under way another one."""
    assert "search.unexplored_child" not in CONFIG.settings() and "extended_at" not in CONFIG.settings()
    run.commit(0, rows("a"))
    other = dataclasses.replace(CONFIG, search=dataclasses.replace(CONFIG.search, unexplored_child=0.1))
    with pytest.raises(UserError, match=r"search\.unexplored_child: not given there, 0\.1 now"):
        reopened(run, other)


@pytest.mark.parametrize("numbers", ["6", [6, 6], [10, 6], [0], [True], [6.0], None])
def test_damaged_boundaries_of_an_extension_are_named(numbers):
    """Catches a run whose groups are cut anew, and no more fit what is committed."""
    assert boundaries({}) == () and boundaries({"extended_at": [6, 10]}) == (6, 10)
    with pytest.raises(UserError, match=r"run\.json .*settings\.extended_at"):
        boundaries({"extended_at": numbers})


def test_calibration_questions_are_searched_by_single_layers():
    """Catches a prior of CoLa's space that learns from programs too far away to tell what a layer is worth."""
    cola = dataclasses.replace(CONFIG, search=DEFAULTS["cola"], calibration=8)
    assert cola.calibration_search == dataclasses.replace(DEFAULTS["cola"], action_space="drllm")
    assert cola.settings()["calibration_space"] == "drllm"
    uncalibrated = dataclasses.replace(cola, calibration=0)
    assert uncalibrated.calibration_search == DEFAULTS["cola"] and "calibration_space" not in uncalibrated.settings()
    assert "calibration_space" not in dataclasses.replace(CONFIG, calibration=8).settings()


@pytest.mark.parametrize(
    "improvements", [None, {"a": [[1]]}, {"a": [["1", 2]]}, {"a": [[0, 3], [-1, 2]]}, {"a": [[0, 3], [2, 0]]}]
)
def test_improvements_that_are_none_are_refused(run, improvements):
    """Catches an error from deep inside a report where a record was damaged."""
    run.commit(0, rows("a"))
    file = run.root / "manifest" / "group-000000.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "improvements": improvements}))
    with pytest.raises(UserError, match="is damaged"):
        read_manifest(run.root)


def test_failures_are_noted_and_forgotten(run):
    """Catches a question that stays in failed/ after a later call has searched it."""
    run.set_aside(2, {"x": "OSError: no", "y": "OSError: no"})
    record = run.commit(3, rows("a"), failed={"z": "ValueError: too long"})
    assert record.failed == {"z": "ValueError: too long"} and record.example_ids == ["a"]
    lines = (run.root / "failed" / "group-000002.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"example_id": i, "error": "OSError: no"} for i in "xy"]
    run.clear_failures({3: record})
    assert [file.name for file in (run.root / "failed").iterdir()] == ["group-000003.jsonl"], (
        "its group is not run again"
    )


def test_a_finished_run_is_marked_and_tidy(run):
    """Catches a mark without an end, or staging that stays in a finished folder."""
    run.commit(0, rows("a"))
    run.mark_complete()
    assert (run.root / "_SUCCESS").exists() and not (run.root / "_staging").exists()
    assert set(reopened(run)) == {0}
    assert not (run.root / "_SUCCESS").exists(), "a run that is taken up has yet to end"
    (run.root / "_staging" / ".nfs0001").write_text("")
    run.mark_complete()
    assert (run.root / "_SUCCESS").exists(), "a complete run does not end with what cannot be tidied up"


def test_a_deleted_shard_is_searched_again(run):
    """Catches a run that ends well without the rows that were deleted, and one that cannot be read until then."""
    run.commit(0, rows("a"))
    run.commit(1, rows("b"))
    (run.root / "paths" / "group-000000-train.parquet").unlink()
    assert set(reopened(run)) == {1}
    assert set(read_paths(run.root).example_id) == {"b"}, "its group may fail this time"


def test_a_changed_shard_is_no_part_of_a_complete_run(run):
    """Catches a run that is called complete, and gone on with, though its rows were edited."""
    run.commit(0, rows("a"))
    run.commit(1, rows("b"))
    run.mark_complete()
    shard = run.root / "paths" / "group-000000-train.parquet"
    committed, edited = shard.read_bytes(), pq.read_table(shard).slice(1)
    pq.write_table(edited, shard)
    with pytest.raises(
        UserError, match=r"group-000000-train.parquet .*changed after its commit; restore it, or delete it"
    ):
        reopened(run)
    assert not (run.root / "_SUCCESS").exists()
    shard.write_bytes(committed)
    assert set(reopened(run)) == {0, 1}
    shard.unlink()
    assert set(reopened(run)) == {1}


def test_a_crash_while_a_group_is_dropped_leaves_no_record_without_a_shard(tmp_path, monkeypatch):
    """Catches a run that cannot be read because its shard was removed before its record."""
    run = RunFolder(tmp_path / "run")
    run.open(TEACHING, provenance={})
    run.commit(0, rows("a"), evaluations=LESSON)
    run.commit(1, rows("b"), evaluations=LESSON)
    (run.root / "calibration" / "group-000000.parquet").unlink()
    remove = LocalWriter.remove

    def crash(self, name):
        remove(self, name)
        raise ZeroDivisionError

    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(LocalWriter, "remove", crash)
        reopened(run, TEACHING)
    assert set(read_paths(run.root).example_id) == {"b"}
    assert set(reopened(run, TEACHING)) == {1}
    assert not (run.root / "paths" / "group-000000-train.parquet").exists()


def test_an_older_run_goes_on_with_its_names(run):
    """Catches a run of which load_dataset reads the newer shards alone, and an older one that cannot be resumed."""
    record = run.commit(0, rows("a"))
    shard = run.root / record.file
    older = shard.rename(shard.with_name("group-000000.parquet"))
    file = run.root / "manifest" / "group-000000.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "file": f"paths/{older.name}"}))
    assert set(reopened(run)) == {0}
    assert run.commit(1, rows("b")).file == "paths/group-000001.parquet"
    assert read_paths(run.root).example_id.unique().tolist() == ["a", "b"]


def test_a_stray_shard_is_removed_and_other_files_stay(run):
    """Catches uncommitted rows that pandas would read from the folder, and a clean-up that goes too far."""
    run.commit(0, rows("a"))
    (run.root / "paths" / "group-000007-train.parquet").write_bytes(b"PAR1")
    (run.root / "paths" / ".ipynb_checkpoints").mkdir()
    reopened(run)
    assert sorted(file.name for file in (run.root / "paths").iterdir()) == [
        ".ipynb_checkpoints",
        "group-000000-train.parquet",
    ]


def test_one_writer_at_a_time(run):
    """Catches two drivers that delete each other's staged files."""
    with pytest.raises(UserError, match="another search is writing"):
        RunFolder(run.root).open(CONFIG, provenance={})
    run.commit(0, rows("a"))
    run.close()
    assert set(opened(run.root).open(CONFIG, provenance={})) == {0}


# -- what other questions learn from -------------------------------------------------------

TEACHING = dataclasses.replace(CONFIG, calibration=10)
LESSON = [
    Evaluation(example_id="a", program=LayerProgram((0, 1, 2), 3), correct=True, margin=0.1),
    Evaluation(example_id="a", program=LayerProgram((2, 1, 1), 3), correct=False, margin=-math.inf),
]


def test_evaluations_read_back_in_the_order_of_the_groups(run):
    """Catches a prior that depends on who finished first, and margins that lose a bit or break at infinity."""
    other = [dataclasses.replace(evaluation, example_id="b") for evaluation in LESSON]
    run.commit(1, rows("b"), evaluations=other)
    run.commit(0, rows("a"), evaluations=LESSON)
    assert run.evaluations([1, 0]) == [*LESSON, *other]


def test_a_calibration_group_without_its_evaluations_is_searched_again(tmp_path):
    """Catches a prior that is fitted on less than it should be after a file was deleted."""
    run = RunFolder(tmp_path / "run")
    run.open(TEACHING, provenance={})
    for group, name in enumerate("abc"):
        run.commit(group, rows(name), evaluations=LESSON if group < 2 else None)
    assert set(reopened(run, TEACHING)) == {0, 1, 2}
    (run.root / "calibration" / "group-000001.parquet").unlink()
    assert set(reopened(run, TEACHING)) == {0, 2}
    run.commit(1, rows("b"), evaluations=LESSON)
    run.write_prior(fit_prior(LESSON, compare_margins=True))
    for file in (run.root / "calibration").iterdir():
        file.unlink()
    assert set(reopened(run, TEACHING)) == {0, 1, 2}, "what was learnt stays learnt"


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-9]),
        lambda file: pq.write_table(pq.read_table(file).drop_columns("score"), file),
    ],
)
def test_damaged_evaluations_are_named(run, damage):
    """Catches a traceback of pyarrow, or a prior from half of what was tried."""
    run.commit(0, rows("a"), evaluations=LESSON)
    damage(run.root / "calibration" / "group-000000.parquet")
    with pytest.raises(UserError, match=r"group-000000\.parquet holds no evaluations"):
        run.evaluations([0])


def test_a_damaged_prior_is_named(run):
    """Catches a traceback of safetensors where a run is taken up again."""
    assert run.prior() is None
    run.write_prior(fit_prior(LESSON, compare_margins=True))
    assert run.prior().num_layers == 3
    (run.root / "prior.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=r"prior\.safetensors holds no prior"):
        run.prior()
