"""A graph of a BERT cut apart between its layers, so that a batch may shrink on its way."""

import re
from typing import Any

CUTS = (1 / 4, 1 / 2, 2 / 3)
"""After which shares of the layers. Of the shipped reranker's twelve, after the third a third of the pairs can leave,
after the sixth seven of ten have left, after the eighth nine of ten."""


def cut_apart(network: Any, openvino: Any) -> tuple[list[Any], list[float]]:
    """The parts of an OpenVINO model of a BERT, and the shares of its layers after which it is cut.

    The first part has the network's inputs and gives the hidden states, shape (n, tokens, width); each other part takes
    these before the same inputs, and the last gives the network's outputs. A model that is built otherwise is one part.
    The network itself is no longer of use.
    """
    opset, inputs = openvino.opset13, network.get_parameters()
    layers = {int(match[1]) for op in network.get_ops() if (match := _LAYER.search(op.get_friendly_name()))}
    parts: list[Any] = []
    shares: list[float] = []
    taken: list[Any] = []
    for after in sorted({round(len(layers) * share) for share in CUTS}):
        ends = [op.output(0) for op in network.get_ordered_ops() if _is_end_of(after - 1, op)]
        if not ends or not 0 < after < len(layers):
            continue
        end = ends[-1]
        shape = end.get_partial_shape()
        if len(shape) != 3 or shape[2].is_dynamic:  # noqa: PLR2004
            continue
        parts.append(openvino.Model([opset.result(end)], [*taken, *inputs], f"part {len(parts)}").clone())
        shares.append(after / len(layers))
        hidden = opset.parameter(shape, end.get_element_type(), "hidden")
        for user in end.get_target_inputs():
            if user.get_node().get_type_name() != "Result":
                user.replace_source_output(hidden.output(0))
        taken = [hidden]
    return [*parts, openvino.Model(network.get_results(), [*taken, *inputs], f"part {len(parts)}")], shares


def _is_end_of(layer: int, op: Any) -> bool:
    """Whether it is of the layer's last normalisation: its scale and shift fall away where they do nothing."""
    name, kind = op.get_friendly_name(), op.get_type_name()
    return f"encoder.layer.{layer}.output.LayerNorm" in name and "nncf" not in name and kind in _NORMALISING


_NORMALISING = ("MVN", "Multiply", "Add")

_LAYER = re.compile(r"\bencoder\.layer\.(\d+)\.")
