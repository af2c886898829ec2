"""Whole runs on real Ray: the command as a user types it, its faults, and its resumption."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from local_actors import actors_in_this_process
from search_bench import NUM_CALIBRATION_GROUPS, NUM_QUESTIONS, SearchBench, files_found

from pipeline.cli.main import main
from pipeline.shards.reader import read_manifest, read_paths

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 150


class Bench(SearchBench):
    """The search command in a process of its own."""

    def start(self, out: Path, *, actors: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *self.arguments(out, actors=actors)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
            # What a shell starts in the background ignores Ctrl-C, and the tests may be such a thing.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run(self, out: Path, *, actors: int) -> str:
        process = self.start(out, actors=actors)
        text, _ = process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == 0, text
        return text


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def undisturbed(bench) -> Path:
    """The run that every other one must equal."""
    out = bench.folder / "undisturbed"
    bench.run(out, actors=2)
    return out


def wait_for(condition, process: subprocess.Popen[str], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert process.poll() is None, f"the run ended before {what}: {process.stdout.read()}"
        assert time.monotonic() < deadline, f"no {what} in time"
        time.sleep(0.02)


def evaluators(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The actors' processes that work for a run."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "SearchEvaluator" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def test_a_run_says_what_it_holds(undisturbed):
    """Catches a run that ends well with marks, rows or the base model's own answers missing."""
    assert (undisturbed / "_SUCCESS").exists()
    assert "configs:" in (undisturbed / "README.md").read_text()
    assert not (undisturbed / "_staging").exists()
    rows = read_paths(undisturbed)
    assert rows.example_id.nunique() == NUM_QUESTIONS
    identity = rows[rows.program.map(lambda program: list(program) == list(range(6)))]
    assert sorted(identity.example_id) == sorted(rows.example_id.unique()), "one identity row for each question"
    best = rows[rows.is_best]
    assert best.example_id.is_unique and best.correct.all() and (best["rank"] == 1).all()
    assert (~identity.correct).any() and identity.correct.any(), "the questions must test both outcomes"
    assert (rows.length <= 9).all()


def test_one_worker_equals_two(bench, undisturbed):
    """Catches rows that depend on who searched an example, when, or beside what."""
    out = bench.folder / "one"
    bench.run(out, actors=1)
    assert files_found(out) == files_found(undisturbed)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_interrupted_and_resumed_equals_undisturbed(bench, undisturbed, sent):
    """Catches a signal that loses committed rows, ends in a traceback, or leaves a run that cannot go on."""
    out = bench.folder / f"stopped-{sent.name}"
    process = bench.start(out, actors=1)
    wait_for(lambda: len(list((out / "manifest").glob("group-*.json"))) >= 2, process, "second commit")
    process.send_signal(sent)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1, text
    assert "run the same command again" in text and "Traceback" not in text
    kept = len(read_manifest(out))
    assert 2 <= kept < NUM_QUESTIONS // 2 and not (out / "_SUCCESS").exists()
    assert read_paths(out).example_id.nunique() == 2 * kept

    text = bench.run(out, actors=2)
    assert f"{2 * kept} of them committed already" in text
    assert files_found(out) == files_found(undisturbed)


def test_a_driver_killed_without_warning_loses_nothing_committed(bench, undisturbed):
    """Catches anything that is only written at the end of a run."""
    out = bench.folder / "killed"
    process = bench.start(out, actors=1)
    wait_for(
        lambda: len(list((out / "manifest").glob("group-*.json"))) > NUM_CALIBRATION_GROUPS, process, "fourth commit"
    )
    process.kill()
    process.communicate()
    assert read_manifest(out) and (out / "prior.safetensors").exists()
    bench.run(out, actors=2)
    assert files_found(out) == files_found(undisturbed)


def test_a_dead_actor_is_replaced(bench, undisturbed):
    """Catches a lost group, a group committed twice, and a run that waits for a dead actor for ever."""
    out = bench.folder / "actor-killed"
    process = bench.start(out, actors=2)
    wait_for(lambda: list((out / "manifest").glob("group-*.json")), process, "first commit")
    victims = evaluators(process)
    assert victims
    victims[0].kill()
    text, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0, text
    assert files_found(out) == files_found(undisturbed)


def test_actors_in_one_process_find_the_same(bench, undisturbed):
    """Catches rows that depend on where actors run, and stand-ins of Ray's actors that tell other tests a lie."""
    out = bench.folder / "local"
    with actors_in_this_process():
        result = CliRunner().invoke(main, bench.arguments(out, actors=2))
    assert result.exit_code == 0, (result.output, result.exception)
    assert files_found(out) == files_found(undisturbed)


def free_port() -> int:
    """A port that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_submitted_job_joins_the_cluster(bench, undisturbed):
    """Catches a job that starts a cluster of its own, or cannot import the package from its working directory."""
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Of its own, so that another test that starts Ray on this machine does not join it; short, for its sockets.
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray"),
    }

    def ray(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(binaries / "ray"), *words],
            capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=LIMIT_SECONDS,
        )  # fmt: skip

    port = free_port()
    head = subprocess.Popen(
        [str(binaries / "ray"), "start", "--head", "--block", "--port=0", f"--dashboard-port={port}", "--num-cpus=2",
         # Without an agent, which starts no second time on the port of another cluster's, no job can be submitted.
         f"--dashboard-agent-listen-port={free_port()}"],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + LIMIT_SECONDS
        while ray("job", "list", "--address", address).returncode != 0:
            assert head.poll() is None and time.monotonic() < deadline, "the cluster does not start"
        out = bench.folder / "job"

        def submit(out: Path) -> subprocess.CompletedProcess[str]:
            words = ["job", "submit", "--address", address, "--working-dir", ".", "--", "python", "jobs/search.py"]
            while True:
                ended = ray(*words, *bench.arguments(out, actors=2)[1:])
                # The head answers before the agent that starts jobs is up.
                if "No available agent" not in ended.stderr or time.monotonic() > deadline:
                    return ended

        relative = submit(Path("runs/x"))
        assert relative.returncode != 0 and "absolute path" in relative.stdout + relative.stderr
        job = submit(out)
        assert job.returncode == 0, job.stdout + job.stderr
        assert files_found(out) == files_found(undisturbed)
    finally:
        # Not `ray stop`, which ends everybody's clusters on this machine.
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            head.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)
