"""From a model's name to a frozen transformers model and its tokenizer."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from filelock import FileLock
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from pipeline.engine.small_model import check_family
from pipeline.engine.tokenizer_check import check_tokenizer
from pipeline.errors import UserError
from pipeline.model_source import DEVICES, DTYPES, EMBEDDED_NAMES, ModelSource, embedded_file

logger = logging.getLogger(__name__)

#: Numbers of each parameter that the fingerprint of a model's weights reads.
_FINGERPRINT_NUMBERS = 64
#: Bytes of a GGUF file from which on it is not converted for its description alone.
_LARGE_FILE = 1 << 30
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
        UserError: The model cannot be read as a causal language model, or is refused by ``check_description``.
    """
    config, tokenizer = _described(source, source, revision)
    check_description(source, config, tokenizer)
    return load_weights(source, device=device, dtype=dtype, revision=revision), tokenizer


def load_weights(source: str, *, device: torch.device, dtype: torch.dtype, revision: str | None) -> Any:
    """Load a causal language model in evaluation mode; see ``load_transformers``.

    Raises:
        UserError: The model cannot be loaded, or its files lack weights.
    """
    try:
        # safetensors only: pickled weights run code when they are read.
        model, report = AutoModelForCausalLM.from_pretrained(
            _readable(source),
            revision=revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except UserError:
        raise
    except Exception as error:
        raise _cannot_be_loaded(source, error) from error
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        raise UserError(f"model {source!r} cannot be loaded: its files lack {len(absent)} weights, first {absent[0]}")
    model.generation_config = _plain_greedy(model.generation_config)
    model.requires_grad_(False)
    return model.eval().to(device)


def load_description(source: ModelSource) -> tuple[Any, Any]:
    """A model's configuration and tokenizer, without its weights.

    Raises:
        UserError: The model's configuration or tokenizer cannot be read.
    """
    return _described(source.name, source.location, source.hub_revision)


def check_before_loading(source: ModelSource) -> None:
    """Refuse a model by what can be known without its weights: its tokenizer and its family.

    Commands call it before they start Ray: a refusal by the actors takes minutes. It imports torch and transformers
    into the driver, which takes a few seconds, and runs a small random model, which takes less than one. What only the
    weights show, the actors' check shows.

    Raises:
        UserError: The model cannot be read, or is refused by ``check_description``.
    """
    with _silent_transformers():
        check_description(source.name, *load_description(source))


@contextmanager
def _silent_transformers() -> Iterator[None]:
    """Keep transformers' warnings and progress bars off the terminal for a while: they are of a small random model."""
    verbosity, had_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


def check_description(name: str, config: Any, tokenizer: Any) -> None:
    """Refuse a model by its configuration and its tokenizer.

    Args:
        name: Name of the model, for messages.
        config: Its configuration.
        tokenizer: Its tokenizer.

    Raises:
        UserError: It is no causal language model, its family is outside the decoder-layer contract, or its tokenizer
            is not the model's or does not work.
    """
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(
            f"model {name!r} is of type {config.model_type!r}, which is outside the decoder-layer contract: "
            "transformers knows no causal language model of that type"
        )
    try:
        check_tokenizer(name, tokenizer, num_embeddings=getattr(config, "vocab_size", None))
    except UserError:
        raise
    except Exception as error:  # a tokenizer's files from outside: any of its calls may fail
        raise _cannot_be_loaded(name, error) from error
    check_family(config)


def _described(name: str, source: str, revision: str | None) -> tuple[Any, Any]:
    """The configuration and the tokenizer of a model."""
    try:
        file = _gguf_file(source)
        if file is not None and file.stat().st_size > _LARGE_FILE and not _conversion_folder(file).exists():
            # A conversion unpacks all weights, which may be more than fits here; the file itself says enough.
            where: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        else:
            where = {"pretrained_model_name_or_path": _readable(source), "revision": revision}
        config = AutoConfig.from_pretrained(**where, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:
        # Files from outside: transformers, tokenizers and gguf each have errors of their own for them.
        raise _cannot_be_loaded(name, error) from error
    return config, tokenizer


def _cannot_be_loaded(name: str, error: Exception) -> UserError:
    """The error of a model whose files some library cannot read, on one line."""
    what = " ".join(str(error).split())
    return UserError(f"model {name!r} cannot be loaded: {type(error).__name__}: {what}")


def _readable(source: str) -> str:
    """The path from which transformers reads a model: an embedded or a ``.gguf`` model is converted first."""
    file = _gguf_file(source)
    return source if file is None else str(_converted_gguf(file))


def _gguf_file(source: str) -> Path | None:
    """The GGUF file of an embedded or a ``.gguf`` model; None for another model.

    Raises:
        UserError: There is no such file.
    """
    location = str(embedded_file()) if source.lower() in EMBEDDED_NAMES else source
    if not location.endswith(".gguf"):
        return None
    if not Path(location).is_file():
        raise UserError(f"model file {location!r} does not exist")
    return Path(location)


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
    folder = _conversion_folder(file)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            logger.info("converting %s to safetensors, once", file.name)
            staging = Path(tempfile.mkdtemp(prefix=f"{folder.name[:8]}-", dir=folder.parent))
            try:
                _convert_gguf(file, staging)
                staging.rename(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return folder


def _conversion_folder(file: Path) -> Path:
    """The folder of a GGUF file's conversion, whether it is there or not."""
    found = file.stat()
    return cache_folder() / "gguf" / _sha256(file.resolve(), found.st_size, found.st_mtime_ns)[:32]


@functools.lru_cache(maxsize=8)
def _sha256(file: Path, size: int, changed_ns: int) -> str:
    """The SHA-256 of a file, read once for each size and time of change: a file may have tens of gigabytes."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


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
