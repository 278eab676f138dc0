"""Pairs, fine-tuning, export and threshold, on tiny models."""

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder

from search.encoder import BiEncoder
from search.reranker import Reranker
from search.training.corpus import Corpus, Split, load_corpus
from search.training.export import export
from search.training.finetune import SimilarLengths, as_dataset
from search.training.pairs import MIXED, Mix, Origin, Pair, build_pairs, edited_details, twin_pairs
from search.training.threshold_fit import fit_threshold


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus()


def test_pairs_have_the_asked_for_origins_and_the_right_labels(corpus: Corpus, encoder: BiEncoder) -> None:
    objects = corpus.objects[Split.VALIDATION][:50]
    strays = corpus.strays[Split.VALIDATION][:10]
    pairs = build_pairs(objects, strays, encoder, Mix(edited=1, stray=2, shortened=2, embellished=2), seed=1)
    owner = {text: entry for entry in objects for text in (*entry.found, *entry.lost)}
    for pair in pairs:
        match pair.origin:
            case Origin.MATCH:
                assert (owner[pair.lost], pair.label) == (owner[pair.found], 1)
            case Origin.TWIN:
                assert owner[pair.lost] != owner[pair.found]
                assert (owner[pair.lost].group, pair.label) == (owner[pair.found].group, 0)
            case Origin.HARD | Origin.RANDOM:
                assert owner[pair.lost].group != owner[pair.found].group
                assert pair.label == 0
            case Origin.STRAY:
                assert (pair.lost in owner, pair.label) == (False, 0)
            case Origin.EDITED:
                assert (pair.found in owner, pair.label) == (False, 0)
            case Origin.SHORTENED:
                same_start = [text for text in owner if text.startswith(re.split(r"[,;.]", pair.found)[0])]
                is_own = any(owner[text] == owner[pair.lost] for text in same_start)
                assert is_own or pair.label == 0
            case Origin.EMBELLISHED:
                (report,) = (text for text in owner if pair.lost.startswith(text.rstrip(" .!?") + " with "))
                assert (owner[report] == owner[pair.found]) == bool(pair.label)
    count = {origin: sum(pair.origin is origin for pair in pairs) for origin in Origin}
    assert (count[Origin.MATCH], count[Origin.TWIN], count[Origin.HARD]) == (200, 300, 300)
    assert (count[Origin.STRAY], count[Origin.RANDOM]) == (20, 100)
    assert count[Origin.EDITED] > 20
    assert count[Origin.SHORTENED] == 400
    assert count[Origin.EMBELLISHED] > 100
    assert pairs == build_pairs(objects, strays, encoder, Mix(edited=1, stray=2, shortened=2, embellished=2), seed=1)
    assert pairs != build_pairs(objects, strays, encoder, Mix(edited=1, stray=2, shortened=2, embellished=2), seed=2)


def test_about_23_percent_of_mixed_and_20_percent_of_twin_pairs_match(corpus: Corpus, encoder: BiEncoder) -> None:
    objects, strays = corpus.objects[Split.VALIDATION], corpus.strays[Split.VALIDATION]
    mixed = build_pairs(objects, strays, encoder, MIXED, seed=1)
    assert np.mean([pair.label for pair in mixed]) == pytest.approx(0.22, abs=0.02)
    twins = twin_pairs(objects)
    assert len(twins) == len(objects) * 5 * 4
    assert np.mean([pair.label for pair in twins]) == pytest.approx(0.2)


@given(
    lost=st.sampled_from(["a red or blue left shoe", "two black gloves", "my cap, small", "keys"]),
    found=st.sampled_from(["Red shoe, left, blue sole", "Black glove; two of them", "CAP, SMALL, black", "a mug"]),
    seed=st.integers(0, 100),
)
def test_an_edit_changes_only_details_that_the_report_names(lost: str, found: str, seed: int) -> None:
    for edited in edited_details(lost, found, random.Random(seed)):
        before, after = found.split(), edited.split()
        assert edited != found
        for old, new in zip(before, after, strict=True):
            if old != new:
                assert old.strip(",;").casefold() in lost.casefold()
                assert new.strip(",;").casefold() not in lost.casefold().split()


