"""Every setting, read from the environment and an optional `.env`, once."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from search.errors import SettingsError


class Settings(BaseSettings):
    """The settings of one process; each field is the variable `LOSTFOUND_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix="LOSTFOUND_", env_file=".env", env_file_encoding="utf-8", extra="ignore"
    )

    data_dir: Path = Field(default=Path.home() / ".lostfound", description="database and logs live here")
    database_url: str = Field(default="", description="an SQLite URL; empty: `lostfound.db` in the data folder")
    encoder: str = Field(default="all-MiniLM-L6-v2", min_length=1, description="bi-encoder: built-in, folder or hub id")
    reranker: str = Field(
        default="lostfound-minilm", min_length=1, description="cross-encoder: built-in, folder or hub id"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="auto: cuda, else mps, else cpu")
    depth: int = Field(default=100, ge=1, le=10_000, description="candidates that are retrieved and reranked")
    top: int = Field(default=10, ge=1, le=1_000, description="matches that are shown")
    batch_size: int = Field(default=32, ge=1, le=4_096, description="texts or pairs that a model reads at once")

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.data_dir / 'lostfound.db'}"


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: A variable has a value out of its range; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"LOSTFOUND_{str(first['loc'][0]).upper()}" if first["loc"] else ".env"
        raise SettingsError(
            f"{name} = {first['input']!r}: {first['msg']}; correct it in the environment or .env"
        ) from None
