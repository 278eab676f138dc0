"""Fine-tuning, export, and a threshold of the office's own, on tiny models."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from sentence_transformers import CrossEncoder
from transformers import TrainerControl, TrainerState, TrainingArguments

from search.cli.options import PolicyChoice
from search.errors import TrainingError
from search.reranker import Reranker
from search.threshold import load_threshold
from search.training.build import corpus_data
from search.training.finetune import BestOfMovedRun, SimilarLengths, as_dataset, finetune
from search.training.pair_file import read_pairs
from search.training.pairs import Origin, Pair
from search.training.recipe import Recipe, parse_recipe
from search.training.run_folder import bind, last_whole_checkpoint
from search.training.threshold_fit import Policy

Run = Callable[..., tuple[int, str, str]]


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
    together = SimilarLengths(as_dataset(pairs), batch_size=16, drop_last=True, seed=3)
    assert [len(batch) for batch in together] == [16] * len(together) == [16] * 62


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
    base = shutil.copytree(reranker_folder, tmp_path / "base")
    notes = base / "config_sentence_transformers.json"
    logits = json.loads(notes.read_text()) | {"activation_fn": "torch.nn.modules.linear.Identity"}
    notes.write_text(json.dumps(logits))  # as most cross-encoders of the hub
    done = subprocess.run(
        train_command(own_pairs, base, tmp_path / "run", output), check=True, capture_output=True, text=True
    )
    assert "my-reranker is ready" in done.stdout
    assert "4 rows of" in done.stderr
    rejects = [json.loads(line) for line in own_pairs.with_name("pairs.csv.rejects.jsonl").read_text().splitlines()]
    assert [reject["line"] for reject in rejects] == [202, 203, 204, 205]
    assert rejects[0]["reason"] == "sentence_0: is empty"
    assert rejects[1]["reason"].startswith("label: '2'")

    reranker = Reranker(str(output), "cpu")
    pairs = [("a hat", "a hat"), ("a hat", "a green umbrella")]
    scores = CrossEncoder(str(output), device="cpu").predict(pairs, show_progress_bar=False)
    np.testing.assert_allclose(scores, reranker.score_pairs(pairs), atol=1e-5)
    threshold = load_threshold(reranker)
    assert threshold is not None
    assert (threshold.pairs, set(threshold.flipped)) == (20, {"bfloat16", "float16"})
    assert {path.stat().st_mode & 0o777 for path in output.rglob("*.*")} == {0o644}  # whoever searches may read it
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
    resumed_from = Path(str(last_whole_checkpoint(tmp_path / "killed-run"))) / "trainer_state.json"
    state = json.loads(resumed_from.read_text())
    state["log_history"][0]["loss"] = 123.0  # only a run that goes on from here has it in its log
    resumed_from.write_text(json.dumps(state))
    moved = (tmp_path / "killed-run").rename(tmp_path / "moved-run")
    killed[killed.index(str(tmp_path / "killed-run"))] = str(moved)
    subprocess.run(killed, check=True, capture_output=True)
    assert ",123.0," in (moved / "log.csv").read_text()
    log = (moved / "log.csv").read_text().splitlines()
    assert log[0] == "step,epoch,loss,learning_rate,average_precision"
    assert [int(line.split(",")[0]) for line in log[1:]] == [*range(10, 100, 10), 96]
    pairs = [("my red hat", "a red hat"), ("my red hat", "a green umbrella")]
    scores = [Reranker(str(tmp_path / name), "cpu").score_pairs(pairs) for name in ("whole", "killed")]
    np.testing.assert_allclose(*scores, atol=2e-3)

    again = subprocess.run(killed, check=False, capture_output=True, text=True)
    assert (again.returncode, "killed is there already" in again.stderr) == (1, True)
    killed[killed.index(str(tmp_path / "killed"))] = str(tmp_path / "other")
    refused = subprocess.run([*killed, "--seed", "43"], check=False, capture_output=True, text=True)
    assert (refused.returncode, "holds a run of another recipe" in refused.stderr) == (1, True)
    assert not (tmp_path / "other").exists()


def test_checkpoints_of_another_program_are_not_gone_on_from(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-500-old").mkdir()
    bind(tmp_path, {"recipe": 1})  # there is nothing to go on from
    (tmp_path / "run.json").unlink()
    (tmp_path / "checkpoint-500").mkdir()
    (tmp_path / "checkpoint-500" / "trainer_state.json").write_text("{}")
    with pytest.raises(TrainingError, match="another recipe, base or data"):
        bind(tmp_path, {"recipe": 1})
    assert not (tmp_path / "run.json").exists()


def test_a_checkpoint_that_was_not_written_to_its_end_is_passed_over(tmp_path: Path) -> None:
    for step, state in ((500, "{}"), (1000, "{}"), (1500, '{"global_st')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-2000").mkdir()
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-1000")
    assert last_whole_checkpoint(tmp_path / "nothing") is None


def test_the_best_checkpoint_of_a_run_that_was_moved_is_found(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-500").mkdir()
    arguments, control = TrainingArguments(output_dir=str(tmp_path), use_cpu=True), TrainerControl()
    for step, best in ((500, str(tmp_path / "checkpoint-500")), (1000, None), (None, None)):
        state = TrainerState(best_global_step=step)
        BestOfMovedRun(tmp_path).on_train_begin(arguments, state, control)
        assert state.best_model_checkpoint == best


def test_what_cannot_become_a_reranker_is_refused_before_any_training(tmp_path: Path, lostfound: Run) -> None:
    alike = tmp_path / "alike.jsonl"
    rows = [{"sentence_0": f"hat {n}", "sentence_1": f"a hat with {n} marks", "label": 1} for n in range(20)]
    alike.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "two.csv").write_text(
        "sentence_0,sentence_1,label\n"
        + "".join(f"hat {n},a hat with {n} marks,{label}\n" for n in range(20) for label in (0, 1))
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine")
    for arguments, code, message in (
        (("model", "--pairs", str(alike)), 1, "all 2 validation pairs match"),
        (("full", "--pairs", str(alike)), 1, "full is there already"),
        (("model", "--pairs", "none.csv"), 1, "none.csv cannot be read"),
        (("model", "--validation", str(alike)), 2, "--validation goes with --pairs"),
        (("model", "--pairs", str(alike), "--draws", "2", "--mined-by", "x"), 2, "--draws, --mined-by: for the corpus"),
        (("/dev/null/model", "--pairs", str(alike)), 1, "/dev/null/model cannot be made"),
        (("model", "--groups", "9"), 1, "no training group of the corpus begins with 9"),
        (("model", "--pairs", str(tmp_path / "two.csv"), "--checkpoints", "/dev/null/run"), 1, "/dev/null/run cannot"),
        (("model", "--base", "no-such-base"), 1, "no-such-base"),
        (("model", "--seed", "-1"), 1, "seed = -1"),
        (("model", "--epochs", "inf"), 1, "epochs = inf"),
        (("model", "--learning-rate", "inf"), 1, "learning_rate = inf"),
    ):
        result = lostfound("train", *arguments)
        assert (result[0], message in " ".join(result[2].split())) == (code, True), result
    assert not Path("runs").exists()
    assert (tmp_path / "full" / "README.md").read_text() == "mine"


def test_a_run_that_another_process_is_at_is_left_alone(own_pairs: Path, tmp_path: Path, lostfound: Run) -> None:
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / "lock"):
        result = lostfound("train", "model", "--pairs", str(own_pairs), "--checkpoints", str(tmp_path / "run"))
    assert (result[0], "another process is training in" in result[2]) == (1, True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]


@pytest.mark.slow
def test_two_processes_train_one_reranker(own_pairs: Path, reranker_folder: Path, tmp_path: Path) -> None:
    command = train_command(own_pairs, reranker_folder, tmp_path / "run", tmp_path / "model")
    launch = "-m torch.distributed.run --nproc-per-node 2"
    done = subprocess.run([sys.executable, *launch.split(), *command[1:]], check=True, capture_output=True, text=True)
    assert done.stdout.count("is ready") == 1
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert int(log[-1].split(",")[0]) <= 48  # half the steps of one process
    assert load_threshold(Reranker(str(tmp_path / "model"), "cpu")) is not None


def test_the_command_line_offers_the_policies_that_there_are() -> None:
    assert [choice.value for choice in PolicyChoice] == [policy.value for policy in Policy]


def test_smoothed_labels_keep_their_distance_from_0_and_1() -> None:
    pairs = [Pair("a", "b", label, Origin.GIVEN, "a") for label in (0, 0.5, 1)]
    assert as_dataset(pairs, 0.05)["label"][:] == pytest.approx([0.05, 0.5, 0.95])


@pytest.mark.slow
def test_an_office_fits_its_own_threshold_and_searches_go_by_it(own_pairs: Path, lostfound: Run, office: Path) -> None:
    assert lostfound("init")[0] == 0
    assert lostfound("add", "a black hat", "--reference", "H-1")[0] == 0
    assert "no threshold is fitted" in lostfound("search", "hat")[2]
    assert lostfound("evaluate")[:2] == (1, "")
    code, out, error = lostfound("calibrate", "--pairs", str(own_pairs), "--policy", "recall", "--at", "1", "--json")
    fitted = json.loads(out)
    assert (code, fitted["policy"], fitted["fitted_on"]) == (0, "recall at least 1.0", "pairs.csv")
    assert "4 rows of" in error
    assert fitted["figures"]["recall"]["value"] == 1
    assert Path(fitted["file"]) == office / "threshold.json"
    code, out, error = lostfound("search", "hat", "--json")
    answer = json.loads(out)
    assert (code, error, answer["threshold"]) == (0, "", fitted["threshold"])
    (match,) = json.loads(lostfound("search", "hat", "--json", "--all")[1])["matches"]
    assert match["likelihood"] in ("very likely", "possible", "unlikely")
    assert f"{match['probability']:.0%}" in lostfound("search", "hat", "--all")[1]
    assert json.loads(lostfound("status", "--json")[1])["threshold"]["policy"] == "recall at least 1.0"
    assert lostfound("calibrate", "--at", "0.9")[0] == 2
    code, out, _ = lostfound("calibrate", "--pairs", str(own_pairs), "--policy", "precision", "--at", "0", "--json")
    lowest = json.loads(out)
    assert (code, lowest["policy"], lowest["figures"]["recall"]["value"]) == (0, "precision at least 0.0", 1)

    code, out, _ = lostfound("evaluate", "--split", "validation", "--depth", "1", "--plots", "plots", "--json")
    report = json.loads(out)
    assert (code, report["split"], report["depth"]) == (0, "validation", 1)
    assert 0 < report["mixed pairs"]["AP"]["low"] < report["mixed pairs"]["AP"]["high"] < 1
    assert len(list(Path("plots").glob("*.png"))) == 3


@pytest.mark.slow
def test_a_pass_learns_from_the_groups_that_it_names_alone() -> None:
    pairs = corpus_data(parse_recipe(Recipe, groups="s", foreign=2), "cpu").train
    groups = {pair.group for pair in pairs if pair.origin is not Origin.STRAY}
    assert len(groups) > 30
    assert all(group.startswith("s") for group in groups)
    assert sum(pair.origin is Origin.FOREIGN for pair in pairs) == 2 * sum(pair.origin is Origin.HARD for pair in pairs)


@pytest.mark.slow
def test_the_last_weights_are_mixed_with_the_base_in_the_share_that_is_asked_for(
    reranker_folder: Path, encoder_folder: Path, own_pairs: Path, tmp_path: Path
) -> None:
    pairs, _ = read_pairs(own_pairs, tmp_path / "rejects.jsonl")
    with pytest.raises(TrainingError, match="is no reranker, so no share of it can be kept"):
        finetune(
            pairs[:100], pairs[100:], parse_recipe(Recipe, base=str(encoder_folder), kept=0.5), tmp_path / "none", "cpu"
        )

    def weights(kept: float, evaluation_steps: int) -> dict[str, torch.Tensor]:
        recipe = parse_recipe(
            Recipe,
            base=str(reranker_folder),
            learning_rate=1e-3,
            epochs=1,
            evaluation_steps=evaluation_steps,
            dropout=0,  # an evaluation draws random numbers
            kept=kept,
        )
        model = finetune(pairs[:100], pairs[100:], recipe, tmp_path / str(kept), "cpu")
        assert model is not None
        return model.state_dict()

    at_the_end, mixed = weights(0.0, evaluation_steps=100), weights(0.75, evaluation_steps=2)
    base = CrossEncoder(str(reranker_folder), device="cpu").state_dict()
    moved = 0.0
    for name, tensor in base.items():
        torch.testing.assert_close(mixed[name], 0.75 * tensor + 0.25 * at_the_end[name], atol=1e-6, rtol=1e-5)
        moved += float((at_the_end[name] - tensor).abs().sum())
    assert moved > 1
