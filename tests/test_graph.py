import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_tiny_reranker, with_threshold
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.bert.modeling_bert import BertPooler

from search.batches import even_budget, token_batches
from search.conversion import save_graph, variants
from search.encoder import BiEncoder
from search.errors import ModelError
from search.graph import Graph
from search.graph_notes import GRAPH, NOTES, WEIGHTS, GraphNotes, import_openvino
from search.logistic import sigmoid
from search.optimise import COARSE_PACE, objection
from search.reranker import Reranker
from search.threshold import MOST_FLIPPED

Run = Callable[..., tuple[int, str, str]]

TEXTS = ["", "hat", "ein Regenschirm, grün", "a black umbrella " * 90, "👒 " * 7, "x" * 4000, *["a hat", "a cap"] * 20]


@given(st.lists(st.integers(0, 600), max_size=60), st.integers(1, 2000))
def test_batches_hold_every_text_once_and_no_more_than_the_budget(lengths: list[int], budget: int) -> None:
    batches = list(token_batches(lengths, budget))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[position] for position in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    in_turn = [lengths[position] for batch in batches for position in batch]
    assert in_turn == sorted(lengths, reverse=True)


@given(st.integers(1, 300), st.integers(1, 200), st.integers(1, 2000), st.integers(1, 8))
def test_a_few_texts_keep_every_stream_busy(length: int, texts: int, most: int, streams: int) -> None:
    lengths = [length] * texts
    sizes = [len(batch) for batch in token_batches(lengths, even_budget(lengths, most, streams))]
    rounds = math.ceil(texts * length / (most * streams))
    assert len(sizes) <= rounds * streams
    assert max(sizes) == math.ceil(texts / (rounds * streams))
    assert (max(sizes) - 1) * length < most


