"""Joining and starting Ray: the caller's own cluster, and reasons why there is none."""

from __future__ import annotations

import json
import socket

import pytest
import ray
from tiny import save_tiny_model
from transformers import AutoTokenizer

from pipeline.distributed import cluster
from pipeline.distributed.cluster import Resources, joined_cluster
from pipeline.errors import UserError
from pipeline.model_source import resolve_model


@pytest.fixture
def no_start(monkeypatch):
    """Ray is neither there nor started."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


def refusal():
    """The message where no cluster can be joined or started."""
    with pytest.raises(UserError) as refused, joined_cluster(Resources()):
        pass
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_gone_is_named_at_once(no_start, monkeypatch, scheme):
    """Catches minutes of silence in which Ray tries an address again and again."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    said = refusal()
    assert f"no Ray cluster answers at RAY_ADDRESS={address} (Connection refused)" in said
    assert "unset RAY_ADDRESS to start Ray here" in said


def test_a_cluster_that_never_answers_is_named_within_thirty_seconds(no_start, monkeypatch):
    """Catches an address whose packets are lost: a connection without a time limit waits for two minutes."""

    def connect(address, timeout):
        assert address == ("10.0.0.1", 6379) and timeout <= 30
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert "RAY_ADDRESS=10.0.0.1:6379 (timed out)" in refusal()


@pytest.mark.parametrize(
    ("address", "reason"), [("nonsense", "Invalid address format: nonsense"), ("http://head:x", "an HTTP address")]
)
def test_what_is_no_address_is_said_in_a_line(no_start, monkeypatch, address, reason):
    """Catches a traceback of Ray's, or a message of several lines."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert reason in refusal()


def test_a_long_folder_for_temporary_files_is_named_with_its_cure(no_start, monkeypatch, tmp_path):
    """Catches a traceback about AF_UNIX, which names neither the folder nor what to do."""
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    said = refusal()
    assert "set RAY_TMPDIR to a short folder, such as /tmp" in said and str(folder) in said


@pytest.fixture
def refused_model(tmp_path):
    """Makes a tiny model, and spoils it in some way."""

    def make(spoil):
        folder = save_tiny_model(tmp_path / "model")
        spoil(folder)
        return resolve_model(str(folder))

    return make


def of_another_family(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "diffllama"}))


def of_too_many_tokens(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|end|>"]})
    tokenizer.save_pretrained(folder)


def without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (of_another_family, "DiffLlamaForCausalLM .*outside the decoder-layer contract"),
        (of_too_many_tokens, r"model '.*model' has a tokenizer that .*2 of its tokens, first '<\|user\|>' \(257\)"),
        (without_tokenizer, "model '.*model' .*tokenizer"),
    ],
)
def test_a_model_is_refused_before_ray_starts(no_start, monkeypatch, refused_model, spoil, said):
    """Catches minutes of actors that die one after the other, over a model that no actor can run."""
    monkeypatch.setattr(cluster, "_start_ray", lambda: pytest.fail("Ray is started"))
    with pytest.raises(UserError, match=said), joined_cluster(Resources(), refused_model(spoil)):
        pass


@pytest.mark.ray
def test_the_callers_own_ray_is_joined_and_left_running(monkeypatch):
    """Catches a notebook whose cluster is refused, or shut down under its other work."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ray.init(num_cpus=1, logging_level="ERROR")
    try:
        with joined_cluster(Resources()) as placement:
            assert placement.pool.num_actors == 1
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    with joined_cluster(Resources(num_actors=1)):
        assert ray.is_initialized() and cluster.fitting_actors(placement.pool) >= 1
    assert not ray.is_initialized()
