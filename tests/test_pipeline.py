import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from conftest import with_threshold

from search.encoder import BiEncoder
from search.errors import FingerprintError, QueryError
from search.ingest import Ingest
from search.item_input import ImportedItem, ItemUpdate, NewItem
from search.likelihood import Likelihood
from search.pipeline import ROUND_PAIRS, Answer, Request, SearchPipeline
from search.reindex import reindex
from search.reranker import Reranker
from search.threshold import FILE_NAME, Threshold
from storage.database import Database
from storage.items import Filters
from storage.models import Status

ALL = Request(show_all=True)
BACKWARDS = Request(filters=Filters(found_from=date(2026, 2, 2), found_to=date(2026, 2, 1)))


def references(answer: Answer) -> set[str]:
    return {match.reference for match in answer.matches}


def test_matches_are_ordered_by_score_and_carry_what_the_models_said(
    pipeline: SearchPipeline, umbrellas: list[str], encoder: BiEncoder, reranker: Reranker
) -> None:
    answer = pipeline.search("a red umbrella", ALL)
    assert [match.rank for match in answer.matches] == [1, 2, 3, 4, 5]
    scores = [match.score for match in answer.matches]
    assert scores == sorted(scores, reverse=True)
    for match in answer.matches:
        (score,) = reranker.score("a red umbrella", [match.description])
        (query, item) = encoder.encode(["a red umbrella", match.description])
        assert match.score == pytest.approx(float(score), abs=1e-5)
        assert match.similarity == pytest.approx(float(query @ item), abs=1e-5)
        assert 0 <= match.score <= 1


def test_many_queries_together_get_the_answers_they_get_alone(pipeline: SearchPipeline, umbrellas: list[str]) -> None:
    queries = ["red", "my umbrella, blue I think, with a long story " * 5, "number 3"]
    together = pipeline.search_many(queries, ALL)
    for query, answer in zip(queries, together, strict=True):
        alone = pipeline.search(query, ALL)
        assert [match.reference for match in answer.matches] == [match.reference for match in alone.matches]
        assert [match.score for match in answer.matches] == pytest.approx(
            [match.score for match in alone.matches], abs=1e-5
        )


def test_an_item_is_found_from_the_moment_it_is_committed_until_it_is_withdrawn(
    pipeline: SearchPipeline, ingest: Ingest
) -> None:
    assert pipeline.search("a hat", ALL).matches == []
    ingest.add(NewItem(reference="H-1", description="a hat"))
    assert references(pipeline.search("a hat", ALL)) == {"H-1"}
    ingest.add(NewItem(reference="H-2", description="another hat"))
    ingest.update("H-1", ItemUpdate(description="a cap"))
    assert {match.description for match in pipeline.search("a hat", ALL).matches} == {"a cap", "another hat"}
    ingest.withdraw("H-1", Status.RETURNED)
    assert references(pipeline.search("a hat", ALL)) == {"H-2"}
    ingest.update("H-1", ItemUpdate(status=Status.HELD))
    assert references(pipeline.search("a hat", ALL)) == {"H-1", "H-2"}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(office="harbour"), {"U-1", "U-3", "U-5"}),
        (Filters(category="UMBRELLA", office="Airport"), {"U-2", "U-4"}),
        (Filters(found_from=date(2026, 10, 2), found_to=date(2026, 10, 4)), {"U-2", "U-3", "U-4"}),
        (Filters(found_from=date(2026, 10, 5)), {"U-5"}),
        (Filters(office="Nowhere"), set()),
        (Filters(status=Status.RETURNED), {"U-6"}),
        (Filters(status=None, office="Airport"), {"U-2", "U-4", "U-6"}),
    ],
)
def test_filters_select_before_the_nearest_are_taken(
    pipeline: SearchPipeline, ingest: Ingest, umbrellas: list[str], filters: Filters, expected: set[str]
) -> None:
    ingest.add(NewItem(reference="U-6", description="an umbrella", office="Airport", found_on=None))
    ingest.withdraw("U-6", Status.RETURNED)
    few = Request(show_all=True, depth=max(1, len(expected)), top=max(1, len(expected)), filters=filters)
    answer = pipeline.search("an umbrella", few)
    assert references(answer) == expected
    assert answer.candidates == len(expected)


def test_top_and_depth_bound_the_answer_and_may_exceed_the_number_of_items(
    pipeline: SearchPipeline, umbrellas: list[str]
) -> None:
    assert len(pipeline.search("umbrella", replace(ALL, top=2)).matches) == 2
    assert pipeline.search("umbrella", replace(ALL, depth=3, top=1)).candidates == 3
    assert len(pipeline.search("umbrella", replace(ALL, depth=1, top=4)).matches) == 4
    assert len(pipeline.search("umbrella", replace(ALL, depth=10_000, top=1_000)).matches) == 5


