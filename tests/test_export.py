"""Models as they ship, in 16 and 8 bits, and a base that is published in 8 bits."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from transformers import BertConfig, BertForSequenceClassification

from search.reranker import Reranker
from search.training.dequantise import dequantise
from search.training.export import export


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


def test_large_matrices_in_float8_take_half_again_and_any_user_of_the_library_loads_them(
    reranker_folder: Path, tmp_path: Path
) -> None:
    model = CrossEncoder(str(reranker_folder), device="cpu")
    with torch.no_grad():
        words = model.transformers_model.get_input_embeddings().weight
        words[-1, 0] = 1000  # no number of float8
    for name, float8 in (("half", False), ("eighth", True)):
        export(model, tmp_path / name, float8=float8)
    half, eighth = (load_file(tmp_path / name / "model.safetensors") for name in ("half", "eighth"))
    large = {name for name, matrix in half.items() if matrix.numel() >= 500_000}
    assert large
    assert {name for name, matrix in eighth.items() if matrix.dtype == torch.float8_e4m3fn} == large
    for name in large:
        before, after = half[name].float(), eighth[name].float()
        assert (after - before)[:-1].norm() < 0.04 * before[:-1].norm()
        assert after[-1, 0] == 448
    pairs = [("a café crème bag, 50 €", "bag “Café”"), ("", "a long hat " * 100)]
    loaded = CrossEncoder(str(tmp_path / "eighth"), device="cpu")
    assert loaded.dtype == torch.float32
    scores = loaded.predict(pairs, show_progress_bar=False)
    np.testing.assert_allclose(scores, Reranker(str(tmp_path / "eighth"), "cpu").score_pairs(pairs), atol=1e-5)


def quantised(model: BertForSequenceClassification) -> onnx.ModelProto:
    """As ONNX Runtime does it: matrices in 8 bits with one scale, a product's transposed and without its name."""
    nodes, arrays = [], {}
    for name, weight in model.state_dict().items():
        array = weight.numpy()
        if array.ndim == 1:
            arrays[name] = array
            continue
        is_table = "_embeddings" in name
        stored = name if is_table or "layer" not in name else f"onnx::MatMul_{len(arrays)}"
        scale = np.float32(np.ptp(array) / 255)
        zero = np.uint8(np.clip(np.round(-array.min() / scale), 0, 255))
        whole = np.clip(np.round((array if is_table else array.T) / scale) + zero, 0, 255).astype(np.uint8)
        arrays |= {f"{stored}_quantized": whole, f"{stored}_scale": scale, f"{stored}_zero_point": zero}
        path = "/" + name.removesuffix(".weight").replace(".", "/").replace("layer/", "layer.")
        inputs = [f"{stored}_quantized", "x"] if is_table else ["x", f"{stored}_quantized", "z", f"{stored}_zero_point"]
        operation, last = ("Gather", "Gather") if is_table else ("MatMulInteger", "MatMul_quant")
        nodes.append(onnx.helper.make_node(operation, inputs, [f"{path}/out"], name=f"{path}/{last}"))
    initialisers = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "quantised", [], [], initialisers))


def test_a_reranker_in_8_bits_is_read_back_as_the_one_it_was(reranker_folder: Path, tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96, num_labels=1
    )
    model = BertForSequenceClassification(config)
    shutil.copytree(
        reranker_folder, tmp_path / "package", ignore=shutil.ignore_patterns("*.safetensors", "config.json")
    )
    onnx.save(quantised(model), str(tmp_path / "package" / "model.onnx"))
    dequantise(tmp_path / "package" / "model.onnx", tmp_path / "base")
    read = BertForSequenceClassification.from_pretrained(tmp_path / "base", local_files_only=True)
    assert read.config.num_attention_heads == 2
    for (name, before), after in zip(model.named_parameters(), read.parameters(), strict=True):
        spread = float(np.ptp(before.detach().numpy()))
        torch.testing.assert_close(after, before, atol=spread / 255, rtol=0, msg=name)
