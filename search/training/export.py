"""A fine-tuned model as a small folder: float16 or float8 weights, and no vocabulary rows that no text reaches."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.base import BaseModel

LARGE = 500_000
"""Numbers of a matrix that is worth 8 bits: of MiniLM the word embeddings and the feed-forward layers."""

UNUSED = re.compile(r"\[unused\d+\]")


def export(model: BaseModel, folder: Path, *, float8: bool = False) -> None:
    """Save a model for shipping; its class loads it in float32.

    The weights are rounded to float16 on disk only: half the size, and no slower on a processor without float16.
    BERT's 994 `[unused…]` tokens are left out; no text is tokenised to them, so scores stay the same.

    Args:
        model: A `SentenceTransformer` or `CrossEncoder`.
        folder: To write to.
        float8: Round large matrices to float8 (e4m3: three bits behind the point, a relative error of 2.7 %); no
            library needs to know, a checkpoint of any type is loaded in the type of its `config.json`.
    """
    network = model.transformers_model
    if network is None:
        raise TypeError("the model has no transformer to export")
    network.half()  # type: ignore[no-untyped-call]
    model.save_pretrained(str(folder), create_model_card=False)
    network.float()  # type: ignore[no-untyped-call]
    _drop_unused_tokens(folder)
    if float8:
        _round_large(folder / "model.safetensors")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")


def _round_large(path: Path) -> None:
    weights = load_file(path)
    most = torch.finfo(torch.float8_e4m3fn).max  # beyond it the type has no number
    for name, matrix in weights.items():
        if matrix.ndim == 2 and matrix.numel() >= LARGE:  # noqa: PLR2004
            weights[name] = matrix.clamp(-most, most).to(torch.float8_e4m3fn)
    save_file(weights, path, metadata={"format": "pt"})


def _drop_unused_tokens(folder: Path) -> None:
    tokenizer_path, weights_path, config_path = (
        folder / name for name in ("tokenizer.json", "model.safetensors", "config.json")
    )
    tokenizer = json.loads(tokenizer_path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    if not isinstance(vocabulary, dict):
        return  # SentencePiece: it has no such tokens
    kept = [token for token in sorted(vocabulary, key=vocabulary.__getitem__) if not UNUSED.fullmatch(token)]
    if "special_tokens" not in (tokenizer["post_processor"] or {}):
        return  # MPNet names them otherwise
    if len(kept) == len(vocabulary) or any(added["content"] not in vocabulary for added in tokenizer["added_tokens"]):
        return  # no BERT, or one with words of its own behind the vocabulary
    new_id = {token: number for number, token in enumerate(kept)}

    weights = load_file(weights_path)
    (name,) = (name for name in weights if name.endswith("embeddings.word_embeddings.weight"))
    weights[name] = weights[name][[vocabulary[token] for token in kept]].contiguous()
    save_file(weights, weights_path, metadata={"format": "pt"})

    tokenizer["model"]["vocab"] = new_id
    for added in tokenizer["added_tokens"]:
        added["id"] = new_id[added["content"]]
    for special in tokenizer["post_processor"]["special_tokens"].values():
        special["ids"] = [new_id[token] for token in special["tokens"]]
    tokenizer_path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    config = json.loads(config_path.read_text()) | {"vocab_size": len(kept)}
    config_path.write_text(json.dumps(config, indent=2) + "\n")
