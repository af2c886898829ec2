"""``drllm-pipeline``: the group of all commands.

Each is named here by its module and imported when it is called, so that this package, which searches, need not know
``router``, which builds on it, and ``--help`` waits for neither.
"""

from __future__ import annotations

import click

from pipeline import __version__
from pipeline.cli.lazy_group import LazyCommand, LazyGroup

COMMANDS = {
    "adapt": LazyCommand("pipeline.cli.adapt", "adapt", "Find the layer program that serves one prompt best."),
    "convert": LazyCommand("pipeline.cli.data", "convert", "Path data sets from and to the formats of the field."),
    "demo": LazyCommand("pipeline.cli.demo", "demo", "Search, train and evaluate with the embedded model, in minutes."),
    "evaluate": LazyCommand("router.cli.evaluate", "evaluate", "Evaluate a router, or programs, on held-out examples."),
    "export": LazyCommand("router.cli.export", "export", "Write one program as a stock checkpoint."),
    "generate": LazyCommand("router.cli.generate", "generate", "Answer a prompt with a routed model."),
    "inspect": LazyCommand("pipeline.cli.data", "inspect", "Summarize a path data set."),
    "lm-eval": LazyCommand("router.cli.lm_eval", "lm_eval", "Run lm-evaluation-harness on a routed model."),
    "menu": LazyCommand("router.cli.menu", "menu", "Find the programs that are good on many examples."),
    "probe": LazyCommand("router.cli.probe", "probe", "Train and use probes: labels from the same forward pass."),
    "report": LazyCommand("pipeline.cli.data", "report", "Write a run's figures as a page."),
    "search": LazyCommand("pipeline.cli.search", "search", "Search a program for every example."),
    "train": LazyCommand("router.cli.train", "train", "Train a router on path data sets."),
    "verify": LazyCommand("pipeline.cli.verify", "verify", "Replay a run's labels with stock models."),
}


@click.group(
    cls=LazyGroup,
    lazy_commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Find better ways through a frozen language model: which layers to skip, run or repeat.

\b
First steps:
  drllm-pipeline demo                 search, train and evaluate with an embedded model, in minutes
  drllm-pipeline inspect runs/demo    what it found
  drllm-pipeline search --help        your own model and examples
""",
)
@click.version_option(__version__)
def main() -> None:
    """The group of all commands."""
