"""Settings as an administrator gets them wrong: each mistake is named in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


def test_a_setting_out_of_range_is_named(lostfound: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSTFOUND_DEPTH", "none")
    assert "LOSTFOUND_DEPTH = 'none'" in lostfound("status")[2]
    monkeypatch.delenv("LOSTFOUND_DEPTH")
    monkeypatch.setenv("LOSTFOUND_DATADIR", "x")
    assert "LOSTFOUND_DATADIR is no setting" in lostfound("status")[2]
    monkeypatch.delenv("LOSTFOUND_DATADIR")
    for url in (
        "postgresql://clerk:secret@host/db",
        "sqlite://",
        "sqlite+aiosqlite:///x.db",
        "sqlite:///x.db?a=b",
        "sqlite:///x.db?mode=ro",
        "sqlite:///x.db?mode=ro&uri=true",
        "sqlite:///file:x.db?mode=ro",
        "?",
    ):
        monkeypatch.setenv("LOSTFOUND_DATABASE_URL", url)
        code, _, error = lostfound("status")
        assert (code, len(error.splitlines())) == (1, 1)
        assert "write sqlite:///" in error
        assert "secret" not in error
    monkeypatch.setenv("LOSTFOUND_DATA_DIR", "")  # it would be the folder that one is in
    assert "LOSTFOUND_DATA_DIR = '': " in lostfound("init")[2]
    assert not list(Path().iterdir())


@pytest.mark.parametrize("content", [b"LOSTFOUND_DATA_DIR=d\xe9\n", b'A=1\nLOSTFOUND_DATA_DIR="open\n', b"\xff\xfeL\0"])
def test_a_dotenv_file_that_cannot_be_read_is_named(lostfound: Run, content: bytes) -> None:
    Path(".env").write_bytes(content)
    code, _, error = lostfound("init")
    assert (code, len(error.splitlines())) == (1, 1)
    assert ".env" in error


@pytest.mark.parametrize("name", ["a b", "a?b", "a%20b", "a#b", "büro", "a:memory:b", "~"])
def test_a_data_folder_may_have_any_name(
    lostfound: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOSTFOUND_DATA_DIR", name if name == "~" else str(tmp_path / name))
    assert lostfound("init")[0] == 0
    folder = tmp_path / "home" if name == "~" else tmp_path / name
    assert [path.name for path in folder.iterdir()] == ["lostfound.db"]


def test_settings_are_read_from_a_dotenv_file(lostfound: Run, office: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOSTFOUND_DATA_DIR")
    Path(".env").write_text("LOSTFOUND_DATA_DIR=elsewhere\n")
    assert json.loads(lostfound("init", "--json")[1])["database"] == "elsewhere/lostfound.db"


def test_a_data_folder_that_cannot_be_made_is_named(lostfound: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSTFOUND_DATA_DIR", "/dev/null/office")
    code, _, error = lostfound("init")
    assert (code, len(error.splitlines())) == (1, 1)
    assert "LOSTFOUND_DATA_DIR" in error
