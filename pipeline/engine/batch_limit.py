"""How many tokens one call may hold, from the memory that there is.

The figure depends on the machine and the model alone, not on what is free at the moment: the same run
on the same kind of machine is cut into the same batches.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import torch

#: Of a device's (or an actor's cores' share of the) memory, for the tokens of one call.
SHARE = 0.25
#: Beyond this a larger call is no faster on a CPU, and on a GPU hardly.
MOST_TOKENS = 32_768
FEWEST_TOKENS = 1024
#: Programs may be longer than the model, and each of their positions keeps keys and values.
_LONGER = 1.5
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def batch_tokens(hf_model: Any) -> int:
    """Most tokens of one call for a loaded model on its device."""
    fitting = int(SHARE * _memory(hf_model.device) / _token_bytes(hf_model))
    return max(FEWEST_TOKENS, min(MOST_TOKENS, fitting))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a tensor had no room; on the CPU torch has no class for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _token_bytes(hf_model: Any) -> float:
    """Keys and values of every layer, and one layer's activations."""
    config = hf_model.config
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = 2 * (getattr(config, "num_key_value_heads", None) or heads) * head_dim
    active = 8 * config.hidden_size + 3 * getattr(config, "intermediate_size", 4 * config.hidden_size)
    return float((_LONGER * config.num_hidden_layers * kept + active) * hf_model.dtype.itemsize)


def _memory(device: torch.device) -> float:
    """Bytes: of the GPU, or of the machine as far as this process's threads may claim them."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    total = psutil.virtual_memory().total
    if _CGROUP_LIMIT.is_file() and (limit := _CGROUP_LIMIT.read_text().strip()).isdigit():
        total = min(total, int(limit))
    return float(total) * min(1.0, torch.get_num_threads() / (os.cpu_count() or 1))
