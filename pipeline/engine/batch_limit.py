"""The largest number of tokens of one pass on this machine.

The number depends on the machine's total memory and the model alone, not on the memory that is free at the moment: the
same run on the same kind of machine is split into the same batches.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import torch

#: Fraction of the device's memory, or of the part that belongs to this process's threads, for the tokens of one pass.
MEMORY_FRACTION = 0.25
#: Beyond this a larger pass is no faster on a CPU, and hardly on a GPU.
MOST_TOKENS = 32_768
FEWEST_TOKENS = 1024
#: Length of programs, as a multiple of the model's depth: each of their positions keeps keys and values.
_PROGRAM_LENGTH = 1.5
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def batch_tokens(hf_model: Any) -> int:
    """Most tokens of one pass for a loaded model on its device."""
    fitting = int(MEMORY_FRACTION * _memory(hf_model.device) / _token_bytes(hf_model))
    return max(FEWEST_TOKENS, min(MOST_TOKENS, fitting))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on the CPU torch has no class for it."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _token_bytes(hf_model: Any) -> float:
    """Bytes of one token: keys and values of every layer, and one layer's activations."""
    config = hf_model.config
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = 2 * (getattr(config, "num_key_value_heads", None) or heads) * head_dim
    active = 8 * config.hidden_size + 3 * getattr(config, "intermediate_size", 4 * config.hidden_size)
    return float((_PROGRAM_LENGTH * config.num_hidden_layers * kept + active) * hf_model.dtype.itemsize)


def _memory(device: torch.device) -> float:
    """Bytes of the GPU, or this process's part of the machine's by its number of threads."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    total = psutil.virtual_memory().total
    if _CGROUP_LIMIT.is_file() and (limit := _CGROUP_LIMIT.read_text().strip()).isdigit():
        total = min(total, int(limit))
    return float(total) * min(1.0, torch.get_num_threads() / (os.cpu_count() or 1))
