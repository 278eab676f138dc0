"""Choosing the threshold, calibrating, and what is refused; against brute force and cases worked by hand."""

import json
import resource
import shutil
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.encoder import BiEncoder
from search.errors import FingerprintError, ModelError, TrainingError
from search.likelihood import Calibration, Likelihood
from search.reranker import Reranker
from search.threshold import FILE_NAME, Threshold, is_passed_over, load_threshold, require_precision
from search.training import metrics
from search.training.calibration import fit_calibration, fit_isotonic, fit_platt
from search.training.corpus import Split, load_corpus
from search.training.pairs import MIXED, build_pairs
from search.training.threshold_fit import Policy, choose_threshold, fit_threshold

cases = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0])), min_size=2, max_size=40
).filter(lambda rows: len({label for label, _ in rows}) == 2)


@given(cases, st.floats(0.05, 1))
def test_a_threshold_serves_its_policy_as_well_as_any_other_cut(rows: list[tuple[bool, float]], at: float) -> None:
    labels = np.array([int(label) for label, _ in rows])
    scores = np.array([score for _, score in rows])

    def judged(cut: float) -> dict[str, float]:
        predicted = (scores >= cut).astype(np.int64)
        names = ("f1", "accuracy", "precision", "recall")
        return {name: getattr(metrics, name)(labels, predicted) for name in names}

    cuts = sorted(set(scores.tolist()))
    for policy, name in ((Policy.BEST_F1, "f1"), (Policy.BEST_ACCURACY, "accuracy")):
        chosen = choose_threshold(labels, scores, policy)
        assert judged(chosen)[name] == pytest.approx(max(judged(cut)[name] for cut in cuts))
    tolerant = choose_threshold(labels, scores, Policy.BEST_F1, tolerance=0.1)
    within = [cut for cut in cuts if judged(cut)["f1"] >= max(judged(cut)["f1"] for cut in cuts) - 0.1]
    assert judged(tolerant) == judged(max(within))
    keeping = [cut for cut in cuts if judged(cut)["precision"] >= at]
    if keeping:
        chosen = choose_threshold(labels, scores, Policy.PRECISION, at)
        assert judged(chosen) == judged(min(keeping))
    else:
        with pytest.raises(TrainingError, match="no threshold keeps a precision"):
            choose_threshold(labels, scores, Policy.PRECISION, at)
    chosen = choose_threshold(labels, scores, Policy.RECALL, at)
    assert judged(chosen) == judged(max(cut for cut in cuts if judged(cut)["recall"] >= at))


def test_pairs_of_one_label_have_no_threshold() -> None:
    with pytest.raises(TrainingError, match="all 3 validation pairs match"):
        choose_threshold(np.ones(3, dtype=np.int64), np.array([0.1, 0.2, 0.3]), Policy.BEST_F1)


