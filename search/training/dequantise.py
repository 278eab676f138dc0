"""The base of the shipped reranker, from a package that carries it in 8 bits.

`python -m search.training.dequantise MODEL.onnx FOLDER` makes a folder that `lostfound train --base` takes.
"""

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

HEAD_SIZE = 32
"""Numbers per attention head, of all MiniLM models."""


def dequantise(source: Path, folder: Path) -> None:
    """A BERT cross-encoder with one label, quantised by ONNX Runtime, as a folder of float32 safetensors.

    A weight is (q - zero point) * scale; the operation that reads it says which one it is: `/bert/pooler/dense/…` reads
    `bert.pooler.dense.weight`, transposed where it is a matrix product.

    Args:
        source: The ONNX file, beside its tokenizer.
        folder: To write to.

    Raises:
        FileNotFoundError: There is no such file.
        RuntimeError: A weight is missing.
    """
    graph = onnx.load(str(source)).graph
    arrays = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    weights = {name: array for name, array in arrays.items() if name.startswith(("bert.", "classifier."))}
    for node in graph.node:
        for quantised in (name for name in node.input if name.endswith("_quantized") and name in arrays):
            name = quantised.removesuffix("_quantized")
            zero, scale = (arrays[f"{name}_{part}"].astype(np.float32) for part in ("zero_point", "scale"))
            weight = (arrays[quantised].astype(np.float32) - zero) * scale
            target = node.name.strip("/").rpartition("/")[0].replace("/", ".") + ".weight"
            weights[target] = weight.T if node.op_type == "MatMulInteger" else weight
    vocabulary, size = weights["bert.embeddings.word_embeddings.weight"].shape
    layers = {int(found[1]) for name in weights if (found := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))}
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=size,
        num_hidden_layers=len(layers),
        num_attention_heads=size // HEAD_SIZE,
        intermediate_size=len(weights["bert.encoder.layer.0.intermediate.dense.bias"]),
    )
    config.num_labels = 1
    model = BertForSequenceClassification(config)
    expected = model.state_dict()
    model.load_state_dict(
        {name: torch.from_numpy(np.array(array)) for name, array in weights.items() if name in expected}
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, local_files_only=True).save_pretrained(folder)


if __name__ == "__main__":
    dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
