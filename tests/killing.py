"""Has a process killed at a line of the code that is tested."""

import os
import signal
import sys
from collections.abc import Collection
from types import FrameType
from typing import Any


def kill_at(number: int, files: Collection[str]) -> None:
    """Have this process killed (SIGKILL) at the so many-th line that it runs of these files."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            lines += 1
            if lines == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