@pytest.mark.parametrize("bend", [lambda p: p, lambda p: p**3, lambda p: np.clip(1.6 * p - 0.3, 0, 1)])
def test_calibrated_probabilities_are_true_whatever_the_scores(bend) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(5)
    truth = rng.beta(0.4, 0.8, 6000)
    labels = (rng.random(6000) < truth).astype(np.int64)
    scores = bend(truth)
    groups = [str(number // 10) for number in range(6000)]
    fitted = fit_calibration(labels[:3000], scores[:3000], groups[:3000])
    calibrated = fitted.alone(scores[3000:])
    assert metrics.calibration_error(labels[3000:], calibrated) < 0.03
    assert metrics.brier(labels[3000:], calibrated) <= metrics.brier(labels[3000:], scores[3000:]) + 0.002
    assert float(fitted.alone(scores[3000:3001])[0]) == pytest.approx(calibrated[0])


def test_a_few_pairs_make_no_certainty() -> None:
    labels, scores = np.array([0] * 10 + [1] * 10), np.linspace(0.01, 0.99, 20)
    for fit in (fit_isotonic, fit_platt):
        said = fit(labels, scores).alone(np.array([0.0, 1.0]))
        assert 0.001 < said[0] < 0.2
        assert 0.8 < said[1] < 0.999


def test_scores_that_tell_nothing_get_the_share_of_matches() -> None:
    labels, scores = np.array([1, 1, 0, 0, 0, 0, 0, 0]), np.linspace(0.9, 0.1, 8)[::-1]
    assert fit_platt(labels, scores).alone(np.array([0.2, 0.8])) == pytest.approx([0.28, 0.28], abs=0.1)
    alone = fit_calibration(labels, scores, ["one"] * 8)
    assert alone.method == "platt"


@given(cases)
def test_a_higher_score_is_never_less_probable(rows: list[tuple[bool, float]]) -> None:
    labels, scores = np.array([int(label) for label, _ in rows]), np.array([score for _, score in rows])
    for fit in (fit_isotonic, fit_platt):
        calibrated = fit(labels, scores).alone(np.linspace(0, 1, 201))
        assert (np.diff(calibrated) >= 0).all()
        assert 0 <= calibrated.min() <= calibrated.max() <= 1


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=6))
def test_candidates_of_which_at_most_one_matches_are_as_probable_as_all_worlds_say(alone: list[float]) -> None:
    worlds = [world for world in product((0, 1), repeat=len(alone)) if sum(world) <= 1]
    weights = [prod(p if is_it else 1 - p for p, is_it in zip(alone, world, strict=True)) for world in worlds]
    expected = np.array(weights) @ np.array(worlds) / sum(weights)
    as_they_are = Calibration(method="platt", scores=(0, 1), probabilities=(0, 1))
    assert as_they_are.of_candidates(alone, 0) == pytest.approx(expected.tolist(), abs=1e-6)


def test_candidates_that_are_certain_alone_share_the_certainty() -> None:
    certain = Calibration(method="platt", scores=(0, 1), probabilities=(0, 1))
    assert certain.of_candidates([], 0) == []
    assert certain.of_candidates([1, 1, 0], 0) == pytest.approx([0.5, 0.5, 0], abs=1e-5)


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0, 1))
def test_hopeless_candidates_take_nothing_from_the_others(scores: list[float], least: float) -> None:
    as_they_are = Calibration(method="platt", scores=(0, 1), probabilities=(0, 1))
    said = dict(zip(scores, as_they_are.of_candidates(scores, least), strict=True))
    good = [score for score in scores if score >= least]
    assert [said[score] for score in good] == as_they_are.of_candidates(good, least)
    assert sum(as_they_are.of_candidates(good, least)) <= 1
    assert [said[score] for score in sorted(scores)] == sorted(said[score] for score in scores)


def test_calibration_error_and_brier_score_are_those_by_hand() -> None:
    labels, said = np.array([1, 0, 0, 1, 1]), np.array([0.9, 0.9, 0.1, 0.1, 1.0])
    # bin 0: said 0.1, true 0.5; bin 9: said 0.9333, true 0.6667
    assert metrics.calibration_error(labels, said) == pytest.approx((2 * 0.4 + 3 * (2.8 / 3 - 2 / 3)) / 5)
    assert metrics.brier(labels, said) == pytest.approx((0.01 + 0.81 + 0.01 + 0.81 + 0) / 5)


def test_probabilities_are_told_in_three_words() -> None:
    told = [str(Likelihood.of(probability)) for probability in (1, 0.8, 0.79, 0.4, 0.39, 0)]
    assert told == ["very likely"] * 2 + ["possible"] * 2 + ["unlikely"] * 2