@pytest.mark.parametrize(
    "request_", [Request(top=0), Request(depth=0), Request(min_score=1.5), Request(top=-3), BACKWARDS]
)
def test_a_request_out_of_range_is_refused(pipeline: SearchPipeline, request_: Request) -> None:
    with pytest.raises(QueryError, match=r"top is|depth is|min_score is|is after the last"):
        pipeline.search("umbrella", request_)


@pytest.mark.parametrize("query", ["", "  \n\t ", "\u00a0", "an \udcff umbrella", "\u200b", "\0", "\ufe0f"])
def test_a_query_that_is_no_text_is_refused(pipeline: SearchPipeline, umbrellas: list[str], query: str) -> None:
    with pytest.raises(QueryError, match="query"):
        pipeline.search(query)


def test_a_query_of_100_kb_is_cut_to_what_the_model_reads_with_a_warning(
    pipeline: SearchPipeline, umbrellas: list[str]
) -> None:
    answer = pipeline.search("red umbrella " * 8000, ALL)
    assert len(answer.matches) == 5
    assert len(answer.query) < 2000
    (warning,) = answer.warnings
    assert f"only its first {len(answer.query)} characters count" in warning
    assert pipeline.search("one word " + "x" * 100_000, ALL).warnings
    assert pipeline.search("red umbrella", ALL).warnings == []


def test_without_a_fitted_threshold_nothing_is_hidden_and_the_answer_says_so(
    pipeline: SearchPipeline, umbrellas: list[str]
) -> None:
    answer = pipeline.search("umbrella")
    assert len(answer.matches) == 5
    assert "no threshold is fitted" in answer.warnings[0]


@pytest.fixture
def fitted(reranker_folder: Path, tmp_path: Path) -> Path:
    """A reranker with a threshold that no score of random weights reaches."""
    folder = tmp_path / "reranker"
    shutil.copytree(reranker_folder, folder)
    return with_threshold(folder, 0.99)


def test_below_the_threshold_there_is_no_match_unless_asked_for(
    database: Database, encoder: BiEncoder, fitted: Path, umbrellas: list[str]
) -> None:
    pipeline = SearchPipeline(database, encoder, Reranker(str(fitted), "cpu"))
    answer = pipeline.search("umbrella")
    assert (answer.matches, answer.below_threshold, answer.threshold) == ([], 5, 0.99)
    assert len(pipeline.search("umbrella", ALL).matches) == 5
    scores = sorted((match.score for match in pipeline.search("umbrella", ALL).matches), reverse=True)
    passing = pipeline.search("umbrella", Request(min_score=scores[1]))
    assert (len(passing.matches), passing.below_threshold) == (2, 3)
    for match in passing.matches:
        assert match.probability == pytest.approx(match.score / 0.99 / 2, abs=1e-6)
        assert match.likelihood is Likelihood.of(match.probability)


def test_how_probable_a_match_is_depends_on_its_rivals_and_not_on_what_is_shown(
    database: Database, encoder: BiEncoder, reranker_folder: Path, umbrellas: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "reranker"
    shutil.copytree(reranker_folder, folder)
    scores = [
        match.score for match in SearchPipeline(database, encoder, Reranker(str(folder))).search("umbrella").matches
    ]
    fitted = Reranker(str(with_threshold(folder, scores[2])), "cpu")
    pipeline = SearchPipeline(database, encoder, fitted)
    odds = [p / (1 - p) for score in scores for p in [np.interp(score, (0, scores[2], 1), (0, 0.5, 1))]]
    rivals = sum(odds[:3])
    expected = [one / (1 + rivals) for one in odds[:3]] + [one / (1 + rivals + one) for one in odds[3:]]
    for request in (Request(), ALL, Request(min_score=scores[0]), Request(top=1), Request(min_score=0)):
        matches = pipeline.search("umbrella", request).matches
        assert [match.probability for match in matches] == pytest.approx(expected[: len(matches)], abs=1e-5)


def test_a_threshold_of_other_weights_is_refused(
    database: Database, encoder: BiEncoder, fitted: Path, umbrellas: list[str]
) -> None:
    path = fitted / "threshold.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reranker": "0" * 64}))
    pipeline = SearchPipeline(database, encoder, Reranker(str(fitted), "cpu"))
    with pytest.raises(FingerprintError, match=r"fitted for reranker 000000000000.*--min-score"):
        pipeline.search("umbrella")
    for request in (Request(min_score=0), ALL):
        answer = pipeline.search("umbrella", request)
        assert [match.probability for match in answer.matches] == [None] * 5
        assert "scores are not calibrated" in answer.warnings[0]


