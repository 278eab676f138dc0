"""Real parts for every test: a migrated SQLite file, and tiny models of the real classes with random weights."""

import csv
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

import search.index.build
from search.cli import main
from search.conversion import save_graph, variants
from search.encoder import BiEncoder
from search.ingest import Ingest
from search.item_input import ImportedItem, NewItem
from search.likelihood import Calibration
from search.loading import quiet_libraries
from search.model_folder import BASE, find_model
from search.pipeline import SearchPipeline
from search.reindex import reindex
from search.reranker import Reranker
from search.threshold import FILE_NAME, Threshold
from storage.database import Database
from storage.schema import upgrade

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}


def make_tiny_encoder(folder: Path, seed: int) -> Path:
    """A bi-encoder of dimension 32 that reads 128 tokens."""
    torch.manual_seed(seed)
    BertModel(BertConfig(**TINY)).save_pretrained(folder / "plain")
    AutoTokenizer.from_pretrained(find_model(BASE), model_max_length=128).save_pretrained(folder / "plain")
    SentenceTransformer(str(folder / "plain"), device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"


def make_tiny_reranker(folder: Path, seed: int, num_labels: int = 1, layers: int = 1) -> Path:
    """A cross-encoder that reads 128 tokens."""
    torch.manual_seed(seed)
    config = BertConfig(**TINY | {"num_hidden_layers": layers}, num_labels=num_labels)
    BertForSequenceClassification(config).save_pretrained(folder / "plain")
    AutoTokenizer.from_pretrained(find_model(BASE), model_max_length=128).save_pretrained(folder / "plain")
    CrossEncoder(str(folder / "plain"), device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"


WORDS = ("a black", "red", "umbrella", "hat with", "torn handle", "small white logo", "on the bench")


def make_pairs(count: int) -> list[tuple[str, str]]:
    """Pairs of texts of one to thirty-nine of these words, always the same."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 40))) for _ in range(2 * count)]
    return list(zip(texts[:count], texts[count:], strict=True))


def with_threshold(folder: Path, value: float = 0.5) -> Path:
    """The reranker in the folder, with a threshold at which one pair in two matches."""
    threshold = Threshold(
        threshold=value, policy="by hand", fitted_on="nothing", pairs=0, figures={}, precision="float32", flipped={},
        calibration=Calibration(method="platt", scores=(0, value, 1), probabilities=(0, 0.5, 1)),
        reranker=Reranker(str(folder)).fingerprint,
    )  # fmt: skip
    threshold.save(folder / FILE_NAME)
    return folder


settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    quiet_libraries()


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable and no `.env` leads a test into a real office."""
    for name in [name for name in os.environ if name.startswith("LOSTFOUND_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("encoder"), seed=1)


@pytest.fixture(scope="session")
def other_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_encoder(tmp_path_factory.mktemp("other-encoder"), seed=2)


@pytest.fixture(scope="session")
def reranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_reranker(tmp_path_factory.mktemp("reranker"), seed=1)


@pytest.fixture(scope="session")
def encoder(encoder_folder: Path) -> BiEncoder:
    return BiEncoder(str(encoder_folder), device="cpu")


@pytest.fixture(scope="session")
def other_encoder(other_encoder_folder: Path) -> BiEncoder:
    return BiEncoder(str(other_encoder_folder), device="cpu")


@pytest.fixture(scope="session")
def reranker(reranker_folder: Path) -> Reranker:
    return Reranker(str(reranker_folder), device="cpu")


@pytest.fixture(scope="session")
def shipped_encoder() -> BiEncoder:
    return BiEncoder("lostfound-encoder", device="cpu")


@pytest.fixture(scope="session")
def shipped_reranker() -> Reranker:
    return Reranker("lostfound-minilm", device="cpu")


@pytest.fixture(scope="session")
def graphs(encoder_folder: Path, reranker_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with graphs of the tiny models in float32."""
    folder = tmp_path_factory.mktemp("graphs")
    exact = variants(int8=False)[-1]
    for plain in (BiEncoder(str(encoder_folder), "cpu"), Reranker(str(reranker_folder), "cpu")):
        save_graph(plain, exact, [], folder / plain.fingerprint[:16])
    return folder


@pytest.fixture(scope="session")
def own_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 pairs of a user and four bad rows."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    colours = ("black", "red", "green", "blue", "white", "yellow", "brown", "grey", "pink", "beige")
    things = ("hat", "umbrella", "wallet", "phone", "bottle")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence_0", "sentence_1", "label", "remark"])
        for number, (colour, thing) in enumerate(itertools.product(colours, things)):
            other = colours[(number + 3) % len(colours)]
            for found, label in ((colour, 1), (other, 0), (colour, 1.0), (other, "0.1")):
                writer.writerow([f"my {colour} {thing}, number {number}", f"A {found} {thing}", label, "x"])
        writer.writerows([["", "a hat", 1, ""], ["a", "b", 2, ""], ["a", "b", "yes", ""], ["a", "b"]])
    return path


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database.at(tmp_path / "lostfound.db")
    upgrade(database)
    return database


@pytest.fixture
def ingest(database: Database, encoder: BiEncoder) -> Ingest:
    return Ingest(database, encoder)


@pytest.fixture
def pipeline(database: Database, encoder: BiEncoder, reranker: Reranker) -> SearchPipeline:
    return SearchPipeline(database, encoder, reranker)


@pytest.fixture
def umbrellas(ingest: Ingest) -> list[str]:
    """Five held items with references U-1 to U-5."""
    for number, colour in enumerate(("black", "blue", "red", "green", "white"), start=1):
        ingest.add(
            NewItem(
                reference=f"U-{number}",
                description=f"a {colour} umbrella, number {number}",
                category="umbrella",
                office="Harbour" if number % 2 else "Airport",
                found_on=date(2026, 10, number),
            )
        )
    return [f"U-{number}" for number in range(1, 6)]


@pytest.fixture(params=["exact", "approximate"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "approximate":
        monkeypatch.setattr("search.index.build.EXACT_UP_TO", 0)
    return str(request.param)


@pytest.fixture(scope="session")
def made_generations(encoder: BiEncoder, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """From `EXACT_UP_TO`, which is in force, to a folder that holds what `two_generations` says."""

    @cache
    def make(_exact_up_to: int) -> Path:
        folder = tmp_path_factory.mktemp("generations")
        database = Database.at(folder / "lostfound.db")
        upgrade(database)
        rows = [ImportedItem(reference=f"H-{n}", description=f"hat {n}, {n % 7} marks") for n in range(300)]
        for some in (rows[:290], rows[290:]):
            Ingest(database, encoder).upsert(some)
            reindex(database, encoder)
        return folder

    return make


@pytest.fixture
def two_generations(database: Database, made_generations: Callable[[int], Path]) -> Database:
    """300 held items and two generations, the older one with 290 of them. Made once, by the `kind` of the test."""
    made = made_generations(search.index.build.EXACT_UP_TO)
    shutil.copytree(made, database.index_folder.parent, dirs_exist_ok=True)
    return database


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder_folder: Path, reranker_folder: Path) -> Path:
    """The environment of an office with tiny models; the folder is its data folder."""
    monkeypatch.setenv("LOSTFOUND_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LOSTFOUND_ENCODER", str(encoder_folder))
    monkeypatch.setenv("LOSTFOUND_RERANKER", str(reranker_folder))
    monkeypatch.setenv("LOSTFOUND_DEVICE", "cpu")
    return tmp_path / "data"


@pytest.fixture
def lostfound(
    office: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: arguments to (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lostfound", *arguments])
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        streams = capfd.readouterr()
        return code, streams.out, streams.err

    return run


@pytest.fixture
def stocked(lostfound: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """An office with three hats."""
    lostfound("init")
    for number, colour in enumerate(("red", "green", "blue"), start=1):
        code, _, error = lostfound("add", f"a {colour} hat", "--reference", f"H-{number}", "--found-on", "2026-10-01")
        assert (code, error) == (0, "")
    return lostfound
