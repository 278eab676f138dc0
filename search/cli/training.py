"""Commands that fine-tune and judge the reranker; they need the extra `lostfound[train]`."""

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from search.cli.app import app
from search.cli.options import Json
from search.errors import TrainingError


@app.command()
def train(
    output: Annotated[Path, typer.Argument(help="Folder for the finished model.")],
    run: Annotated[Path, typer.Option(help="Folder for checkpoints; a killed run goes on there.")] = Path("runs/train"),
    base: Annotated[str, typer.Option(help="Model to start from: built-in, folder or hub id.")] = "all-MiniLM-L6-v2",
    learning_rate: Annotated[float, typer.Option(help="At the start; falls linearly.")] = 5e-5,
    warmup_ratio: Annotated[float, typer.Option(help="Share of the steps in which it rises from 0.")] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Pairs per step.")] = 16,
    accumulation: Annotated[int, typer.Option(help="Steps whose gradients are added up.")] = 1,
    epochs: Annotated[float, typer.Option(help="Times that every pair is seen.")] = 3,
    max_length: Annotated[int, typer.Option(help="Tokens of a pair.")] = 512,
    evaluation_steps: Annotated[int, typer.Option(help="Steps between evaluations and checkpoints.")] = 500,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in bfloat16.")] = False,
    seed: Annotated[int, typer.Option(help="Of pairs, order and new weights.")] = 42,
) -> None:
    """Fine-tune a reranker on the shipped corpus; the defaults are the original system's recipe."""
    _require_extra()
    from search.console import out
    from search.training.build import build_reranker
    from search.training.recipe import parse_recipe

    recipe = parse_recipe(
        base=base, learning_rate=learning_rate, warmup_ratio=warmup_ratio, batch_size=batch_size,
        accumulation=accumulation, epochs=epochs, max_length=max_length, evaluation_steps=evaluation_steps,
        bf16=bf16, seed=seed,
    )  # fmt: skip
    reranker = build_reranker(recipe, run, output)
    out.print(f"{output} is ready, fingerprint {reranker.fingerprint[:12]}; try it with LOSTFOUND_RERANKER={output}")


@app.command()
def evaluate(
    split: Annotated[str, typer.Option(help="validation or test; never choose anything by the test split.")] = "test",
    depth: Annotated[int, typer.Option(min=1, help="Candidates reranked in whole searches.")] = 100,
    json: Json = False,
) -> None:
    """Judge the models of the settings on the shipped corpus."""
    _require_extra()
    from search.application import Application
    from search.console import print_fields, print_json, progress
    from search.errors import ModelError
    from search.threshold import load_threshold
    from search.training.corpus import Split, load_corpus
    from search.training.evaluation import Evaluation

    if split not in set(Split):
        raise typer.BadParameter(f"{split!r} is none of {', '.join(Split)}")
    application = Application()
    fitted = load_threshold(application.reranker)
    if fitted is None:
        raise ModelError(f"{application.reranker.folder} has no threshold.json; train it with `lostfound train`")
    with progress("Scoring pairs") as advance:
        evaluation = Evaluation(application.encoder, application.reranker, fitted.threshold, depth, advance)
        report = evaluation.run(load_corpus(), Split(split))
    if json:
        print_json({section: {name: asdict(value) for name, value in part.items()} for section, part in report.items()})
        return
    for section, part in report.items():
        print_fields(f"{section}, {split} split", dict(part))


def _require_extra() -> None:
    missing = [name for name in ("accelerate", "datasets", "sklearn") if find_spec(name) is None]
    if missing:
        raise TrainingError(f"{', '.join(missing)} is not installed; run `pip install 'lostfound[train]'`")
