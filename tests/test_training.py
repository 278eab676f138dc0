"""Pairs, fine-tuning, export and threshold, on tiny models."""

import csv
import itertools
import json
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
from search.errors import InputFileError
from search.reranker import Reranker
from search.threshold import load_threshold
from search.training.augmentation import edited_details
from search.training.corpus import Corpus, Split, load_corpus
from search.training.export import export
from search.training.finetune import SimilarLengths, as_dataset
from search.training.pair_file import hold_out, read_pairs
from search.training.pairs import MIXED, Mix, Origin, Pair, build_pairs, twin_pairs


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
    pairs = [Pair("x" * rng.randint(1, 300), "y", 0, Origin.RANDOM, "x") for _ in range(1000)]
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


@pytest.fixture(scope="module")
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


def train_command(pairs: Path, base: Path, run: Path, output: Path) -> list[str]:
    options = f"--base {base} --epochs 8 --evaluation-steps 10 --max-length 64 --learning-rate 1e-3"
    return [
        sys.executable,
        "-m",
        "search.cli",
        "train",
        str(output),
        "--pairs",
        str(pairs),
        "--checkpoints",
        str(run),
        *options.split(),
    ]


@pytest.mark.slow
def test_a_reranker_is_trained_on_a_user_s_own_pairs(own_pairs: Path, reranker_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "my-reranker"
    done = subprocess.run(
        train_command(own_pairs, reranker_folder, tmp_path / "run", output), check=True, capture_output=True, text=True
    )
    assert "my-reranker is ready" in done.stdout
    assert "4 rows of" in done.stderr
    rejects = [json.loads(line) for line in own_pairs.with_name("pairs.rejects.jsonl").read_text().splitlines()]
    assert [reject["line"] for reject in rejects] == [202, 203, 204, 205]
    assert rejects[0]["reason"] == "sentence_0: is empty"
    assert rejects[1]["reason"].startswith("label: '2'")

    assert CrossEncoder(str(output), device="cpu").predict([("a hat", "a hat")], show_progress_bar=False).shape == (1,)
    reranker = Reranker(str(output), "cpu")
    threshold = load_threshold(reranker)
    assert threshold is not None
    assert (threshold.pairs, set(threshold.flipped)) == (20, {"float32", "bfloat16", "float16"})
    card = (output / "README.md").read_text()
    for expected in ("| learning_rate | 0.001 |", "| train | 180 |", "| validation | 20 |", "torch 2.", "| AP | "):
        assert expected in card
    assert (tmp_path / "run" / "log.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_weights_of_one_that_was_not(
    own_pairs: Path, reranker_folder: Path, tmp_path: Path
) -> None:
    whole, killed = (
        train_command(own_pairs, reranker_folder, tmp_path / f"{name}-run", tmp_path / name)
        for name in ("whole", "killed")
    )
    subprocess.run(whole, check=True, capture_output=True)
    with subprocess.Popen(killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not list((tmp_path / "killed-run").glob("checkpoint-[2-9]0/trainer_state.json")):
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed").exists()
    assert (tmp_path / "killed-run" / "log.csv").exists()
    subprocess.run(killed, check=True, capture_output=True)
    log = (tmp_path / "killed-run" / "log.csv").read_text().splitlines()
    assert log[0] == "step,epoch,loss,learning_rate,average_precision"
    assert [int(line.split(",")[0]) for line in log[1:]] == [*range(10, 100, 10), 96]
    pairs = [("my red hat", "a red hat"), ("my red hat", "a green umbrella")]
    scores = [Reranker(str(tmp_path / name), "cpu").score_pairs(pairs) for name in ("whole", "killed")]
    np.testing.assert_allclose(*scores, atol=2e-3)

    other = [*killed, "--seed", "43"]
    refused = subprocess.run(other, check=False, capture_output=True, text=True)
    assert (refused.returncode, "holds a run of another recipe" in refused.stderr) == (1, True)


@pytest.mark.slow
def test_two_processes_train_one_reranker(own_pairs: Path, reranker_folder: Path, tmp_path: Path) -> None:
    command = train_command(own_pairs, reranker_folder, tmp_path / "run", tmp_path / "model")
    launch = "-m torch.distributed.run --nproc-per-node 2"
    done = subprocess.run([sys.executable, *launch.split(), *command[1:]], check=True, capture_output=True, text=True)
    assert done.stdout.count("is ready") == 1
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert int(log[-1].split(",")[0]) <= 48  # half the steps of one process
    assert load_threshold(Reranker(str(tmp_path / "model"), "cpu")) is not None


def test_a_tenth_of_the_reports_is_held_out_and_none_is_on_both_sides(own_pairs: Path, tmp_path: Path) -> None:
    pairs, rejected = read_pairs(own_pairs, tmp_path / "rejects.jsonl")
    assert (len(pairs), rejected) == (200, 4)
    train, held = hold_out(pairs, seed=1)
    assert (len(train), len(held)) == (180, 20)
    assert not {pair.lost for pair in train} & {pair.lost for pair in held}
    assert sorted([*train, *held], key=repr) == sorted(pairs, key=repr)
    with pytest.raises(InputFileError, match="--validation"):
        hold_out(pairs[:4], seed=1)


def test_smoothed_labels_keep_their_distance_from_0_and_1() -> None:
    pairs = [Pair("a", "b", label, Origin.GIVEN, "a") for label in (0, 0.5, 1)]
    assert as_dataset(pairs, 0.05)["label"][:] == pytest.approx([0.05, 0.5, 0.95])


def test_more_draws_are_the_same_matches_with_other_negatives(corpus: Corpus, encoder: BiEncoder) -> None:
    objects, strays = corpus.objects[Split.VALIDATION][:20], corpus.strays[Split.VALIDATION][:5]
    once, twice = (build_pairs(objects, strays, encoder, MIXED, seed=1, draws=draws) for draws in (1, 2))
    assert len(twice) == 2 * len(once)
    matches = [{(p.lost, p.found) for p in pairs if p.label} for pairs in (once, twice)]
    assert matches[0] == matches[1]
    assert len({(p.lost, p.found) for p in twice}) > 1.3 * len({(p.lost, p.found) for p in once})
