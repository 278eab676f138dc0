"""The architecture: imports point down only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = (
    {"search.errors", "search.types", "search.whole_file"},
    {"search.settings"},
    {"storage"},
    {"search.text", "search.logistic", "search.loading", "search.line_reader", "search.validation"},
    {
        "search.model_folder",
        "search.item_input",
        "search.record_file",
        "search.batches",
        "search.early_exit",
        "search.graph_parts",
    },
    {"search.graph_notes"},
    {"search.graph"},
    {"search.model"},
    {"search.encoder", "search.reranker", "search.index", "search.row_file", "search.likelihood"},
    {"search.threshold", "search.current_index", "search.rejects"},
    {"search.retriever"},
    {"search.answers", "search.rule"},
    {"search.pipeline", "search.ingest"},
    {"search.training"},
    {"search.gate"},
    {"search.reindex"},
    {"search.application"},
    {"search.conversion"},
    {"search.early_exit_searches"},
    {"search.optimise"},
    {"search.benchmark"},
    {"search.status", "search.doctor", "search.console", "search.defects"},
    {"search.cli"},
)


def layer(module: str) -> int:
    for number, members in enumerate(LAYERS):
        if any(module == member or module.startswith(f"{member}.") for member in members):
            return number
    raise AssertionError(f"{module} has no layer; give it one in LAYERS")


def modules() -> list[Path]:
    return [path for package in ("search", "storage") for path in sorted((ROOT / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith(("search.", "storage."))}


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_to_lower_layers(path: Path) -> None:
    name = name_of(path)
    if name == "search":
        return
    package = name.rpartition(".")[0]
    for other in imported(ast.parse(path.read_text(encoding="utf-8"))):
        same_package = any(part not in ("", "search") and other.startswith(f"{part}.") for part in (name, package))
        assert same_package or layer(other) < layer(name), f"{name} imports {other}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_stays_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
