"""Loading models: where they run, in which precision, and how their libraries are kept quiet."""

import logging
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from sentence_transformers.base import BaseModel
from transformers.utils import logging as transformers_logging

from search.errors import ModelError, SettingsError


def resolve_device(wanted: str) -> str:
    """The torch device for the setting `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        SettingsError: That device is not on this machine.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, present in available.items() if present)
    if not available[wanted]:
        raise SettingsError(f"LOSTFOUND_DEVICE = {wanted!r}: there is no such device here; set it to auto or cpu")
    return wanted


PRECISIONS = ("float32", "bfloat16", "float16")


def default_precision(device: str) -> str:
    """Half precision on a GPU (bfloat16 where it has it), else float32.

    Args:
        device: As `resolve_device` returns it.
    """
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "float16" if device == "mps" else "float32"


UNLOADABLE = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)
"""What sentence-transformers raises of a folder without such a model, or with a damaged one."""

Model = TypeVar("Model", bound=BaseModel)


def load_model(model_class: type[Model], folder: Path, wanted_device: str, precision: str | None = None) -> Model:
    """Load a sentence-transformers model from local safetensors, without foreign code.

    Args:
        model_class: `SentenceTransformer` or `CrossEncoder`.
        folder: Where it lies.
        wanted_device: As in the setting.
        precision: One of `PRECISIONS`; None for that of the device.

    Raises:
        ModelError: The folder does not hold such a model, or a damaged one.
        SettingsError: The device is not on this machine.
    """
    quiet_libraries()
    device = resolve_device(wanted_device)
    try:
        return model_class(
            str(folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": getattr(torch, precision or default_precision(device)), "use_safetensors": True},
        )
    except UNLOADABLE as error:
        raise ModelError(f"{folder} is no {model_class.__name__} that can be loaded: {error}") from error


def quiet_libraries() -> None:
    """No weight-loading bars and no advice for developers on a clerk's terminal."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
