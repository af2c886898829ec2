"""The model cards of routers and probes: a description, an example of use, and the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def model_card(config: dict[str, Any], *, describe: Callable[[Mapping[str, Any]], str]) -> str:
    """A router's README.md, in the form that the hub reads.

    Args:
        config: The router's ``config.json``.
        describe: Writes the description of the router's kind.
    """
    base = config["base_model"]
    return f"""{_header(base, "layer-programs")}

{describe(config)}
The base model is not included: it is `{base["name"]}` at revision `{base["revision"]}`; other weights are refused.
{_fallback(config)}
```python
from router import RoutedCausalLM

lm = RoutedCausalLM.from_pretrained("THIS FOLDER OR ITS HUB ID", budget=0.9)  # at most 90 % of the layers, always
lm.generate(["…"], max_new_tokens=32)
lm.last_programs  # which layers ran
```

{_table(config["made"])}
"""


def _fallback(config: Mapping[str, Any]) -> str:
    """What runs in the router's place, where it did not pay on held-out prompts."""
    if "fallback" not in config:
        return ""
    return f"""
**On held-out prompts one program for all was worth more than this router: `{config["fallback"]}`.** It runs in the
router's place, unless `RoutedCausalLM.from_pretrained` is told `fallback=False`, or `generate` `--no-fallback`.
"""


def probe_card(config: dict[str, Any]) -> str:
    """A probe's README.md, in the form that the hub reads, from its ``config.json``."""
    base = config["base_model"]
    return f"""{_header(base, "probe")}

# A probe on {base["name"]}

A small classifier of texts ({", ".join(config["labels"])}) that reads the hidden states that the forward pass of a
frozen model already computes.
Made by `drllm-pipeline probe train` (arXiv 2601.13288). The base model is not included: it
is `{base["name"]}` at revision `{base["revision"]}`; other weights are refused.

```python
from pipeline import FrozenModel, LayerProgram
from router import Probe

model = FrozenModel.load("{base["name"]}")
probe = Probe.from_pretrained("THIS FOLDER OR ITS HUB ID")
tokens = [model.tokenizer(probe.prompt("…")).input_ids]  # as in training: {config["template"]!r}
model.generate(tokens, [LayerProgram.identity(model.num_layers)], probes=[probe])  # new tokens, and labels
```

{_table(config["made"])}
"""


def _header(base: dict[str, str], tag: str) -> str:
    hub = base["name"].count("/") == 1 and not base["name"].startswith((".", "/", "~"))
    named = f"base_model: {base['name']}\n" if hub else ""
    return f"""---
{named}library_name: drllm-pipeline
tags:
- {tag}
- drllm-pipeline
---"""


def _table(made: dict[str, Any]) -> str:
    """A table of the settings and metrics that are single values."""
    rows = "\n".join(f"| `{key}` | `{value}` |" for key, value in made.items() if not isinstance(value, dict))
    return f"| | |\n| --- | --- |\n{rows}"
