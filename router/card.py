"""The model card of a router: what it is, how to use it, how it was made."""

from __future__ import annotations

from typing import Any


def model_card(config: dict[str, Any]) -> str:
    """A router's README.md, in the form that the hub reads, from its ``config.json``."""
    base = config["base_model"]
    made = "\n".join(f"| `{key}` | `{value}` |" for key, value in config["made"].items() if not isinstance(value, dict))
    hub = base["name"].count("/") == 1 and not base["name"].startswith((".", "/", "~"))
    named = f"base_model: {base['name']}\n" if hub else ""
    return f"""---
{named}library_name: drllm-pipeline
tags:
- layer-programs
- drllm-pipeline
---

# Per-layer routers for {base["name"]}

Small networks that read a prompt as it passes through the frozen model and decide for each of its
{config["num_layers"]} layers whether it is skipped, run, or run twice, for the whole answer. Made by
`drllm-pipeline train` (Dr.LLM, arXiv 2510.12773). The base model is not included: it is
`{base["name"]}` at revision `{base["revision"]}`, and no other will do.

```python
from router import RoutedCausalLM

lm = RoutedCausalLM.from_pretrained("THIS FOLDER OR ITS HUB ID", budget=0.9)  # at most 90 % of the layers, always
lm.generate(["…"], max_new_tokens=32)
lm.last_programs  # which layers ran
```

| | |
| --- | --- |
{made}
"""
