"""The folder of a training run: one process, one recipe, checkpoints from which a killed run goes on."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from search.errors import TrainingError
from search.whole_file import write_whole


@contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Two trainings would write one another's checkpoints. A killed process leaves no lock behind.

    Raises:
        TrainingError: Another process trains there, or the folder cannot be written.
    """
    if os.environ.get("RANK", "0") != "0":
        yield  # trains together with the first
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        with FileLock(run / "lock", timeout=0):
            yield
    except Timeout:
        raise TrainingError(
            f"another process is training in {run}; wait for it, or name another folder with --checkpoints"
        ) from None
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStream" not in str(error):  # as torch calls its files
            raise
        raise TrainingError(
            f"{run} cannot be written or read: {error}; free some space and run the same command; if that does not "
            f"help, delete the newest checkpoint, or name another folder with --checkpoints"
        ) from error


def bind(run: Path, made_from: dict[str, Any]) -> None:
    """A run goes on with the recipe, base and data that it began with.

    Raises:
        TrainingError: The folder holds another run, or cannot be used.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    path = run / "run.json"
    try:
        is_begun = last_whole_checkpoint(run) is not None  # where nothing was saved there is nothing to go on with
        begun = json.loads(path.read_bytes()) if is_begun and path.exists() else None
        if not is_begun:
            run.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(made_from, indent=2) + "\n")
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be used: {error}; name another folder with --checkpoints") from error
    if is_begun and begun != made_from:
        see = f", see {path}" if begun else ""
        raise TrainingError(
            f"{run} holds a run of another recipe, base or data{see}; name another folder with --checkpoints"
        )


def last_whole_checkpoint(run: Path) -> str | None:
    """The newest checkpoint that was written to its end; the trainer writes `trainer_state.json` last."""
    steps = [(int(match[1]), folder) for folder in run.glob("*") if (match := _CHECKPOINT.fullmatch(folder.name))]
    for _, folder in sorted(steps, reverse=True):
        try:
            json.loads((folder / "trainer_state.json").read_bytes())
        except (OSError, ValueError):
            continue
        return str(folder)
    return None


_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def digest(content: object) -> str:
    """SHA-256 of what is learnt from, in its order; 64 hex digits."""
    return hashlib.sha256(repr(content).encode()).hexdigest()
