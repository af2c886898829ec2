"""The command line, ``drllm-pipeline``: ``main`` is its group, and each other module holds some of its commands."""

from pipeline.cli.main import main

__all__ = ["main"]
