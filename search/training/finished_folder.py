"""The folder of a finished model: it appears when all of it is there, and replaces nothing."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from search.errors import TrainingError


def require_new(output: Path) -> None:
    """Refuse an output that would replace something or cannot be made, before hours are spent on it.

    Raises:
        TrainingError: It is there and no empty folder, or the folder that is to hold it cannot be written.
    """
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise TrainingError(f"{output} is there already; name a new folder for the finished model")
        parent = output.resolve().parent
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent):
            pass
    except OSError as error:
        raise TrainingError(f"{output} cannot be made: {error}; name a folder where you may write") from error


@contextmanager
def finished_folder(output: Path) -> Iterator[Path]:
    """Yields an empty folder beside `output`, which takes its place at the end; of a killed process it stays there.

    Raises:
        TrainingError: `output` is there already, or cannot be written.
    """
    require_new(output)
    output = output.resolve()
    try:
        partial = Path(tempfile.mkdtemp(prefix=f"{output.name}.partial-", dir=output.parent))
        try:
            yield partial
            _let_others_read(partial)
            partial.replace(output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{output} cannot be written: {error}; free some space and run the same command") from error


def _let_others_read(folder: Path) -> None:
    """As the umask has it: safetensors and `mkdtemp` make files and folders for this user alone."""
    usual = (folder / "config.json").stat().st_mode & 0o666
    folder.chmod(usual | 0o700 | (usual & 0o444) >> 2)  # who may read may enter
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | usual)
