"""Text files that are replaced as a whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file in UTF-8; a reader, and whoever comes after a crash, finds the earlier content or this one.

    Raises:
        OSError: It cannot be written; the earlier content is still there.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
