"""Fine-tuning a bi-encoder, on a tiny model and a part of the corpus."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from search.encoder import BiEncoder
from search.errors import TrainingError
from search.training.corpus import LostObject, Split, load_corpus
from search.training.finetune_encoder import batches_of, finetune_encoder
from search.training.recipe import EncoderRecipe, parse_recipe

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def objects() -> list[LostObject]:
    return load_corpus().objects[Split.TRAIN][:300]


def test_a_batch_holds_twins_and_no_object_twice_and_a_round_every_object_once(objects: list[LostObject]) -> None:
    recipe = EncoderRecipe(batch_size=30, rounds=4)
    batches = batches_of(objects, recipe)
    assert [len(batch) for batch in batches] == [30] * 40
    owner = {lost: entry for entry in objects for lost in entry.lost}
    seen = []
    for batch in batches:
        entries = [owner[lost] for lost, _ in batch]
        assert all(
            any(found.startswith(own) for own in entry.found) for entry, (_, found) in zip(entries, batch, strict=True)
        )
        assert len({entry.object for entry in entries}) == 30
        assert len({entry.group for entry in entries}) <= 8
        seen += [entry.object for entry in entries]
    for start in range(0, 1200, 300):
        assert sorted(seen[start : start + 300]) == sorted(entry.object for entry in objects)
    rows = [row for batch in batches for row in batch]
    assert len(set(rows)) == len(rows)
    assert sum(found not in entry.found for (lost, found) in rows if (entry := owner[lost])) > 0.1 * len(rows)
    assert batches == batches_of(objects, recipe)
    assert batches != batches_of(objects, recipe.model_copy(update={"seed": 43}))


def test_contradictions_stand_beside_the_objects_that_have_them() -> None:
    every = load_corpus().objects[Split.TRAIN]
    contradicted = [entry for entry in every if entry.unlike][:100]
    without = [entry for entry in every if not entry.unlike][:50]
    recipe = EncoderRecipe(batch_size=20, rounds=1, contradictions=True)
    rows = [row for batch in batches_of([*without, *contradicted], recipe) for row in batch]
    assert len(rows) == 100
    owner = {lost: entry for entry in contradicted for lost in entry.lost}
    for lost, _, unlike in rows:
        assert any(unlike.startswith(one) for one in owner[lost].unlike)


@pytest.mark.slow
def test_an_encoder_learns_to_find_a_report_s_own_description_and_a_killed_run_goes_on(
    objects: list[LostObject], encoder_folder: Path, tmp_path: Path
) -> None:
    recipe = parse_recipe(
        EncoderRecipe,
        base=str(encoder_folder),
        learning_rate=2e-3,
        batch_size=50,
        rounds=8,
        checkpoint_steps=20,
        dropout=0,
        kept=0,
    )
    learnt = finetune_encoder(objects, recipe, tmp_path / "run", "cpu")

    def first(model: SentenceTransformer) -> float:
        reports, items = (
            model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
            for texts in ([entry.lost[0] for entry in objects], [entry.found[0] for entry in objects])
        )
        return float(((reports @ items.T).argmax(axis=1) == np.arange(len(objects))).mean())

    base = SentenceTransformer(str(encoder_folder), device="cpu")
    assert first(learnt) > first(base) + 0.2

    shutil.rmtree(tmp_path / "run" / "checkpoint-48")
    resumed = finetune_encoder(objects, recipe, tmp_path / "run", "cpu")
    kept = parse_recipe(EncoderRecipe, **recipe.model_dump() | {"kept": 0.75})
    with pytest.raises(TrainingError, match="holds a run of another recipe"):
        finetune_encoder(objects, kept, tmp_path / "run", "cpu")
    mixed = finetune_encoder(objects, kept, tmp_path / "kept", "cpu").state_dict()
    for name, weights in base.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], learnt.state_dict()[name], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(mixed[name], 0.75 * weights + 0.25 * learnt.state_dict()[name], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_command_makes_an_encoder_that_an_office_can_use(
    encoder_folder: Path, reranker_folder: Path, lostfound: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = f"--base {encoder_folder} --rounds 1 --batch-size 500 --dropout 0.1"
    monkeypatch.setattr("search.training.retrieval.ITEMS", 600)
    code, out, error = lostfound("train-encoder", "mine", *options.split())
    assert (code, "mine is ready" in out) == (0, True), error
    assert BiEncoder("mine", "cpu").encode(["a red hat"]).shape == (1, 32)
    card = Path("mine/README.md").read_text()
    assert "| recall@100 | " in card
    assert "| batch_size | 500 |" in card
    assert lostfound("train-encoder", "mine")[:2] == (1, "")
    refused = lostfound("train-encoder", "other", "--base", str(reranker_folder))
    assert (refused[0], "is no bi-encoder" in refused[2]) == (1, True)
    assert "do not fill a batch of 500" in lostfound("train-encoder", "other", *options.split(), "--groups", "s")[2]
    assert "batch_size = 1" in lostfound("train-encoder", "other", "--batch-size", "1")[2]
