"""The models for the peers, whose releases know neither float8 weights nor the present names of modules."""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from search.application import Application
from search.errors import BenchmarkError

WEIGHTS, MODULES, TRANSFORMER = "model.safetensors", "modules.json", "sentence_bert_config.json"


def models_for_peers(application: Application, folder: Path) -> dict[str, str]:
    """Write the same numbers in float32, with the settings of sentence-transformers 5.

    Args:
        application: Its models.
        folder: Where they go, in place of earlier ones.

    Returns:
        The folders, of `reranker` and `encoder`.

    Raises:
        BenchmarkError: A model has other files than these, or the folder cannot be written.
    """
    shutil.rmtree(folder, ignore_errors=True)
    models = {"reranker": application.reranker.folder, "encoder": application.encoder.folder}
    for name, source in models.items():
        try:
            copy = shutil.copytree(source, folder / name)
            numbers = {key: tensor.float() for key, tensor in load_file(source / WEIGHTS).items()}
            save_file(numbers, copy / WEIGHTS, metadata={"format": "pt"})
            if name == "encoder":
                _name_as_before(copy)
        except (OSError, LookupError, TypeError, ValueError, SafetensorError) as error:
            raise BenchmarkError(f"{source} cannot be copied for the peers: {type(error).__name__}: {error}") from error
    return {name: str(folder / name) for name in models}


def _name_as_before(encoder: Path) -> None:
    """Name the modules of a bi-encoder and their settings as sentence-transformers 5 does, where they are of 6."""
    modules = _read(encoder / MODULES)
    if all(module["type"].startswith("sentence_transformers.models.") for module in modules):
        return
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rpartition(".")[2]
        settings = encoder / module["path"] / "config.json"
        if module["type"].endswith(".Pooling"):
            told = _read(settings)
            kept = {"word_embedding_dimension": told["embedding_dimension"], "include_prompt": told["include_prompt"]}
            settings.write_text(json.dumps({**kept, f"pooling_mode_{_BEFORE[told['pooling_mode']]}": True}))
        elif module["type"].endswith(".Normalize"):
            settings.unlink(missing_ok=True)
    (encoder / MODULES).write_text(json.dumps(modules))
    longest = _read(encoder / "tokenizer_config.json")["model_max_length"]
    (encoder / TRANSFORMER).write_text(json.dumps({"max_seq_length": longest, "do_lower_case": False}))


_BEFORE = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())
