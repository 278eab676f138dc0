"""The parts of lostfound put together from the settings, each made when it is first asked for."""

from functools import cached_property
from pathlib import Path
from typing import TypeVar

from search.encoder import BiEncoder
from search.ingest import Ingest
from search.model import Model
from search.pipeline import SearchPipeline
from search.reranker import Reranker
from search.settings import Settings, load_settings
from search.threshold import FILE_NAME
from storage.database import Database

AnyModel = TypeVar("AnyModel", bound=Model)


class Application:
    """One office: its database, its models, and what works on them.

    Example:
        >>> Application().pipeline.search("my black rucksack").matches  # doctest: +SKIP
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Use these settings, or those of the environment.

        Raises:
            SettingsError: A setting cannot be used.
        """
        self.settings = settings or load_settings()

    @cached_property
    def database(self) -> Database:
        """The database of the settings; it need not exist yet.

        Raises:
            SettingsError: `LOSTFOUND_DATABASE_URL` is not the URL of an SQLite file.
        """
        return Database.of(self.settings)

    @cached_property
    def encoder(self) -> BiEncoder:
        """The bi-encoder of the settings; its weights are not loaded yet."""
        return self._model(BiEncoder, self.settings.encoder)

    @cached_property
    def reranker(self) -> Reranker:
        """The cross-encoder of the settings; its weights are not loaded yet."""
        return self._model(Reranker, self.settings.reranker)

    def _model(self, kind: type[AnyModel], name: str) -> AnyModel:
        graphs = self.graphs if self.settings.backend == "auto" else None
        return kind(name, self.settings.device, self.settings.batch_tokens, graphs=graphs)

    @property
    def graphs(self) -> Path:
        """Where the graphs of the models lie that `lostfound optimise` makes; it need not exist."""
        return self.settings.data_dir / "graphs"

    @property
    def threshold_file(self) -> Path:
        """The office's own threshold; it need not exist."""
        return self.settings.data_dir / FILE_NAME

    @cached_property
    def ingest(self) -> Ingest:
        """The writer of items."""
        return Ingest(self.database, self.encoder)

    @cached_property
    def pipeline(self) -> SearchPipeline:
        """The search."""
        return SearchPipeline(self.database, self.encoder, self.reranker, self.threshold_file)
