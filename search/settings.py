"""Every setting, read from the environment and an optional `.env`, once."""

import os
from pathlib import Path
from typing import Annotated, Literal

from dotenv.parser import parse_stream
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from search.errors import SettingsError

PREFIX = "LOSTFOUND_"


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("must not be empty")  # it would be the folder that one happens to be in
    return value


class Settings(BaseSettings):
    """The settings of one process; each field is the variable `LOSTFOUND_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_file_encoding="utf-8", extra="ignore", validate_default=True
    )

    data_dir: Annotated[Path, BeforeValidator(_not_empty), AfterValidator(Path.expanduser)] = Path("~/.lostfound")
    """Database, indexes, graphs, log and the office's own threshold live here."""
    database_url: str = ""
    """An SQLite URL; empty: `lostfound.db` in the data folder."""
    encoder: str = Field(default="lostfound-encoder", min_length=1)
    """Bi-encoder: built-in name, folder, or hub id with optional `@revision`."""
    reranker: str = Field(default="lostfound-minilm", min_length=1)
    """Cross-encoder: likewise."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the models run; auto takes cuda, else mps, else cpu."""
    depth: int = Field(default=100, ge=1, le=10_000)
    """Candidates that are retrieved and reranked."""
    top: int = Field(default=10, ge=1, le=1_000)
    """Matches that are shown."""
    backend: Literal["auto", "torch"] = "auto"
    """What computes on a CPU; auto takes the graphs that `lostfound optimise` has made, where there are any."""
    batch_tokens: int = Field(default=0, ge=0, le=10_000_000)
    """Tokens that torch reads at once, about; 0: 2,048 on a CPU, 65,536 on a GPU."""


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: A variable is unknown or has a value out of its range, or `.env` cannot be read.
    """
    try:
        _refuse_unknown({*os.environ, *_names_in_dotenv()})
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{PREFIX}{str(first['loc'][0]).upper()}"
        raise SettingsError(
            f"{name} = {first['input']!r}: {first['msg']}; correct it in the environment or .env"
        ) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{Path('.env').absolute()} is not UTF-8; save it again as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{Path('.env').absolute()} cannot be read: {error.strerror}") from None
    except RuntimeError as error:
        raise SettingsError(f"{PREFIX}DATA_DIR: {error}; set it to a folder") from None


def _names_in_dotenv() -> set[str]:
    path = Path(".env")
    if not path.is_file():
        return set()
    names = set()
    with path.open(encoding="utf-8") as file:
        for binding in parse_stream(file):
            if binding.error:
                raise SettingsError(
                    f"{path.absolute()}, line {binding.original.line} is not NAME=value: "
                    f"{binding.original.string.strip()[:80]!r}"
                )
            names.add(binding.key or "")
    return names


def _refuse_unknown(names: set[str]) -> None:
    """A misspelt name would silently leave the default in force, and the office in another database."""
    known = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    for name in sorted(names):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise SettingsError(f"{name} is no setting; there are {', '.join(sorted(known))}")
