"""The folder of a finished model: it appears when all of it is there, and replaces nothing."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from search.errors import TrainingError


def require_new(output: Path) -> None:
    """Refuse an output that would replace something.

    Raises:
        TrainingError: It is there and no empty folder.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise TrainingError(f"{output} is there already; name a new folder for the finished model")


@contextmanager
def finished_folder(output: Path) -> Iterator[Path]:
    """Yields an empty folder beside `output`, which takes its place at the end.

    Raises:
        TrainingError: `output` is there already, or cannot be written.
    """
    require_new(output)
    partial = output.with_name(f"{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        partial.replace(output)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{output} cannot be written: {error}; free some space and run the same command") from error
