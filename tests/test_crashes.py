"""Nothing is lost, and nothing wrong is found, when processes are killed or get in one another's way."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from storage.database import Database

HERE = Path(__file__).parent


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "ignore", str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_fifty_kills_lose_no_committed_item_and_bring_none_back(tmp_path: Path) -> None:
    told = re.match(r"(\d+) kills, (\d+) of them within a reindex", run("index_killer.py", tmp_path, 50))
    assert told is not None
    assert int(told[1]) == 50
    assert 15 <= int(told[2]) < 50


@pytest.mark.slow
def test_four_writers_and_four_readers_agree_while_the_index_is_rebuilt(
    database: Database, encoder_folder: Path, other_encoder_folder: Path
) -> None:
    done = json.loads(run("crowd.py", database.file, encoder_folder, other_encoder_folder, 60))
    assert "failed processes" not in done
    assert done["queries"] > 500
    assert done.get("neighbours missed by an approximate index", 0) < 0.01 * done["neighbours"]
    assert done["items written"] > 500
    assert done["generations published"] >= 5