def test_batches_hold_similar_lengths_and_each_pair_once_per_epoch() -> None:
    rng = random.Random(1)
    pairs = [Pair("x" * rng.randint(1, 300), "y", 0, Origin.RANDOM) for _ in range(1000)]
    sampler = SimilarLengths(as_dataset(pairs), batch_size=16, drop_last=False, seed=3)
    epochs = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert sorted(index for batch in batches for index in batch) == list(range(1000))
        assert np.mean([np.ptp([len(pairs[index].lost) for index in batch]) for batch in batches]) < 30
        epochs.append(batches)
    assert epochs[0] != epochs[1]


def test_an_exported_model_scores_as_before_in_half_the_space(reranker_folder: Path, tmp_path: Path) -> None:
    model = CrossEncoder(str(reranker_folder), device="cpu")
    pairs = [("a café crème bag, 50 €", "bag “Café”"), ("[unused5] 日本", "a hat"), ("", "a long hat " * 100)]
    before = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    export(model, tmp_path / "exported")
    exported = CrossEncoder(str(tmp_path / "exported"), device="cpu")
    after = exported.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    np.testing.assert_allclose(before, after, atol=1e-3)
    assert exported.dtype == torch.float32
    assert "[unused5]" not in exported.tokenizer.get_vocab()
    size = (reranker_folder / "model.safetensors").stat().st_size
    assert (tmp_path / "exported" / "model.safetensors").stat().st_size < 0.51 * size
    assert 0 <= Reranker(str(tmp_path / "exported"), "cpu").score("a hat", ["a hat"])[0] <= 1


def test_the_threshold_has_the_best_f1_of_all_cuts(reranker: Reranker, corpus: Corpus, encoder: BiEncoder) -> None:
    pairs = build_pairs(corpus.objects[Split.VALIDATION][:20], [], encoder, MIXED, seed=1)
    fitted = fit_threshold(reranker, pairs, "twenty objects")
    scores = reranker.score_pairs([(pair.lost, pair.found) for pair in pairs])
    labels = np.array([pair.label for pair in pairs])

    def f1(cut: float) -> float:
        predicted = scores >= cut
        return 2 * float((predicted & (labels == 1)).sum()) / float(predicted.sum() + labels.sum())

    best = max(f1(float(cut)) for cut in scores)
    assert fitted.figures["f1"] == pytest.approx(best, abs=1e-4)
    assert f1(fitted.threshold) == pytest.approx(best)
    assert fitted.reranker == reranker.fingerprint


TRAIN = """
import sys
from pathlib import Path
from search.training.corpus import Split, load_corpus
from search.training.finetune import finetune
from search.training.pairs import MIXED, build_pairs
from search.training.recipe import Recipe
from search.encoder import BiEncoder
from search.training.export import export

run, base, encoder = Path(sys.argv[1]), sys.argv[2], BiEncoder(sys.argv[3], "cpu")
corpus = load_corpus()
train = build_pairs(corpus.objects[Split.TRAIN][:12], [], encoder, MIXED, 1)[:200]
validation = build_pairs(corpus.objects[Split.VALIDATION][:5], [], encoder, MIXED, 1)
recipe = Recipe(base=base, epochs=8, evaluation_steps=10, max_length=64, learning_rate=1e-3)
export(finetune(train, validation, recipe, run), run / "model")
"""


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path, reranker_folder: Path, encoder_folder: Path
) -> None:
    command = [sys.executable, "-c", TRAIN]
    models = [str(reranker_folder), str(encoder_folder)]
    subprocess.run([*command, str(tmp_path / "whole"), *models], check=True, capture_output=True)
    killed = tmp_path / "killed"
    with subprocess.Popen(
        [*command, str(killed), *models], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        while run.poll() is None and not list(killed.glob("checkpoint-[2-9]0/trainer_state.json")):
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    assert not (killed / "log.csv").exists()
    subprocess.run([*command, str(killed), *models], check=True, capture_output=True)
    log = (killed / "log.csv").read_text().splitlines()
    assert log[0] == "step,epoch,loss,learning_rate,average_precision"
    assert [int(line.split(",")[0]) for line in log[1:]] == [*range(10, 101, 10), 104]
    pairs = [("my red hat", "a red hat"), ("my red hat", "a green umbrella")]
    whole, resumed = (
        Reranker(str(folder / "model"), "cpu").score_pairs(pairs) for folder in (tmp_path / "whole", killed)
    )
    np.testing.assert_allclose(whole, resumed, atol=2e-3)
