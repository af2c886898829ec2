"""``python -m benchmarks.arithmetic_kinds``: the base model's accuracy on each kind of arithmetic problems.

Kinds are chosen for the task by this figure alone: where a model is right on nearly all or nearly none, there is
nothing to shorten or nothing to correct. Problems are of the training split. The sizes are of the questions that are
asked: without the solved problems that every prompt shows, and with a question in another order as another one.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
import torch

from pipeline.engine import FrozenModel
from pipeline.program import LayerProgram
from pipeline.significance import bootstrap_interval
from pipeline.tasks import DataRequest, TaskOptions, get_task
from pipeline.tasks.arithmetic import kinds_of
from pipeline.tasks.arithmetic_kinds import ProblemKind

#: Examples that the model reads at once.
_AT_ONCE = 16


@click.command()
@click.option("--model", default="smollm2", show_default=True, help="The base model.")
@click.option("--limit", default=200, show_default=True, help="Problems of each kind.")
@click.option("--kinds", help="Kinds, with commas between them.  [default: the default kinds]")
@click.option("--threads", default=1, show_default=True, help="Torch threads.")
@click.option("--seed", default=0, show_default=True, help="Seed of the problems.")
def main(model: str, limit: int, kinds: str | None, threads: int, seed: int) -> None:
    """Print the accuracy on each kind."""
    torch.set_num_threads(threads)
    chosen = kinds_of(kinds)
    frozen = FrozenModel.load(model)
    identity = LayerProgram.identity(frozen.num_layers)
    print(f"{'kind':20} {'train':>6} {'test':>6} {'tokens':>6}  right  95 % CI")
    all_right: list[bool] = []
    all_tokens: list[int] = []
    for kind in chosen:
        task = get_task("arithmetic", options=TaskOptions(kinds=kind.name))
        examples = task.read(DataRequest(limit=min(limit, len(kind.asked("train"))), seed=seed))
        prepared = [task.prepare(example, frozen.tokenizer) for example in examples]
        right: list[bool] = []
        for start in range(0, len(prepared), _AT_ONCE):
            some = prepared[start : start + _AT_ONCE]
            outcomes = task.score(frozen, some, [identity] * len(some), need_response=False)
            right += [outcome.correct for outcome in outcomes]
        tokens = [len(one.prompt_ids) for one in prepared]
        _print_row(kind.name, [kind], tokens, right)
        all_right += right
        all_tokens += tokens
    _print_row("total", chosen, all_tokens, all_right)


def _print_row(name: str, kinds: Sequence[ProblemKind], tokens: Sequence[int], right: Sequence[bool]) -> None:
    train, test = (sum(len(kind.asked(split)) for kind in kinds) for split in ("train", "test"))
    low, high = bootstrap_interval(right)
    print(
        f"{name:20} {train:6} {test:6} {sum(tokens) / len(tokens):6.0f} {100 * sum(right) / len(right):5.1f} %  "
        f"{100 * low:.0f}–{100 * high:.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
