"""What the fine-tuning of a cross-encoder and of a bi-encoder have in common."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from sentence_transformers.base import BaseModel
from transformers import AutoConfig, PretrainedConfig

from search.errors import ModelError, TrainingError
from search.loading import UNLOADABLE
from search.training.recipe import EncoderRecipe, Recipe

COUNT_FROM_PADDING = ("camembert", "mpnet", "roberta", "xlm-roberta")
"""Models whose positions begin behind the number of the padding token."""

Model = TypeVar("Model", bound=BaseModel)


def load_base(model_class: type[Model], base: Path, device: str, dropout: float | None, **options: Any) -> Model:
    """The model to start from, in float32.

    Args:
        model_class: `SentenceTransformer` or `CrossEncoder`.
        base: Its folder.
        device: A torch device.
        dropout: Of layers and attention; None: the base's own.
        options: Further ones of the class; a `max_length` is cut to what the base can read.

    Raises:
        ModelError: The folder holds no such model.
        TrainingError: The base has no such dropout.
    """
    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True)
        if wanted := options.get("max_length"):
            positions = getattr(config, "max_position_embeddings", 0)
            if config.model_type in COUNT_FROM_PADDING:
                positions -= config.pad_token_id + 1
            options["max_length"] = min(wanted, positions or wanted)
        return model_class(
            str(base),
            device=device,
            local_files_only=True,
            model_kwargs={
                # as a base may be saved in half precision, and beside a pickle
                "dtype": torch.float32,
                "use_safetensors": True,
                # On a CPU the gradient of the fused kernel is slow: 53 pairs a second, 70 without it (two cores).
                "attn_implementation": "eager" if device == "cpu" else "sdpa",
            },
            config_kwargs=_dropout(config, base, dropout),
            **options,
        )
    except UNLOADABLE as error:
        raise ModelError(f"{base} is no model that can be trained: {error}") from error


def _dropout(config: PretrainedConfig, base: Path, dropout: float | None) -> dict[str, float]:
    """The entries of a model's configuration that set its dropout."""
    if dropout is None:
        return {}
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    if not all(hasattr(config, name) for name in names):
        raise TrainingError(f"{base} has no dropout that could be set to {dropout}; leave --dropout out")
    return dict.fromkeys(names, dropout)


def common_arguments(recipe: Recipe | EncoderRecipe, run: Path, device: str) -> dict[str, Any]:
    """The trainer's arguments that both models share."""
    return {
        "output_dir": str(run),
        "per_device_train_batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": recipe.warmup_ratio,
        "bf16": recipe.bf16,
        "use_cpu": device == "cpu",
        "optim": "adamw_torch_fused",
        "seed": recipe.seed,
        "save_strategy": "steps",
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": not sys.stderr.isatty(),
    }


def weights_of(model: BaseModel) -> list[torch.Tensor]:
    """A copy, for `keep`."""
    return [weights.detach().clone() for weights in model.parameters()]


def keep(model: BaseModel, before: Sequence[torch.Tensor], share: float) -> None:
    """Put a share of earlier weights into a model's, see `Recipe.kept`."""
    with torch.no_grad():
        for weights, earlier in zip(model.parameters(), before, strict=True):
            weights.lerp_(earlier.to(weights.device), share)
