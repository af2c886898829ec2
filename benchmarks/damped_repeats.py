"""``python -m benchmarks.damped_repeats``: repeated layers, plain and damped, against the base model.

A damped repeat runs a layer again with its two output projections scaled by α: it adds α of what a plain repeat adds
(2605.23872 reports gains where plain repeats lose). Here a model gets a scaled copy of each layer, which programs run
behind the layer itself. The best repeat of each kind is chosen on some examples and judged on others.
"""

from __future__ import annotations

import copy
from typing import Any

import click
import numpy as np
import torch

from pipeline.engine import FrozenModel
from pipeline.engine.loading import load_transformers
from pipeline.model_source import resolve_model
from pipeline.program import LayerProgram
from pipeline.significance import interval_of_shares, mcnemar
from pipeline.tasks import DataRequest, PreparedExample, Task, get_task

#: Examples that are asked at once: those of a kind share their worked examples.
_AT_ONCE = 24


@click.command()
@click.option("--model", default="smollm2", show_default=True, help="The base model, a Llama or one with its names.")
@click.option("--task", default="arithmetic", show_default=True, help="Task of the examples.")
@click.option("--choosing", default=352, show_default=True, help="Examples that repeats are chosen on.")
@click.option("--judging", default=704, show_default=True, help="Other examples, of the split test.")
@click.option("--threads", default=1, show_default=True, help="Torch threads.")
@click.option("--seed", default=0, show_default=True, help="Seed of the examples.")
def main(model: str, task: str, choosing: int, judging: int, threads: int, seed: int) -> None:
    """Print the best repeat of each kind, and its figures on other examples."""
    torch.set_num_threads(threads)
    source = resolve_model(model)
    hf_model, tokenizer = load_transformers(
        source.location, device=torch.device("cpu"), dtype=torch.float32, revision=source.hub_revision
    )
    depth = hf_model.config.num_hidden_layers
    alphas = (1.0, 0.5, 0.25)
    frozen = FrozenModel(with_damped_copies(hf_model, alphas[1:]), tokenizer)
    of_task = get_task(task)
    training = of_task.read(DataRequest(limit=choosing, seed=seed))
    held_out = of_task.read(DataRequest(limit=judging, seed=seed, split="test"))
    prepared, asked = ([of_task.prepare(one, tokenizer) for one in some] for some in (training, held_out))
    base = _identity(depth, frozen.num_layers)
    programs = [base]
    for number, _ in enumerate(alphas):
        programs += [
            LayerProgram((*range(layer + 1), layer + number * depth, *range(layer + 1, depth)), frozen.num_layers)
            for layer in range(depth)
        ]
    right = _right(frozen, of_task, prepared, programs)
    print(f"base {100 * right[:, 0].mean():.1f} % on {len(prepared)} examples")
    for number, alpha in enumerate(alphas):
        of_kind = right[:, 1 + number * depth : 1 + (number + 1) * depth]
        layer = int(of_kind.mean(0).argmax())
        judged = _right(frozen, of_task, asked, [base, programs[1 + number * depth + layer]])
        lost, won, p_value = mcnemar(judged[:, 0].astype(bool).tolist(), judged[:, 1].astype(bool).tolist())
        low, high = interval_of_shares((judged[:, 1] - judged[:, 0]).tolist())
        of_layer = of_kind[:, layer].mean()
        print(f"α {alpha:<5} mean {100 * of_kind.mean():.1f} %, best: layer {layer}, {100 * of_layer:.1f} %")
        print(
            f"        on {len(asked)} others base {100 * judged[:, 0].mean():.1f} %, repeat "
            f"{100 * judged[:, 1].mean():.1f} % ({100 * low:+.1f} to {100 * high:+.1f}), won {won}, lost {lost}, "
            f"p {p_value:.2g}",
            flush=True,
        )


def with_damped_copies(hf_model: Any, alphas: tuple[float, ...]) -> Any:
    """A model with a scaled copy of every layer behind its own layers, for each α."""
    layers = list(hf_model.model.layers)
    for alpha in alphas:
        for layer in list(hf_model.model.layers)[: hf_model.config.num_hidden_layers]:
            config = hf_model.config
            damped = copy.deepcopy(layer, {id(config): config})
            for projection in (damped.self_attn.o_proj, damped.mlp.down_proj):
                projection.weight.data *= alpha
            layers.append(damped)
    for index, layer in enumerate(layers):
        layer.self_attn.layer_idx = index
    hf_model.model.layers = torch.nn.ModuleList(layers)
    hf_model.config.num_hidden_layers = len(layers)
    return hf_model


def _identity(depth: int, num_layers: int) -> LayerProgram:
    """The base model's own layers, and no copy."""
    return LayerProgram(range(depth), num_layers)


def _right(
    frozen: FrozenModel, task: Task, prepared: list[PreparedExample], programs: list[LayerProgram]
) -> np.ndarray[Any, Any]:
    """Right answers, ``[N, M]``."""
    order = sorted(range(len(prepared)), key=lambda index: prepared[index].prompt)
    right = np.zeros((len(prepared), len(programs)))
    for start in range(0, len(order), _AT_ONCE):
        places = order[start : start + _AT_ONCE]
        pairs = [(prepared[place], program) for place in places for program in programs]
        outcomes = task.score(frozen, [one for one, _ in pairs], [program for _, program in pairs], need_response=False)
        right[places] = np.array([outcome.correct for outcome in outcomes]).reshape(len(places), -1)
    return right


if __name__ == "__main__":
    main()
