"""Commands that fine-tune, calibrate and judge the models; they need the extra `lostfound[train]`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.cli.app import app
from search.cli.extras import require_extra
from search.cli.options import BaseName, InBf16, Json, ModelFolder, PairsFile, PolicyChoice, RunFolder, SplitChoice

if TYPE_CHECKING:
    from search.training.pairs import Pair


@app.command()
def train(
    output: ModelFolder,
    pairs: PairsFile = None,
    validation: Annotated[
        Path | None, typer.Option(help="Likewise, to choose by; default: a tenth of the reports of --pairs.")
    ] = None,
    checkpoints: RunFolder = Path("runs/train"),
    base: BaseName = "all-MiniLM-L6-v2",
    learning_rate: Annotated[float, typer.Option(help="At the start; falls linearly.")] = 5e-5,
    warmup_ratio: Annotated[float, typer.Option(help="Share of the steps in which it rises from 0.")] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Pairs per device and step.")] = 16,
    accumulation: Annotated[int, typer.Option(help="Steps whose gradients are added up.")] = 1,
    epochs: Annotated[float, typer.Option(help="Times that every pair is seen.")] = 3,
    max_length: Annotated[int, typer.Option(help="Tokens of a pair.")] = 512,
    evaluation_steps: Annotated[int, typer.Option(help="Steps between evaluations and checkpoints.")] = 500,
    dropout: Annotated[float | None, typer.Option(help="Of layers and attention; default: the base's own.")] = None,
    kept: Annotated[float, typer.Option(help="Share of the base, itself a reranker, in the finished weights.")] = 0.0,
    label_smoothing: Annotated[float, typer.Option(help="0 and 1 become this and 1 less this.")] = 0.0,
    draws: Annotated[int, typer.Option(help="Times that negatives are drawn from the corpus.")] = 1,
    hard: Annotated[int, typer.Option(help="Near descriptions of other groups for every report of the corpus.")] = 1,
    foreign: Annotated[int, typer.Option(help="Near descriptions of other categories, likewise.")] = 0,
    mined_by: Annotated[str, typer.Option(help="Bi-encoder that finds the near descriptions.")] = "all-MiniLM-L6-v2",
    mine_all: Annotated[bool, typer.Option("--mine-all", help="Likewise, from all training objects.")] = False,
    vague: Annotated[bool, typer.Option("--vague", help="Learn from the corpus' vague reports too.")] = False,
    groups: Annotated[str, typer.Option(help="First characters of the groups to learn from; default: all.")] = "",
    bf16: InBf16 = False,
    float8: Annotated[bool, typer.Option("--float8", help="Save large matrices in float8, a third smaller.")] = False,
    seed: Annotated[int, typer.Option(help="Of pairs, order and new weights.")] = 42,
) -> None:
    """Fine-tune a reranker; the defaults are the original system's recipe."""
    require_extra("train")
    from search.console import out, progress
    from search.encoder import BiEncoder
    from search.model_folder import find_model, require_kind
    from search.settings import load_settings
    from search.training.build import (
        corpus_data,
        file_data,
        finish_reranker,
        pairs_to_score,
        train_reranker,
    )
    from search.training.finished_folder import require_new
    from search.training.recipe import Recipe, parse_recipe

    if pairs is None and validation is not None:
        raise typer.BadParameter("--validation goes with --pairs; the corpus has its own")
    recipe = parse_recipe(
        Recipe, base=base, learning_rate=learning_rate, warmup_ratio=warmup_ratio, batch_size=batch_size,
        accumulation=accumulation, epochs=epochs, max_length=max_length, evaluation_steps=evaluation_steps,
        dropout=dropout, kept=kept, label_smoothing=label_smoothing, draws=draws, hard=hard, foreign=foreign,
        mined_by=mined_by, mine_all=mine_all, vague=vague, groups=groups, bf16=bf16, float8=float8,
        seed=seed,
    )  # fmt: skip
    if pairs is not None and (given := recipe.of_the_corpus()):
        raise typer.BadParameter(f"{', '.join(given)}: for the corpus; --pairs are as they are")
    require_new(output)
    find_model(recipe.base)  # before the corpus is encoded
    settings = load_settings()
    device = settings.device
    encoder = BiEncoder(settings.encoder, device, settings.batch_tokens)
    require_kind(encoder.folder, "bi-encoder")  # before hours of training
    if pairs is None:
        data = corpus_data(recipe, device)
    else:
        data = file_data(pairs.name, _read(pairs), _read(validation) if validation else None, seed)
    model = train_reranker(data, recipe, checkpoints, device)
    if model is None:
        return  # the first of the processes that train together finishes
    with progress("Fitting the threshold", pairs_to_score(data)) as advance:
        reranker = finish_reranker(model, data, recipe, checkpoints, output, encoder=encoder, advance=advance)
    ready = f"{output} is ready, fingerprint {reranker.fingerprint[:12]}; try it with LOSTFOUND_RERANKER={output}"
    out.print(ready, soft_wrap=True)


