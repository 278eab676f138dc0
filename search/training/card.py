"""The model card of a fine-tuned reranker: what it was made from, how, and what it reaches."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

from search.threshold import Threshold
from search.training.pairs import Pair
from search.training.recipe import Recipe

LIBRARIES = ("torch", "transformers", "sentence-transformers", "accelerate", "datasets", "tokenizers")

LOG_ROWS = 20
"""Evaluations that the card shows; the run's `log.csv` has them all."""

SAMPLES = 3


def write_card(
    folder: Path,
    name: str,
    recipe: Recipe,
    source: str,
    train: Sequence[Pair],
    validation: Sequence[Pair],
    threshold: Threshold,
    log: Path,
) -> None:
    """Write `README.md` into the folder of the model.

    Args:
        folder: Of the finished model.
        name: The title.
        recipe: How it was fine-tuned.
        source: Where the pairs come from.
        train: The pairs that it learnt from.
        validation: The pairs that checkpoint and threshold were chosen by.
        threshold: The fitted one, with its figures.
        log: The `log.csv` of the run.
    """
    sections = [
        "---\nlibrary_name: sentence-transformers\npipeline_tag: text-ranking\n"
        "tags: [cross-encoder, reranker, lost-property]\n---",
        f"# {name}",
        "A cross-encoder that says how probable it is that a lost report and a description of a found item are of one "
        "object. `CrossEncoder(folder)` loads it and gives a score in [0, 1]; `threshold.json` holds the score from "
        "which lostfound calls it a match, and the calibration from scores to probabilities.",
        "## Figures",
        f"On {threshold.pairs:,} pairs ({threshold.fitted_on}) by which checkpoint, threshold and calibration were "
        f"chosen, so they flatter a little, with 95 % intervals. Of the threshold: {threshold.policy}, fitted in "
        f"{threshold.precision}.",
        table(("figure", "alone", "with the encoder"), _figures(threshold)),
        table(
            ("other precision", "decisions that differ, alone", "with the encoder"),
            _flipped(threshold),
        ),
        "## Recipe",
        table(("knob", "value"), recipe.model_dump().items()),
        "## Log",
        table(("step", "epoch", "loss", "validation AP"), _evaluations(log)),
        "## Data",
        f"Pairs of {source}.",
        table(
            ("", "pairs", "matches", "mean length lost / found"),
            (_size("train", train), _size("validation", validation)),
        ),
        "Training pairs by origin: " + ", ".join(f"{count:,} {name}" for name, count in _origins(train)) + ".",
        table(("label", "lost", "found"), ((f"{pair.label:g}", pair.lost, pair.found) for pair in train[:SAMPLES])),
        "## Versions",
        ", ".join(f"{name} {version(name)}" for name in LIBRARIES) + ".",
    ]
    (folder / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _figures(threshold: Threshold) -> list[tuple[object, ...]]:
    blend = threshold.blend
    rows: list[tuple[object, ...]] = [
        (name, value, blend.figures[name] if blend else "") for name, value in threshold.figures.items()
    ]
    return [*rows, ("threshold", f"{threshold.threshold:.3f}", f"{blend.threshold:.3f}" if blend else "")]


def _flipped(threshold: Threshold) -> list[tuple[str, str, str]]:
    blend = threshold.blend
    return [
        (name, f"{share:.2%}", f"{blend.flipped[name]:.2%}" if blend else "")
        for name, share in threshold.flipped.items()
    ]


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _evaluations(log: Path) -> list[tuple[str, ...]]:
    with log.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["average_precision"]]
    step = -(-len(rows) // LOG_ROWS) or 1
    shown = rows[::-1][::step][::-1]  # the last is always among them
    return [
        (row["step"], row["epoch"], f"{float(row['loss']):.4f}" if row["loss"] else "", row["average_precision"])
        for row in shown
    ]


def _size(name: str, pairs: Sequence[Pair]) -> tuple[str, str, str, str]:
    lost, found = (fmean(map(len, texts)) for texts in ([p.lost for p in pairs], [p.found for p in pairs]))
    return name, f"{len(pairs):,}", f"{fmean(pair.is_match for pair in pairs):.1%}", f"{lost:.0f} / {found:.0f}"


def _origins(pairs: Sequence[Pair]) -> list[tuple[str, int]]:
    return Counter(str(pair.origin) for pair in pairs).most_common()
