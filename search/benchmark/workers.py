"""Peers as processes that are asked and answer, one at a time, so that none disturbs another."""

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from search.errors import BenchmarkError

PEER = Path(__file__).with_name("peer.py")

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


class Worker:
    """One process of `peer.py`; a context manager."""

    def __init__(self, python: Path, log: Path) -> None:
        """Start it.

        Args:
            python: The interpreter of an environment that has the peer.
            log: What it writes on stderr is appended there.

        Raises:
            BenchmarkError: It cannot be started.
        """
        self._loaded: str | None = None
        try:
            with log.open("ab") as errors:
                self._process = subprocess.Popen(  # noqa: S603  our own file
                    [python, PEER],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=os.environ | QUIET,
                )
        except OSError as error:
            raise BenchmarkError(f"{python} cannot be run: {error.strerror}") from error

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises:
            BenchmarkError: The peer tells of an error, or has ended.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise BenchmarkError("the peer has no pipes")
        try:
            stdin.write(json.dumps({"do": do, **request}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except (BrokenPipeError, ValueError):  # closed
            line = ""
        if not line.endswith("\n"):  # it may have been killed while it answered
            raise BenchmarkError(f"the peer has ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchmarkError(answer["error"])
        return answer

    def load(self, what: str, name: str, **request: Any) -> None:
        """Load a scorer, searcher or encoder, unless it is loaded already."""
        if self._loaded != name:
            self.ask(f"load {what}", name=name, **request)
            self._loaded = name

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):  # a question that it did not live to read
                    pipe.close()