@app.command()
def train_encoder(
    output: ModelFolder,
    checkpoints: RunFolder = Path("runs/train-encoder"),
    base: BaseName = "all-MiniLM-L6-v2",
    learning_rate: Annotated[float, typer.Option(help="After a tenth of the steps; falls linearly.")] = 6e-5,
    batch_size: Annotated[int, typer.Option(help="Objects per step: all others are negatives of each.")] = 64,
    rounds: Annotated[int, typer.Option(help="Times that every object is seen, in other words if there are any.")] = 5,
    groups: Annotated[str, typer.Option(help="First characters of the groups to learn from; default: all.")] = "",
    contradictions: Annotated[
        bool, typer.Option("--contradictions", help="From objects that have them, as negatives; a second pass.")
    ] = False,
    dropout: Annotated[float | None, typer.Option(help="Of layers and attention; default: the base's own.")] = None,
    kept: Annotated[float, typer.Option(help="Share of the base in the finished weights.")] = 0.25,
    checkpoint_steps: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    bf16: InBf16 = False,
    seed: Annotated[int, typer.Option(help="Of the order.")] = 42,
) -> None:
    """Fine-tune a bi-encoder on the shipped corpus; scripts/train_encoder makes the shipped one."""
    require_extra("train")
    from search.console import out, progress
    from search.model_folder import find_model
    from search.settings import load_settings
    from search.training.build_encoder import ITEMS_TO_ENCODE, finish_encoder
    from search.training.build_encoder import train_encoder as fine_tune
    from search.training.corpus import load_corpus
    from search.training.finished_folder import require_new
    from search.training.recipe import EncoderRecipe, parse_recipe

    recipe = parse_recipe(
        EncoderRecipe, base=base, learning_rate=learning_rate, batch_size=batch_size, rounds=rounds, groups=groups,
        contradictions=contradictions, dropout=dropout, kept=kept, checkpoint_steps=checkpoint_steps, bf16=bf16,
        seed=seed,
    )  # fmt: skip
    require_new(output)
    find_model(recipe.base)
    device, corpus = load_settings().device, load_corpus()
    model = fine_tune(corpus, recipe, checkpoints, device)
    with progress("Seeing what it retrieves", ITEMS_TO_ENCODE) as advance:
        encoder = finish_encoder(model, corpus, recipe, output, device=device, advance=advance)
    ready = f"{output} is ready, fingerprint {encoder.fingerprint[:12]}; try it with LOSTFOUND_ENCODER={output}"
    out.print(ready, soft_wrap=True)


