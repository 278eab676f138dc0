"""The bi-encoder's similarity counts beside the reranker's score, where the two were fitted together."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import with_threshold

from search.answers import Request
from search.encoder import BiEncoder
from search.ingest import Ingest
from search.item_input import ImportedItem
from search.likelihood import Calibration
from search.pipeline import SearchPipeline
from search.reranker import Reranker
from search.threshold import FILE_NAME, Blend, Threshold, load_threshold
from search.training.blend_fit import fit_blend
from search.training.pairs import Origin, Pair
from search.training.threshold_fit import fit_threshold
from storage.database import Database

Run = Callable[..., tuple[int, str, str]]

ALL = Request(show_all=True, top=100)

COLOURS = ("red", "green", "blue", "black", "white", "brown", "pink", "grey")


@pytest.fixture
def hats(database: Database, encoder: BiEncoder) -> Database:
    """64 held items."""
    rows = [
        ImportedItem(reference=f"H-{n}", description=f"a {COLOURS[n % 8]} hat with {COLOURS[n // 8]} spots")
        for n in range(64)
    ]
    Ingest(database, encoder).upsert(rows)
    return database


@pytest.fixture
def folder(reranker_folder: Path, tmp_path: Path) -> Path:
    """A reranker with a threshold of its own, 0.5."""
    return with_threshold(Path(shutil.copytree(reranker_folder, tmp_path / "reranker")))


def add_blend(folder: Path, encoder: BiEncoder, threshold: float, floor: float, centre: float) -> Blend:
    """Writes a blend with this encoder into the reranker's threshold.json."""
    blend = Blend(
        encoder=encoder.fingerprint, weight=20, centre=centre, floor=floor, threshold=threshold, figures={}, flipped={},
        calibration=Calibration(method="platt", scores=(0, 1), probabilities=(0, 1)),
    )  # fmt: skip
    alone = load_threshold(Reranker(str(folder)))
    assert alone is not None
    alone.model_copy(update={"blend": blend}).save(folder / FILE_NAME)
    return blend


def pipeline_of(database: Database, encoder: BiEncoder, folder: Path) -> SearchPipeline:
    return SearchPipeline(database, encoder, Reranker(str(folder), "cpu"))


def test_a_search_ranks_and_decides_by_both_models_and_pairs_are_scored_alike(
    hats: Database, encoder: BiEncoder, folder: Path
) -> None:
    query = "a blue hat with red spots"
    before = pipeline_of(hats, encoder, folder).search(query, ALL).matches
    assert pipeline_of(hats, encoder, folder).search(query).threshold == 0.5
    centre = float(np.median([match.similarity for match in before]))
    expected = {}
    for match in before:
        odds = match.score / (1 - match.score) * np.exp(20 * (match.similarity - centre))
        expected[match.reference] = odds / (1 + odds)
    middle = float(np.median(list(expected.values())))
    add_blend(folder, encoder, middle, -1, centre)
    pipeline = pipeline_of(hats, encoder, folder)
    answer = pipeline.search(query, ALL)
    assert {match.reference: match.score for match in answer.matches} == pytest.approx(expected, abs=1e-4)
    scores = [match.score for match in answer.matches]
    assert scores == sorted(scores, reverse=True)
    assert [match.reference for match in answer.matches] != [match.reference for match in before]
    shown = pipeline.search(query, Request(top=100))
    assert shown.threshold == middle
    assert [match.reference for match in shown.matches] == [match.reference for match in answer.matches[:32]]
    pairs = [(query, match.description) for match in answer.matches]
    np.testing.assert_allclose(pipeline.score_pairs(pairs)[0], scores, atol=1e-4)


def test_what_is_too_dissimilar_is_passed_over_unless_all_is_asked_for(
    hats: Database, encoder: BiEncoder, folder: Path
) -> None:
    whole = pipeline_of(hats, encoder, folder).search("a blue hat", ALL)
    floor = float(np.median([match.similarity for match in whole.matches]))
    add_blend(folder, encoder, 0.001, floor, floor)
    pipeline = pipeline_of(hats, encoder, folder)
    for request in (Request(top=100), Request(top=100, min_score=0.002), Request(top=100, deadline=600_000)):
        answer = pipeline.search("a blue hat", request)
        assert (answer.candidates, answer.retrieved, answer.reranked) == (64, 64, 32)
        assert answer.below_threshold == 64 - len(answer.matches)
        assert all(match.similarity >= floor for match in answer.matches)
        assert answer.warnings == []
    for request in (ALL, Request(top=100, min_score=0.0005)):
        answer = pipeline.search("a blue hat", request)
        assert (answer.candidates, answer.reranked) == (64, 64)
    add_blend(folder, encoder, 0.001, 1.1, floor)
    nothing = pipeline_of(hats, encoder, folder).search("a blue hat")
    assert (nothing.matches, nothing.candidates, nothing.reranked, nothing.below_threshold) == ([], 64, 0, 64)