def test_an_office_may_have_a_threshold_of_its_own(
    database: Database, encoder: BiEncoder, fitted: Path, umbrellas: list[str], tmp_path: Path
) -> None:
    own = tmp_path / "office" / FILE_NAME
    pipeline = SearchPipeline(database, encoder, Reranker(str(fitted), "cpu"), own)
    assert pipeline.search("umbrella").threshold == 0.99
    of_model = Threshold.model_validate_json((fitted / FILE_NAME).read_bytes())
    of_model.model_copy(update={"threshold": 0.001}).save(own)
    assert len(pipeline.search("umbrella").matches) == 5


def test_vectors_of_another_encoder_are_not_compared(
    database: Database, umbrellas: list[str], other_encoder: BiEncoder, reranker: Reranker
) -> None:
    pipeline = SearchPipeline(database, other_encoder, reranker)
    with pytest.raises(FingerprintError, match=r"none of the 5 held items has a vector .*lostfound reindex"):
        pipeline.search("umbrella", ALL)
    Ingest(database, other_encoder).add(NewItem(reference="U-6", description="an umbrella"))
    answer = pipeline.search("umbrella", ALL)
    assert references(answer) == {"U-6"}
    assert "5 items have no vector" in answer.warnings[0]
    reindex(database, other_encoder)
    answer = pipeline.search("umbrella", ALL)
    assert len(answer.matches) == 6
    assert answer.warnings == []


def test_withdrawn_items_without_a_vector_are_not_passed_over_in_silence(
    pipeline: SearchPipeline, ingest: Ingest, database: Database, other_encoder: BiEncoder, umbrellas: list[str]
) -> None:
    ingest.withdraw("U-1", Status.RETURNED)
    Ingest(database, other_encoder).add(NewItem(reference="U-6", description="an umbrella"))
    Ingest(database, other_encoder).withdraw("U-6", Status.RETURNED)
    answer = pipeline.search("umbrella", Request(show_all=True, filters=Filters(status=Status.RETURNED)))
    assert references(answer) == {"U-1"}
    assert "1 items have no vector" in answer.warnings[0]


def test_threads_may_share_a_pipeline(pipeline: SearchPipeline, umbrellas: list[str]) -> None:
    queries = [f"{colour} umbrella " * length for colour in ("red", "blue") for length in (1, 5, 40)] * 8
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda query: pipeline.search(query, ALL), queries))
    for query, answer in zip(queries[:6], answers, strict=False):
        assert [match.reference for match in answer.matches] == [
            match.reference for match in pipeline.search(query, ALL).matches
        ]


@pytest.mark.parametrize("query", ["a red hat ❤️", "my cafe\u0301 cup", "black bag\u200b", "x\x1b[31m"])
def test_what_the_tokenizer_drops_at_the_end_is_no_cut(
    pipeline: SearchPipeline, umbrellas: list[str], query: str
) -> None:
    answer = pipeline.search(query, ALL)
    assert answer.warnings == []
    assert answer.query.isprintable() or "\u200b" in answer.query


def test_a_deadline_leaves_out_the_least_similar_candidates_and_says_so(
    pipeline: SearchPipeline, ingest: Ingest
) -> None:
    ingest.upsert([ImportedItem(reference=f"H-{n}", description=f"hat {n}, {n % 7} marks") for n in range(100)])
    whole = pipeline.search("a hat", replace(ALL, top=100))
    late = pipeline.search("a hat", replace(ALL, top=100, deadline=1))
    assert (whole.candidates, whole.retrieved, whole.warnings) == (100, 100, [])
    assert (late.candidates, late.retrieved) == (ROUND_PAIRS, 100)
    assert "the deadline of 1 ms came after 16 of 100 candidates" in late.warnings
    most_similar = sorted(whole.matches, key=lambda match: -match.similarity)[:ROUND_PAIRS]
    assert references(late) == {match.reference for match in most_similar}
    in_time = pipeline.search("a hat", replace(ALL, top=100, deadline=600_000))
    assert [match.reference for match in in_time.matches] == [match.reference for match in whole.matches]
    together = pipeline.search_many(["a hat", "a cap"], replace(ALL, deadline=1))
    assert [answer.candidates for answer in together] == [ROUND_PAIRS // 2] * 2
    assert pipeline.search("a hat", Request(show_all=True, deadline=5, filters=Filters(office="none"))).candidates == 0
    with pytest.raises(QueryError, match="deadline is 0 ms"):
        pipeline.search("a hat", Request(deadline=0))