@pytest.fixture(scope="module")
def made(reranker_folder: Path, encoder: BiEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a reranker and a threshold fitted in float32, its bfloat16 measured; not to be changed."""
    folder = shutil.copytree(reranker_folder, tmp_path_factory.mktemp("made") / "reranker")
    objects, _ = load_corpus().of(Split.VALIDATION)
    pairs = build_pairs(objects[:20], [], encoder, MIXED, seed=1)
    others = [Reranker(str(folder), "cpu", precision="bfloat16")]
    fit_threshold(Reranker(str(folder), "cpu"), pairs, "twenty objects", others=others).save(folder / FILE_NAME)
    return folder


@pytest.fixture
def fitted(made: Path, tmp_path: Path) -> Reranker:
    """Of a copy of it."""
    return Reranker(str(shutil.copytree(made, tmp_path / "reranker")), "cpu")


def test_the_file_says_what_was_fitted_and_on_what(fitted: Reranker) -> None:
    content = json.loads((fitted.folder / FILE_NAME).read_text())
    assert (content["policy"], content["fitted_on"], content["pairs"]) == ("best-f1", "twenty objects", 40 * 9)
    assert content["reranker"] == fitted.fingerprint
    for figure in content["figures"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert set(content["figures"]) == {"AP", "F1", "precision", "recall", "accuracy"}
    assert content["precision"] == "float32"
    assert 0 <= content["flipped"]["bfloat16"] < 0.5


def test_a_precision_that_decides_otherwise_or_was_not_measured_is_refused(fitted: Reranker) -> None:
    threshold = load_threshold(fitted)
    assert threshold is not None
    require_precision(threshold, fitted)
    half = Reranker(fitted.name, "cpu", precision="float16")
    with pytest.raises(FingerprintError, match=r"float16 was not measured; .*`lostfound calibrate`"):
        require_precision(threshold, half)
    for share, refused in ((0.004, False), (0.02, True)):
        measured = threshold.model_copy(update={"flipped": {"float16": share}})
        if refused:
            with pytest.raises(FingerprintError, match=r"float16 decides 2.0% of the pairs otherwise"):
                require_precision(measured, half)
        else:
            require_precision(measured, half)


def test_the_office_s_own_threshold_comes_before_the_model_s(fitted: Reranker, tmp_path: Path) -> None:
    of_model = load_threshold(fitted)
    assert of_model is not None
    office = tmp_path / "office" / FILE_NAME
    assert load_threshold(fitted, office) == of_model
    own = of_model.model_copy(update={"threshold": 0.123})
    own.save(office)
    assert load_threshold(fitted, office) == own
    assert not is_passed_over(office, fitted)
    own.model_copy(update={"reranker": "0" * 64}).save(office)
    assert load_threshold(fitted, office) == of_model
    assert is_passed_over(office, fitted)
    of_model.model_copy(update={"reranker": "0" * 64}).save(fitted.folder / FILE_NAME)
    with pytest.raises(FingerprintError, match=r"fitted for reranker 000000000000.*`lostfound calibrate`"):
        load_threshold(fitted, office)


@pytest.mark.parametrize("content", ["", "[]", '{"threshold": 7}', '{"threshold": "high"}'])
def test_a_damaged_threshold_is_refused(fitted: Reranker, content: str) -> None:
    (fitted.folder / FILE_NAME).write_text(content)
    with pytest.raises(ModelError, match=r"is no threshold: .*; make one with"):
        load_threshold(fitted)


@pytest.mark.parametrize(
    ("scores", "values"),
    [([], []), ([0.1], [0.1, 0.2]), ([0.1, 0.1], [0.1, 0.2]), ([0, 1], [0.5, 0.4]), ([0, 1], [0, 7])],
)
def test_a_calibration_that_is_none_is_refused(fitted: Reranker, scores: list[float], values: list[float]) -> None:
    path = fitted.folder / FILE_NAME
    content = json.loads(path.read_text())
    content["calibration"] |= {"scores": scores, "probabilities": values}
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="is no threshold: calibration"):
        load_threshold(fitted)


def test_a_threshold_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    threshold = Threshold(
        threshold=0.5, policy="best-f1", fitted_on="nothing", pairs=0, figures={}, reranker="0" * 64,
        calibration=Calibration(method="platt", scores=(0, 1), probabilities=(0, 1)), precision="float32", flipped={},
    )  # fmt: skip
    threshold.save(tmp_path / FILE_NAME)
    earlier = (tmp_path / FILE_NAME).read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))  # as if the disk were full
    try:
        with pytest.raises(ModelError, match="cannot be written"):
            threshold.model_copy(update={"threshold": 0.6}).save(tmp_path / FILE_NAME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (tmp_path / FILE_NAME).read_bytes() == earlier
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
