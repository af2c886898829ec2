"""Errors of actors in words: a cure for the cause, and no other."""

from __future__ import annotations

import pytest
from ray.exceptions import OutOfMemoryError, RayError

from pipeline.distributed.ray_errors import one_line, with_cure


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (OutOfMemoryError("1 worker(s) were killed due to the node running low on memory."), True),
        (RayError("The worker was killed by SIGKILL by OOM killer due to high memory usage."), True),
        (RayError("The actor died unexpectedly before finishing this task."), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RayError("The actor died because its node has died: node died."), False),
        (RayError("The creation task failed: ValueError: no such file"), False),
    ],
)
def test_memory_is_asked_about_only_where_it_may_be_the_cause(error, memory):
    """Catches a user who is sent to buy memory over a missing file."""
    message = with_cure("actors fail", error)
    assert message.startswith("actors fail (") and ("enough memory" in message) == memory


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("ModuleNotFoundError: No module named 'pipeline'", "drllm-pipeline"),
        ("ImportError: cannot import name 'x' from 'router.heads'", "drllm-pipeline"),
        ("ModuleNotFoundError: No module named 'my_package'", "that package"),
    ],
)
def test_a_missing_module_is_to_be_installed(name, package):
    """Catches a question about memory on a node that lacks the package."""
    message = with_cure("actors fail", RayError(f"The actor died.\n  Traceback:\n{name}\nmore"))
    assert name.partition(": ")[2] in message and f"install {package}" in message
    assert "memory" not in message and "\n" not in message


def test_an_error_without_words_is_named():
    """Catches an empty pair of brackets."""
    assert one_line(MemoryError()) == "MemoryError" and one_line(ValueError("a\n b")) == "a b"
