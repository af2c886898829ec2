"""The model cards of a router and of a probe: what it is, how to use it, how it was made."""

from __future__ import annotations

from typing import Any


def model_card(config: dict[str, Any]) -> str:
    """A router's README.md, in the form that the hub reads, from its ``config.json``."""
    base = config["base_model"]
    return f"""{_header(base, "layer-programs")}

{_head_of(config)}
The base model is not included: it is `{base["name"]}` at revision `{base["revision"]}`, and no other will do.

```python
from router import RoutedCausalLM

lm = RoutedCausalLM.from_pretrained("THIS FOLDER OR ITS HUB ID", budget=0.9)  # at most 90 % of the layers, always
lm.generate(["…"], max_new_tokens=32)
lm.last_programs  # which layers ran
```

{_table(config["made"])}
"""


def _head_of(config: dict[str, Any]) -> str:
    """What a router's head does."""
    if config["head"] == "probe":
        programs = "\n".join(f"| {name} | `{program}` |" for name, program in config["programs"].items())
        return f"""# A probe that steers the depth of {config["base_model"]["name"]}

A small classifier that reads what the frozen model's first {config["early"]} layers make of a prompt, and says which of
these programs of its {config["num_layers"]} layers runs, for the whole answer. Made by
`drllm-pipeline train --head probe` (arXiv 2601.13288 and 2510.12773).

| class | layers |
| --- | --- |
{programs}
"""
    return f"""# Per-layer routers for {config["base_model"]["name"]}

Small networks that read a prompt as it passes through the frozen model and decide for each of its
{config["num_layers"]} layers whether it is skipped, run, or run twice, for the whole answer. Made by
`drllm-pipeline train` (Dr.LLM, arXiv 2510.12773).
"""


def probe_card(config: dict[str, Any]) -> str:
    """A probe's README.md, in the form that the hub reads, from its ``config.json``."""
    base = config["base_model"]
    return f"""{_header(base, "probe")}

# A probe on {base["name"]}

A small classifier of texts ({", ".join(config["labels"])}) that reads the hidden states of a frozen model, which its
forward pass leaves anyway. Made by `drllm-pipeline probe train` (arXiv 2601.13288). The base model is not included: it
is `{base["name"]}` at revision `{base["revision"]}`, and no other will do.

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
    """Settings and metrics, those that are one value."""
    rows = "\n".join(f"| `{key}` | `{value}` |" for key, value in made.items() if not isinstance(value, dict))
    return f"| | |\n| --- | --- |\n{rows}"
