"""Every command with URLs instead of folders, with a tiny model, actors in this process, and a real S3 server."""

from __future__ import annotations

import functools
import http.server
import json
import os
import threading
from unittest import mock

import pytest
from click.testing import CliRunner
from s3_server import SECRET, s3_server
from tiny import save_tiny_model, write_questions

from pipeline.cli.main import main
from pipeline.shards.reader import read_paths, read_settings

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]
QUESTIONS = 24


@pytest.fixture(scope="module")
def s3():
    with mock.patch.dict(os.environ, {"HF_TOKEN": "hf_not-for-logs"}), s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def said():
    """All that commands have said."""
    return []


@pytest.fixture(scope="module")
def command(said, local_actors):
    def run(*arguments, status=0):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        said.append(result.output)
        assert result.exit_code == status, (result.output, result.exception)
        return result.output

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("urls")


@pytest.fixture(scope="module")
def bucket(s3, folder, command):
    """A bucket with questions, a run on them, and a router that was trained on the run."""
    url = s3.bucket()
    model, questions = save_tiny_model(folder / "model"), write_questions(folder / "questions.jsonl", QUESTIONS)
    s3.client.put_object(Bucket=url.removeprefix("s3://"), Key="data/q.jsonl", Body=questions.read_bytes())
    text = command(
        *("search", "--model", model, "--task", "arc", "--data", f"{url}/data/q.jsonl", "--out", f"{url}/run"),
        *("--simulations", 20, "--keep", 16, "--calibration", 8, "--actors", 2),
    )
    assert f'pandas.read_parquet("{url}/run/paths")' in text
    command(
        *("train", "--data", f"{url}/run", "--out", f"{url}/router", "--features", folder / "features"),
        *("--epochs", 2, "--held-out", 0.25, "--labels", "consensus"),
    )
    return url


def test_a_run_in_a_bucket_equals_one_in_a_folder(bucket, folder, command):
    """Catches questions or rows that depend on where they lie."""
    command(
        *("search", "--model", folder / "model", "--task", "arc", "--data", folder / "questions.jsonl"),
        *("--out", folder / "run", "--simulations", 20, "--keep", 16, "--calibration", 8, "--actors", 1),
    )
    assert read_paths(f"{bucket}/run").equals(read_paths(folder / "run"))
    assert read_settings(f"{bucket}/run") == read_settings(folder / "run")
    # The same command finds that everything is there.
    text = command(
        *("search", "--model", folder / "model", "--task", "arc", "--data", f"{bucket}/data", "--out", f"{bucket}/run"),
        *("--simulations", 20, "--keep", 16, "--calibration", 8),
    )
    assert f"{QUESTIONS} of them committed already" in text


def test_what_reads_a_run_reads_one_in_a_bucket(s3, bucket, folder, command):
    """Catches a command that takes a URL for the name of a folder."""
    assert f"{QUESTIONS} examples" in command("inspect", f"{bucket}/run")
    assert "0 of" in command("verify", f"{bucket}/run", "--fraction", 0.2, "--actors", 2)
    assert f"{bucket}/run/report.html" in command("report", f"{bucket}/run")
    objects = s3.objects(bucket)
    assert objects["run/report.html"].startswith(b"<!DOCTYPE html>")
    assert sum(name.startswith("run/report/") and name.endswith(".png") for name in objects) >= 5
    command("convert", "--from", "run", "--to", "polar", f"{bucket}/run", f"{bucket}/polar/samples.json.gz")
    command("convert", "--from", "polar", "--to", "run", f"{bucket}/polar/samples.json.gz", f"{bucket}/back")
    assert read_paths(f"{bucket}/back").program.map(tuple).tolist()


def test_a_router_in_a_bucket_is_evaluated_and_used(s3, bucket, folder, command):
    """Catches a router that lacks a part because it was written somewhere else first."""
    names = {name.removeprefix("router/") for name in s3.objects(bucket) if name.startswith("router/")}
    assert {"config.json", "model.safetensors", "README.md", "metrics.jsonl", "training.png"} <= names
    write_questions(folder / "test.jsonl", QUESTIONS + 16)
    command(
        *("evaluate", "--router", f"{bucket}/router", "--task", "arc", "--data", folder / "test.jsonl"),
        *("--simulations", 0, "--curve", "", "--actors", 2),
    )
    assert {"router/evaluation.json", "router/evaluation.png"} <= set(s3.objects(bucket))
    assert "layers ran" in command("generate", "--router", f"{bucket}/router", "--prompt", "7 +", "--max-new-tokens", 1)
    command("export", "--router", f"{bucket}/router", "--prompt", "7 +", "--out", f"{bucket}/short")
    assert "short/model.safetensors" in s3.objects(bucket)


class SilentHandler(http.server.SimpleHTTPRequestHandler):
    """One that logs nothing of its own."""

    def log_message(self, *_):
        pass


def test_questions_come_from_a_web_server_and_the_signature_of_their_url_is_not_kept(bucket, folder, command, s3):
    """Catches a URL's query taken for a part of a file's name, and a signature in run.json or on a screen."""
    handler = functools.partial(SilentHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signed = f"http://127.0.0.1:{server.server_port}/questions.jsonl?X-Amz-Signature=not-for-logs"
    command(
        *("search", "--model", folder / "model", "--task", "arc", "--data", signed, "--out", f"{bucket}/web"),
        *("--simulations", 5, "--calibration", 0, "--limit", 8),
    )
    assert len(read_paths(f"{bucket}/web").example_id.unique()) == 8
    assert json.loads(s3.objects(bucket)["web/run.json"])["data"].endswith("/questions.jsonl?…")
    text = command(
        *("search", "--model", folder / "model", "--task", "arc", "--data", signed.replace("questions", "none")),
        *("--out", f"{bucket}/none"),
        status=2,
    )
    assert "none.jsonl" in text
    server.shutdown()


def test_no_secret_is_written_anywhere(s3, bucket, said):
    """Catches a key of the store, or a signature, in any object or on the screen. Runs last."""
    written = {**s3.objects(bucket), **{text: text.encode() for text in said}}
    assert len(written) > 20
    for secret in (SECRET, "AKIAIOSFODNN7EXAMPLE", "not-for-logs"):
        assert [name for name, text in written.items() if secret.encode() in text] == []
