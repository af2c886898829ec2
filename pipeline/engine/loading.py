"""From a model's name to a frozen transformers model and its tokenizer."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from filelock import FileLock
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pipeline.errors import UserError
from pipeline.model_source import DEVICES, DTYPES, EMBEDDED_NAMES, ModelSource, embedded_file

logger = logging.getLogger(__name__)

#: Numbers of each parameter that the fingerprint of a model's weights reads.
_FINGERPRINT_NUMBERS = 64
#: Fingerprints of loaded models: their weights are frozen.
_FINGERPRINTS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def choose_device(device: str) -> torch.device:
    """The device of a name; ``auto`` is CUDA where torch finds a GPU, else the CPU.

    Raises:
        UserError: The device is unknown, or is CUDA without a GPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = device.split(":")[0]
    if kind not in DEVICES:
        raise UserError(f"unknown device {device!r}; choose one of: {', '.join(DEVICES)}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but torch finds no GPU here; use --device cpu")
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The precision of a name; ``auto`` is float32 on the CPU and bfloat16 on CUDA.

    Raises:
        UserError: The dtype is unknown.
    """
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}; choose one of: {', '.join(DTYPES)}")
    precision: torch.dtype = getattr(torch, dtype)
    return precision


def load_transformers(
    source: str, *, device: torch.device, dtype: torch.dtype, revision: str | None
) -> tuple[Any, Any]:
    """Load a causal language model in evaluation mode, with its tokenizer.

    Args:
        source: A hub id, a folder, a ``.gguf`` file or an embedded name.
        device: The device of the weights.
        dtype: The weights' precision.
        revision: Commit on the hub; None for local files or the newest.

    Raises:
        UserError: The model cannot be read as a causal language model.
    """
    try:
        location = _readable(source)
        config = AutoConfig.from_pretrained(location, revision=revision, trust_remote_code=False)
        if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise UserError(
                f"model {source!r} is of type {config.model_type!r}, which is outside the decoder-layer contract: "
                "transformers knows no causal language model of that type"
            )
        # safetensors only: pickled weights run code when they are read.
        model, report = AutoModelForCausalLM.from_pretrained(
            location,
            revision=revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        if absent:
            raise UserError(
                f"model {source!r} cannot be loaded: its files lack {len(absent)} weights, first {absent[0]}"
            )
        tokenizer = AutoTokenizer.from_pretrained(location, revision=revision, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:
        # Files from outside: transformers, safetensors and gguf each have errors of their own for them.
        raise UserError(f"model {source!r} cannot be loaded: {type(error).__name__}: {error}") from error
    model.generation_config = _plain_greedy(model.generation_config)
    model.requires_grad_(False)
    return model.eval().to(device), tokenizer


def load_description(source: ModelSource) -> tuple[Any, Any]:
    """A model's configuration and tokenizer, without its weights.

    Raises:
        UserError: The model's configuration or tokenizer cannot be read.
    """
    try:
        location = _readable(source.location)
        config = AutoConfig.from_pretrained(location, revision=source.hub_revision, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(location, revision=source.hub_revision, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:  # files from outside, as above
        raise UserError(f"model {source.name!r} cannot be read: {type(error).__name__}: {error}") from error
    return config, tokenizer


def _readable(source: str) -> str:
    """The path from which transformers reads a model: an embedded or a ``.gguf`` model is converted first."""
    location = str(embedded_file()) if source.lower() in EMBEDDED_NAMES else source
    return str(_converted_gguf(Path(location))) if location.endswith(".gguf") else location


def _plain_greedy(given: GenerationConfig) -> GenerationConfig:
    """The model's end and padding tokens without its penalties and sampling.

    Labels are of the layers alone; a repetition penalty would change them.
    """
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return GenerationConfig(**{name: getattr(given, name) for name in names})


def cache_folder() -> Path:
    """The folder of converted models and of prompts' features: ``$DRLLM_CACHE``, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "drllm-pipeline"
    return Path(os.environ.get("DRLLM_CACHE", default)).expanduser()


def _converted_gguf(file: Path) -> Path:
    """A folder of float32 safetensors with the file's weights, made once and kept.

    Reading GGUF unpacks every block in Python and takes many times as long as reading the result.
    """
    if not file.is_file():
        raise UserError(f"model file {str(file)!r} does not exist")
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    folder = cache_folder() / "gguf" / digest[:32]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            logger.info("converting %s to safetensors, once", file.name)
            staging = Path(tempfile.mkdtemp(prefix=f"{digest[:8]}-", dir=folder.parent))
            try:
                _convert_gguf(file, staging)
                staging.rename(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return folder


def _convert_gguf(file: Path, folder: Path) -> None:
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # The weights are unpacked now; with the quantizer still set, transformers refuses to save them.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)


def weights_fingerprint(hf_model: Any) -> str | None:
    """Tells a model's weights from another's of the same shape: a hash of some numbers of every parameter.

    The numbers are rounded to bfloat16, so that float32 and bfloat16 give the same fingerprint.

    Returns:
        The fingerprint; None for a model in float16, which rounds otherwise.
    """
    if hf_model.dtype == torch.float16:
        return None
    fingerprint = _FINGERPRINTS.get(hf_model)
    if fingerprint is None:
        digest = hashlib.sha256()
        for parameter in hf_model.parameters():
            numbers = parameter.detach().flatten()
            numbers = numbers[:: max(1, len(numbers) // _FINGERPRINT_NUMBERS)][:_FINGERPRINT_NUMBERS]
            # numpy has no bfloat16; the same bits as integers will do.
            digest.update(numbers.to(torch.bfloat16).cpu().contiguous().view(torch.int16).numpy().tobytes())
        fingerprint = _FINGERPRINTS[hf_model] = digest.hexdigest()[:32]
    return fingerprint