def test_with_another_encoder_the_reranker_decides_alone(
    hats: Database, encoder: BiEncoder, other_encoder: BiEncoder, folder: Path
) -> None:
    alone = pipeline_of(hats, encoder, folder).search("a blue hat", ALL)
    add_blend(folder, other_encoder, 0.1, 0.9, 0.5)
    again = pipeline_of(hats, encoder, folder).search("a blue hat", ALL)
    assert again == alone
    assert pipeline_of(hats, encoder, folder).search("a blue hat").threshold == 0.5
    reranker = Reranker(str(folder), "cpu")
    of_two, of_one, of_none = (load_threshold(reranker, encoder=which) for which in (other_encoder, encoder, None))
    assert of_two is not None
    assert of_one == of_none
    assert (of_two.threshold, of_two.floor) == (0.1, 0.9)
    assert of_one is not None
    assert (of_one.threshold, of_one.blend, of_one.floor) == (0.5, None, -1)


def test_a_pair_reaches_the_threshold_exactly_if_the_reranker_gives_what_it_needs(
    encoder: BiEncoder, folder: Path
) -> None:
    add_blend(folder, encoder, 0.3, 0, 0.6)
    fitted = load_threshold(Reranker(str(folder)), encoder=encoder)
    assert fitted is not None
    similarities = np.linspace(0, 1, 30)
    needed = fitted.needed(similarities)
    for shift, reaches in ((-1e-3, False), (1e-3, True)):
        scores = 1 / (1 + np.exp(-needed - shift))
        bounded = np.abs(needed) < 12  # beyond, a score is as good as 0 or 1
        assert ((fitted.scores(scores, similarities) >= 0.3)[bounded] == reaches).all()
    alone = load_threshold(Reranker(str(folder)))
    assert alone is not None
    np.testing.assert_allclose(alone.needed(similarities), 0, atol=1e-12)  # its threshold is 0.5


def samples(weight: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Labels, scores, similarities and clusters; the cosine is worth this many logits per unit."""
    rng = np.random.default_rng(1)
    logits, similarities = rng.normal(scale=3, size=count), rng.uniform(0, 1, size=count)
    chance = 1 / (1 + np.exp(-logits - weight * (similarities - 0.4)))
    labels = (rng.uniform(size=count) < chance).astype(np.int64)
    return labels, 1 / (1 + np.exp(-logits)), similarities, [str(n // 10) for n in range(count)]


def test_a_fitted_blend_finds_what_the_similarity_is_worth_and_leaves_out_one_that_is_worth_nothing() -> None:
    fitted = fit_blend(*samples(10))
    assert fitted is not None
    assert fitted == (pytest.approx(10, rel=0.15), pytest.approx(0.4, abs=0.03))
    assert fit_blend(*samples(-10)) is None
    assert fit_blend(*samples(0)) is None
    labels, scores, similarities, _ = samples(10)
    assert fit_blend(labels, scores, similarities, ["one"] * len(labels)) is None


def test_a_threshold_that_is_fitted_with_an_encoder_has_a_rule_for_both_and_one_for_the_reranker_alone(
    encoder: BiEncoder, reranker: Reranker
) -> None:
    lost = [f"my {COLOURS[n % 8]} hat {n}" for n in range(200)]
    near = encoder.similarities([(text, "a red hat") for text in lost])
    pairs = [  # labels go by the encoder alone
        Pair(text, "a red hat", float(cosine > np.median(near)), Origin.GIVEN, text)
        for text, cosine in zip(lost, near, strict=True)
    ]
    fitted = fit_threshold(reranker, pairs, "hats", encoder=encoder)
    assert fitted.blend is not None
    assert fitted.blend.figures["AP"].value > fitted.figures["AP"].value
    assert fitted.blend.figures["AP"].value > 0.95
    assert fitted == Threshold.model_validate_json(fitted.model_dump_json())
    assert fit_threshold(reranker, pairs, "hats") == fitted.model_copy(update={"blend": None})


@pytest.mark.slow
def test_an_office_that_calibrates_gets_a_blend_with_its_own_encoder(
    own_pairs: Path, lostfound: Run, office: Path
) -> None:
    lostfound("init")
    lostfound("add", "a black hat", "--reference", "H-1")
    code, out, error = lostfound("calibrate", "--pairs", str(own_pairs), "--json")
    assert code == 0, error
    blend = json.loads((office / "threshold.json").read_text())["blend"]
    told = json.loads(lostfound("status", "--json")[1])["threshold"]
    assert ("blend" in told) == (blend is not None)
    assert told["value"] == json.loads(out)["threshold"] == (blend or json.loads(out))["threshold"]