@app.command()
def calibrate(
    policy: Annotated[PolicyChoice, typer.Option(help="What the threshold is chosen for.")] = PolicyChoice.BEST_F1,
    at: Annotated[
        float | None, typer.Option(min=0, max=1, help="Value that the policy precision or recall keeps; default 0.9.")
    ] = None,
    pairs: PairsFile = None,
    json: Json = False,
) -> None:
    """Fit this office's threshold and calibration for the reranker of the settings, on this machine's precision."""
    if at is not None and policy in (PolicyChoice.BEST_F1, PolicyChoice.BEST_ACCURACY):
        raise typer.BadParameter(f"--at goes with --policy precision or recall, the policy is {policy}")
    require_extra("train")
    from search.application import Application
    from search.console import print_fields, print_json, progress, warn
    from search.reranker import Reranker
    from search.training.build import CORPUS_NAME
    from search.training.pairs import validation_contradictions, validation_pairs
    from search.training.threshold_fit import FLIP_PAIRS, Policy, fit_threshold

    application = Application()
    chosen = validation_pairs(application.settings.device) if pairs is None else _read(pairs)
    contradictions = validation_contradictions() if pairs is None else []
    fitted_on = f"{CORPUS_NAME}, validation" if pairs is None else pairs.name
    reranker = application.reranker
    # Should the graph ever fail, torch is to serve with this threshold.
    others = [Reranker(reranker.name, "cpu", precision="float32")] if reranker.graph else []
    count = len(chosen) + len(contradictions) + len(others) * min(FLIP_PAIRS, len(chosen))
    with progress("Scoring pairs", count) as advance:
        fitted = fit_threshold(
            reranker,
            chosen,
            fitted_on,
            others=others,
            policy=Policy(policy),
            at=0.9 if at is None else at,
            encoder=application.encoder,
            contradictions=contradictions,
            advance=advance,
        )
    fitted.save(application.threshold_file)
    fitted = fitted.with_encoder(application.encoder)
    if reranker.graph and not reranker.may_leave_early(fitted.threshold, application.encoder.fingerprint):
        warn("run `lostfound optimise` too: the graph was measured at another threshold, or with another encoder")
    if json:
        print_json({"file": str(application.threshold_file), **fitted.model_dump()})
    else:
        told = {"file": application.threshold_file, "threshold": f"{fitted.threshold:.3f}", "policy": fitted.policy}
        print_fields(f"Fitted on {fitted.pairs:,} pairs", told | fitted.figures)


@app.command()
def evaluate(
    split: Annotated[SplitChoice, typer.Option(help="Never choose anything by the test split.")] = SplitChoice.TEST,
    depth: Annotated[int, typer.Option(min=1, help="Candidates compared in whole searches.")] = 100,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for precision-recall, score and reliability plots.")
    ] = None,
    json: Json = False,
) -> None:
    """Judge the models of the settings, beside BM25 and the bi-encoder alone, on the shipped corpus."""
    require_extra("train")
    from search.application import Application
    from search.console import print_fields, print_json, progress
    from search.errors import ModelError, TrainingError
    from search.threshold import load_threshold, require_precision
    from search.training.corpus import Split, load_corpus
    from search.training.evaluation import Evaluation
    from search.training.plots import plot_evaluation

    application = Application()
    fitted = load_threshold(application.reranker, application.threshold_file, application.encoder)
    if fitted is None:
        raise ModelError(f"{application.reranker.folder} has no threshold; fit one with `lostfound calibrate`")
    require_precision(fitted, application.reranker)
    if plots is not None:
        _make_folder(plots)
    with progress("Scoring pairs") as advance:
        evaluation = Evaluation(application.encoder, application.reranker, fitted, depth, advance)
        report = evaluation.run(load_corpus(), Split(split))
    if json:
        sections = {
            name: {title: value.model_dump() for title, value in part.items()} for name, part in report.sections.items()
        }
        print_json({"split": split, "depth": depth, "threshold": fitted.threshold, **sections})
    else:
        for section, part in report.sections.items():
            print_fields(f"{section}, {split} split", dict(part))
    if plots is not None:
        try:
            plot_evaluation(report.mixed, fitted.threshold, plots)
        except OSError as error:
            raise TrainingError(f"the plots cannot be written: {error}; name another folder with --plots") from error


def _read(path: Path) -> "list[Pair]":
    """The good pairs of a file; a warning tells where the bad rows are."""
    from search.console import warn
    from search.training.pair_file import read_pairs

    target = path.parent / f"{path.name}.rejects.jsonl"
    pairs, rejected = read_pairs(path, target)
    if rejected:
        warn(f"{rejected} rows of {path} are no pairs and were left out; see {target}")
    return pairs


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{folder} cannot be made: {error.strerror}") from None