@pytest.mark.parametrize("budget", [1, 100, 1024])
def test_a_graph_gives_what_its_model_gives_in_the_order_of_the_texts(
    graphs: Path, encoder: BiEncoder, reranker: Reranker, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.graph.BATCH_TOKENS", budget)
    monkeypatch.setattr("search.graph.TEXTS_PER_STEP", 17)
    fast_encoder = BiEncoder(encoder.name, "cpu", graphs=graphs)
    fast_reranker = Reranker(reranker.name, "cpu", graphs=graphs)
    assert fast_encoder.graph is not None
    assert fast_reranker.graph is not None
    done: list[int] = []
    np.testing.assert_allclose(fast_encoder.encode(TEXTS, done.append), encoder.encode(TEXTS), atol=1e-4)
    np.testing.assert_allclose(fast_encoder.encode_queries(TEXTS), encoder.encode_queries(TEXTS), atol=1e-4)
    one_by_one = [fast_encoder.encode([text])[0] for text in TEXTS[:8]]  # without padding
    np.testing.assert_allclose(one_by_one, encoder.encode(TEXTS[:8]), atol=1e-4)
    assert (sum(done), fast_encoder.dim, fast_encoder.precision) == (len(TEXTS), encoder.dim, "float32")
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    scores = fast_reranker.score_pairs(pairs, done.append)
    np.testing.assert_allclose(scores, reranker.score_pairs(pairs), atol=1e-4)
    assert (scores.dtype, sum(done)) == (np.float32, 2 * len(TEXTS))


def test_the_last_layer_of_a_graph_computes_only_the_token_that_the_head_reads(tmp_path: Path) -> None:
    deep = Reranker(str(make_tiny_reranker(tmp_path / "deep", seed=1, layers=3)), "cpu")
    save_graph(deep, variants(int8=False)[-1], [], tmp_path / "graph")
    network = import_openvino().Core().read_model(tmp_path / "graph" / GRAPH)
    tokens = {
        int(layer[1]): op.output(0).partial_shape[1]
        for op in network.get_ops()
        if (layer := re.search(r"encoder\.layer\.(\d+)\.intermediate\.dense", op.get_friendly_name()))
        and op.get_type_name() == "MatMul"
    }
    *others, last = (tokens[layer] for layer in sorted(tokens))
    assert last.get_max_length() == 1
    assert len(others) == 2
    assert {dimension.get_max_length() for dimension in others} == {-1}  # as many as there are


def test_a_head_that_reads_every_token_is_given_every_token(
    reranker_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_all(pooler: BertPooler, states: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = pooler.activation(pooler.dense(states.mean(dim=1)))
        return pooled

    monkeypatch.setattr(BertPooler, "forward", of_all)
    plain = Reranker(str(reranker_folder), "cpu")
    save_graph(plain, variants(int8=False)[-1], [], tmp_path / "graph")
    graph = Graph(tmp_path / "graph", plain.fingerprint)
    for pair in (("a hat", "A red hat with a white band"), ("", "a black umbrella")):  # without padding
        np.testing.assert_allclose(sigmoid(graph.run([pair])[:, 0]), plain.score_pairs([pair]), atol=1e-4)


@given(st.text(max_size=200) | st.text(min_size=100).map(lambda text: text * 30))
def test_a_graph_cuts_queries_where_its_model_does(graphs: Path, encoder: BiEncoder, text: str) -> None:
    assert BiEncoder(encoder.name, "cpu", graphs=graphs).cut(text) == encoder.cut(text)


@pytest.fixture
def fast_office(office: Path, graphs: Path, lostfound: Run, reranker_folder: Path) -> Path:
    """An office with graphs and two items."""
    shutil.copytree(graphs, office / "graphs")
    lostfound("init")
    for thing in ("a red hat", "a blue cap"):
        lostfound("add", thing)
    return office


def test_a_search_by_graphs_loads_no_torch_and_tells_nobody(fast_office: Path) -> None:
    code = (
        "import sys; sys.argv = ['lostfound', 'search', 'a hat', '--all', '--json']\n"
        "from search.cli import main\n"
        "main.__globals__['app'](standalone_mode=False)\n"
        "loaded = {name for name, module in sys.modules.items() if module}\n"
        "print(sorted(loaded & {'torch', 'transformers', 'sentence_transformers', 'openvino_telemetry'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    answer, loaded = done.stdout.splitlines()
    assert [match["description"] for match in json.loads(answer)["matches"]].count("a red hat") == 1
    assert loaded == "[]"


def test_a_damaged_graph_is_told_and_torch_serves(fast_office: Path, lostfound: Run, reranker: Reranker) -> None:
    weights = fast_office / "graphs" / reranker.fingerprint[:16] / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x07")
    code, out, _ = lostfound("search", "a hat", "--all", "--json")
    answer = json.loads(out)
    assert (code, len(answer["matches"])) == (0, 2)
    (warning,) = [warning for warning in answer["warnings"] if "graph" in warning]
    assert "is not what was written; make it anew with `lostfound optimise`" in warning
    _, out, _ = lostfound("doctor", "--json")
    assert "lostfound optimise" in [finding["mended_by"] for finding in json.loads(out)["findings"]]
    _, out, _ = lostfound("status", "--json")
    assert "is not what was written" in json.loads(out)["reranker"]["computed by"]
    assert json.loads(out)["encoder"]["computed by"] == "OpenVINO, float32"


def test_a_graph_of_another_processor_is_not_said_to_compute(
    fast_office: Path, lostfound: Run, reranker: Reranker
) -> None:
    notes = fast_office / "graphs" / reranker.fingerprint[:16] / NOTES
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {"processor": "a slide rule"}))
    _, out, _ = lostfound("status", "--json")
    assert "was measured on a slide rule" in json.loads(out)["reranker"]["computed by"]


def test_a_graph_of_another_model_is_not_used(graphs: Path, encoder: BiEncoder, reranker: Reranker) -> None:
    with pytest.raises(ModelError, match="was made from another model"):
        Graph(graphs / reranker.fingerprint[:16], encoder.fingerprint)


def test_an_office_may_do_without_graphs(fast_office: Path, lostfound: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSTFOUND_BACKEND", "torch")
    _, out, _ = lostfound("status", "--json")
    assert json.loads(out)["encoder"]["computed by"].startswith("torch")
    code, _, err = lostfound("optimise")
    assert (code, "LOSTFOUND_BACKEND = 'torch'" in err) == (1, True)


def test_without_a_threshold_there_is_nothing_to_compare_at(office: Path, lostfound: Run) -> None:
    code, _, err = lostfound("optimise")
    assert (code, "run `lostfound calibrate` first" in err) == (1, True)


@pytest.mark.slow
def test_graphs_are_made_once_for_a_model_and_its_threshold(
    office: Path, lostfound: Run, reranker_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_threshold(shutil.copytree(reranker_folder, tmp_path / "reranker"), 0.51)
    monkeypatch.setenv("LOSTFOUND_RERANKER", str(folder))

    def optimise() -> list[dict]:
        code, out, err = lostfound("optimise", "--json")
        assert (code, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    encoder, reranker = optimise()
    assert (encoder["is_new"], reranker["is_new"]) == (True, True)
    assert encoder["notes"]["figures"]["lowest cosine"] >= 0.999
    assert reranker["notes"]["figures"]["flipped"] < MOST_FLIPPED
    assert reranker["notes"]["early_exit_for"][0] == 0.51
    assert (COARSE_PACE in reranker["notes"]["figures"]) == (reranker["notes"]["precision"] != "float32")
    assert [made["is_new"] for made in optimise()] == [False, False]
    assert lostfound("init")[0] == 0
    assert "graph" not in json.loads(lostfound("status", "--json")[1])["threshold"]
    with_threshold(folder, 0.5)
    advice = json.loads(lostfound("status", "--json")[1])["threshold"]["graph"]
    assert advice == "measured at 0.5100; `lostfound optimise` measures it anew"
    encoder, again = optimise()
    # A threshold that was fitted in float32 holds for a graph in float32 as it is.
    assert (encoder["is_new"], again["is_new"]) == (False, reranker["notes"]["precision"] != "float32")
    assert again["notes"]["early_exit_for"][0] == 0.5
    assert not list((office / "graphs").glob("*.partial"))
    assert sys.modules["openvino_telemetry"] is None


def test_a_graph_that_no_longer_holds_does_not_serve_on(
    fast_office: Path, lostfound: Run, reranker_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_threshold(shutil.copytree(reranker_folder, tmp_path / "reranker"), 0.9)
    monkeypatch.setenv("LOSTFOUND_RERANKER", str(folder))
    monkeypatch.setattr("search.optimise.MOST_FLIPPED", 0.0)  # so that no variant holds
    present = fast_office / "graphs" / Reranker(str(folder)).fingerprint[:16]
    assert present.exists()
    threshold = json.loads((folder / "threshold.json").read_text()) | {"precision": "bfloat16"}
    (folder / "threshold.json").write_text(json.dumps(threshold))
    code, out, _ = lostfound("optimise", "--json")
    _, made = [json.loads(line) for line in out.splitlines()]
    assert (code, made["notes"], made["is_new"]) == (0, None, False)
    assert made["refused"].keys() == {variant.name for variant in variants(int8=True)}
    assert not present.exists()


def test_graphs_need_nothing_that_only_training_needs() -> None:
    trainers = ("bm25s", "matplotlib", "search.training.build", "search.training.finetune")  # they import the rest
    code = f"import sys, search.optimise; print([name for name in {trainers} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_an_office_that_was_calibrated_by_its_graph_is_served_by_torch_too(
    fast_office: Path, lostfound: Run, own_pairs: Path, reranker: Reranker
) -> None:
    assert lostfound("calibrate", "--pairs", str(own_pairs))[0] == 0
    (fast_office / "graphs" / reranker.fingerprint[:16] / NOTES).write_text("{}")
    code, out, _ = lostfound("search", "a hat", "--json")
    assert code == 0
    assert json.loads(out)["threshold"] is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_told_in_the_status(
    office: Path, lostfound: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    lostfound("init")
    monkeypatch.setenv("LOSTFOUND_DEVICE", "cuda")
    code, out, _ = lostfound("status", "--json")
    assert code == 0
    assert lostfound("status")[0] == 0
    assert "LOSTFOUND_DEVICE = 'cuda'" in json.loads(out)["reranker"]["error"]


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"lowest cosine": 0.998}, "cosine of 0.9980"),
        ({"lowest cosine": 0.9991, "texts per second": 9, "texts per second by torch": 10}, "9 texts per second"),
        ({COARSE_PACE: 33, f"{COARSE_PACE} in float32": 39}, "33 pairs per second without second looks, in float32 39"),
        ({"flipped": 0.005}, "0.50% of the pairs"),
        ({"flipped": 0.0049, "AP": 0.902, "AP by torch": 0.9}, "0.9020 in place of 0.9000"),
        ({"flipped": 0.0049, "AP": 0.9019, "AP by torch": 0.9, "pairs per second": 2}, None),
    ],
)
def test_a_graph_that_does_otherwise_than_its_model_does_not_serve(figures: dict[str, float], said: str | None) -> None:
    why = objection(figures)
    assert (why is None) if said is None else (why is not None and said in why)


def test_a_threshold_holds_for_a_graph_that_was_measured_at_it(graphs: Path, reranker: Reranker) -> None:
    notes = Graph(graphs / reranker.fingerprint[:16], reranker.fingerprint).notes
    measured = notes.model_copy(update={"figures": {"threshold": 0.25, "flipped": 0.001}})
    assert GraphNotes.model_validate_json(measured.model_dump_json()) == measured
    assert (measured.flipped_at(0.25), measured.flipped_at(0.26), notes.flipped_at(0.25)) == (0.001, None, None)
    assert json.loads((graphs / reranker.fingerprint[:16] / NOTES).read_text())["model"] == reranker.fingerprint
