"""Where the models run, and how their libraries are kept quiet."""

import logging
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from search.errors import SettingsError


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


def precision(device: str) -> torch.dtype:
    """Half precision on a GPU (bfloat16 where it has it), else float32."""
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device == "mps" else torch.float32


def loading_options(device: str) -> dict[str, Any]:
    """Arguments of a sentence-transformers model: on this device, from local safetensors, without foreign code."""
    return {
        "device": device,
        "local_files_only": True,
        "trust_remote_code": False,
        "model_kwargs": {"dtype": precision(device), "use_safetensors": True},
    }


def quiet_libraries() -> None:
    """No weight-loading bars and no advice for developers on a clerk's terminal."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
