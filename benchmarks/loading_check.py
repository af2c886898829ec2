"""``python -m benchmarks.loading_check``: the time that the check of a model adds to its loading.

The check compares the engine with stock transformers on a few tokens (``pipeline.engine.stock_check``), and reads the
family of the model off a small random one (``pipeline.engine.small_model``). Its time depends on the shape of a model
alone, so that weights may be random: by default those of Llama-3.2-3B's shape.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import click
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from pipeline.engine.decoder_stack import DecoderStack
from pipeline.engine.loading import choose_device, choose_dtype, load_transformers
from pipeline.engine.small_model import check_family
from pipeline.engine.stock_check import check_against_stock
from pipeline.model_source import resolve_model

#: The shape of Llama-3.2-3B.
_SHAPE: dict[str, Any] = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}


@click.command()
@click.option("--model", help="A model to load.  [default: random weights of Llama-3.2-3B's shape]")
@click.option("--device", default="cpu", show_default=True, metavar="auto|cpu|cuda", help="Where the model runs.")
@click.option("--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision.")
@click.option("--threads", default=1, show_default=True, help="Torch threads.")
@click.option("--repeats", default=3, show_default=True, help="Repeats, of which the median counts.")
def main(model: str | None, device: str, dtype: str, threads: int, repeats: int) -> None:
    """Time the parts of the check on one model."""
    torch.set_num_threads(threads)
    on = choose_device(device)
    precision = choose_dtype(dtype, on)
    if model is None:
        hf_model = random_model(LlamaConfig(**_SHAPE), on, precision)
    else:
        source = resolve_model(model)
        hf_model, _ = load_transformers(source.location, device=on, dtype=precision, revision=source.hub_revision)
    numbers = sum(parameter.numel() for parameter in hf_model.parameters())
    print(f"{numbers / 1e9:.2f} billion parameters, {precision}, {on}, {threads} threads")
    parts = {
        "its family, on a small random model": lambda: check_family(hf_model.config),
        "its weights, against stock transformers": lambda: check_against_stock(DecoderStack(hf_model)),
    }
    for name, part in parts.items():
        seconds = [_seconds(part, on) for _ in range(repeats)]
        print(f"{name}: {median(seconds):.2f} s (of {', '.join(f'{one:.2f}' for one in seconds)})")


def random_model(config: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A model of a shape with random weights."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model = model.to_empty(device=device)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.uniform_(-0.02, 0.02)
            else:
                parameter.fill_(1.0)
    # Buffers such as rotary frequencies are computed from the configuration.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config).to(device)
    return model.eval().requires_grad_(False)


def _seconds(part: Any, device: torch.device) -> float:
    began = time.perf_counter()
    part()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
