"""From a sentence-transformers model to the files of a graph: traced, quantised, saved."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from search.encoder import BiEncoder
from search.errors import ModelError
from search.graph import Texts, batch_inputs, reading_tokenizer
from search.graph_notes import (
    EXACT,
    EXACT_WEIGHTS,
    GRAPH,
    NOTES,
    TOKENIZER,
    WEIGHTS,
    GraphNotes,
    import_openvino,
    processor,
    sha256,
)
from search.reranker import Reranker
from search.whole_file import sync, write_whole

INPUTS = ("input_ids", "attention_mask", "token_type_ids")

SENSITIVE = [r".*encoder\.layer\.0\.output\.dense.*"]
"""Stays out of int8: what the first feed-forward block of a BERT writes has outliers. On the validation pairs of an
earlier reranker of six layers this flipped 0.39 % of the decisions in place of 0.53 %, AP was 0.9281 in place of 0.9274
(0.9282 by the model itself), for 3 % of the speed."""

SMOOTHING = 0.8
"""How much of the activations' range SmoothQuant moves into the weights; 0.95, NNCF's own, flips a little more."""


@dataclass(frozen=True)
class Variant:
    """A way to compute a model."""

    name: str
    is_int8: bool
    arithmetic: str
    """`bf16` or `f32`, of all that is not int8."""


def variants(*, int8: bool) -> list[Variant]:
    """What this processor computes, the fastest first."""
    core = import_openvino().Core()
    half = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    every = [
        Variant("int8", is_int8=True, arithmetic=half),
        Variant("bfloat16", is_int8=False, arithmetic="bf16"),
        Variant("float32", is_int8=False, arithmetic="f32"),
    ]
    return [variant for variant in every if (int8 or not variant.is_int8) and variant.arithmetic in (half, "f32")]


def save_graph(model: BiEncoder | Reranker, variant: Variant, examples: Texts, folder: Path) -> None:
    """Write the files of a graph, without figures yet; of a reranker's that is not in float32 also one that is.

    Args:
        model: In float32, by torch.
        variant: How to compute it.
        examples: Texts or pairs by which int8 chooses its ranges.
        folder: A new one.

    Raises:
        ModelError: The model cannot be traced.
        OSError: The folder cannot be written.
    """
    loaded = model._model()
    folder.mkdir(parents=True)
    with _failures_told(model.folder):
        inputs, graph = _traced(loaded)
        tokenizer = loaded.tokenizer.backend_tokenizer.to_str()
    (folder / TOKENIZER).write_text(tokenizer, encoding="utf-8")
    notes = GraphNotes(
        format=4,
        model=model.fingerprint,
        precision=variant.name,
        arithmetic=variant.arithmetic,
        inputs=inputs,
        width=1 if isinstance(model, Reranker) else model.dim,
        max_length=int(loaded.max_seq_length or 512),
        pad_id=int(loaded.tokenizer.pad_token_id or 0),
        prompts={kind: _prompt(loaded, kind) for kind in ("query", "document")},
        processor=processor(),
        figures={},
        sha256={},
    )
    names = [GRAPH, WEIGHTS, TOKENIZER]
    if isinstance(model, Reranker) and variant.name != "float32":
        _save(graph, folder / EXACT, half=False)
        names += [EXACT, EXACT_WEIGHTS]
    if variant.is_int8:
        with _failures_told(model.folder):
            graph = _quantised(graph, notes, examples, folder)
    # Rounding weights to half is within what bfloat16 does to them; float32 is to stay float32.
    _save(graph, folder / GRAPH, half=variant.arithmetic == "bf16")
    checksums = {name: sha256(folder / name) for name in names}
    precision = f"int8:{checksums[WEIGHTS][:8]}" if variant.is_int8 else variant.name
    write_notes(folder, notes.model_copy(update={"precision": precision, "sha256": checksums}))
    for name in checksums:
        sync(folder / name)


def _save(graph: Any, file: Path, *, half: bool) -> None:
    try:
        import_openvino().save_model(graph, file, compress_to_fp16=half)
    except RuntimeError as error:  # so it tells a full disk
        raise OSError(f"{file}: {error}") from error


def write_notes(folder: Path, notes: GraphNotes) -> None:
    """Write or replace the notes of a graph.

    Raises:
        OSError: They cannot be written.
    """
    write_whole(folder / NOTES, notes.model_dump_json(indent=1) + "\n")


class _Forward(torch.nn.Module):
    """A model as a function of tensors, which is what can be traced."""

    def __init__(self, model: SentenceTransformer | CrossEncoder, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.output = "scores" if isinstance(model, CrossEncoder) else "sentence_embedding"

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.model(dict(zip(self.names, tensors, strict=True)))[self.output]
        return output if output.dim() > 1 else output.unsqueeze(-1)


def _traced(model: SentenceTransformer | CrossEncoder) -> tuple[tuple[str, ...], Any]:
    texts = ["a black umbrella", "a red hat with a white band"]
    batch = texts if isinstance(model, SentenceTransformer) else list(zip(texts, texts, strict=True))
    tokenized = model.tokenizer(batch, padding=True, return_tensors="pt")
    names = tuple(name for name in INPUTS if name in tokenized)
    example = tuple(tokenized[name] for name in names)
    forward = _Forward(model.eval(), names)
    with torch.inference_mode(), _without_what_no_head_reads(forward, example):
        graph = import_openvino().convert_model(forward, example_input=example)
    return names, graph


@contextlib.contextmanager
def _without_what_no_head_reads(forward: _Forward, example: tuple[torch.Tensor, ...]) -> Iterator[None]:
    """Let the last layer of a BERT compute the first token alone, once its attention is done.

    Where the head reads only that token, three quarters of the layer's products fall away and nothing else changes.
    """
    endings = {int(match[1]): module for name, module in forward.named_modules() if (match := _ENDING.search(name))}
    expected = forward(*example)
    hook = endings[max(endings)].register_forward_pre_hook(_first_token) if endings else None
    try:
        if hook and not _is_as_before(forward, example, expected):
            hook.remove()
        yield
    finally:
        if hook:
            hook.remove()


def _first_token(_: torch.nn.Module, states: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(state[:, :1] for state in states)


def _is_as_before(forward: _Forward, example: tuple[torch.Tensor, ...], expected: torch.Tensor) -> bool:
    try:
        present = forward(*example)
    except (RuntimeError, IndexError):  # a head that wants as many states as there are tokens
        return False
    return present.shape == expected.shape and torch.allclose(present, expected, atol=1e-4)


_ENDING = re.compile(r"\bencoder\.layer\.(\d+)\.attention\.output$")
"""What follows the attention of a layer: from here on every token is computed for itself."""


def _quantised(graph: Any, notes: GraphNotes, examples: Texts, folder: Path) -> Any:
    """By NNCF, after training: the ranges of the activations are those on the examples."""
    try:
        import nncf  # noqa: PLC0415  optional
    except ImportError as error:
        raise ModelError(f"NNCF is not installed ({error}); run `scripts/setup`") from error
    nncf.set_log_level(logging.ERROR)
    encodings = reading_tokenizer(folder, notes.max_length).encode_batch(list(examples))
    feeds = [dict(enumerate(batch_inputs([encoding], notes))) for encoding in encodings]
    return nncf.quantize(
        graph,
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(patterns=SENSITIVE, validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING)
        ),
    )


def _prompt(model: SentenceTransformer | CrossEncoder, kind: str) -> str:
    return str((model.prompts or {}).get(kind) or "")


@contextlib.contextmanager
def _failures_told(model: Path) -> Iterator[None]:
    """Whatever tracer and quantiser raise is ours to tell; their bars and advice are not for a clerk's terminal."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        except (ModelError, OSError):
            raise
        except Exception as error:
            raise ModelError(f"no graph can be made of {model}: {type(error).__name__}: {str(error)[:200]}") from error
