"""From pairs to a finished reranker: fine-tuning, export, threshold, card."""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sentence_transformers import CrossEncoder

from search.encoder import BiEncoder
from search.loading import PRECISIONS
from search.reranker import Reranker
from search.threshold import FILE_NAME
from search.training.card import write_card
from search.training.corpus import LostObject, Split, load_corpus
from search.training.export import export
from search.training.finetune import LOG_NAME, finetune
from search.training.finished_folder import finished_folder
from search.training.pair_file import hold_out
from search.training.pairs import Mix, Pair, build_pairs, validation_contradictions, validation_pairs
from search.training.plots import plot_log
from search.training.recipe import Recipe
from search.training.run_folder import alone_in
from search.training.threshold_fit import FLIP_PAIRS, fit_threshold, require_both_labels
from search.types import Advance

TRAINING_MIX = Mix(twin=5, hard=0, random=0, stray=6, unlike=3, shortened=1, embellished=1, lot=1, with_category=0.2)
"""The recipe adds hard and foreign negatives."""

HARD_BELOW = 0.95
"""See `Mix.hard_below`; where all training objects are mined."""

CHECKPOINT_PAIRS = 2000
"""Validation pairs that choose the checkpoint; all of the corpus' would take as long as 2,000 training steps."""

CORPUS_NAME = "the shipped corpus"


@dataclass(frozen=True)
class TrainingData:
    """What a reranker is made from."""

    source: str
    train: Sequence[Pair]
    validation: Sequence[Pair]
    """Choose checkpoint, threshold and calibration."""
    contradictions: Sequence[Pair] = ()
    """The blend with the encoder is fitted on these too."""


def corpus_data(recipe: Recipe, device: str = "auto") -> TrainingData:
    """The pairs of the shipped corpus: training split and validation split.

    Raises:
        InputFileError: The corpus cannot be read.
        TrainingError: It has no such groups.
        ModelError: The bi-encoder that mines cannot be used.
    """
    everything = load_corpus()
    corpus = everything.training_groups(recipe.groups)
    objects, strays = corpus.of(Split.TRAIN)
    vague = corpus.vague[Split.TRAIN] if recipe.vague else []
    mix = replace(TRAINING_MIX, hard=recipe.hard, foreign=recipe.foreign)
    others: list[LostObject] = []
    if recipe.mine_all:
        mix = replace(mix, hard_below=HARD_BELOW)
        learnt = {entry.object for entry in objects}
        others = [entry for entry in everything.objects[Split.TRAIN] if entry.object not in learnt]
    encoder = BiEncoder(recipe.mined_by, device, precision="float32")  # so that a GPU mines the same
    train = build_pairs(objects, strays, encoder, mix, seed=recipe.seed, draws=recipe.draws, vague=vague, others=others)
    return TrainingData(CORPUS_NAME, train, validation_pairs(device), validation_contradictions())


def file_data(source: str, pairs: list[Pair], validation: list[Pair] | None, seed: int) -> TrainingData:
    """A user's own pairs; without validation pairs a tenth of the reports is held out.

    Raises:
        InputFileError: There are too few reports to hold any out.
    """
    train, held = (pairs, validation) if validation else hold_out(pairs, seed)
    return TrainingData(source, train, held)


def train_reranker(data: TrainingData, recipe: Recipe, run: Path, device: str = "auto") -> CrossEncoder | None:
    """Fine-tune, or take up a killed run; see `finetune`.

    Raises:
        ModelError: The base cannot be found.
        TrainingError: The validation pairs are all alike, or the run's folder holds another run or is in use.
    """
    require_both_labels(np.array([pair.is_match for pair in data.validation], dtype=np.int64))
    count = min(CHECKPOINT_PAIRS, len(data.validation))
    sample = random.Random(recipe.seed).sample(data.validation, count)  # noqa: S311  a file may be in any order
    with alone_in(run):
        return finetune(data.train, sample, recipe, run, device)


def pairs_to_score(data: TrainingData) -> int:
    """How many pairs `finish_reranker` scores: all in one precision, a sample in each other."""
    in_one = len(data.validation) + len(data.contradictions)
    return in_one + (len(PRECISIONS) - 1) * min(FLIP_PAIRS, len(data.validation))


def finish_reranker(
    model: CrossEncoder,
    data: TrainingData,
    recipe: Recipe,
    run: Path,
    output: Path,
    *,
    encoder: BiEncoder,
    advance: Advance,
) -> Reranker:
    """Save a fine-tuned model with `threshold.json` and model card; the folder appears when all of it is there.

    Args:
        model: From `train_reranker`.
        data: The pairs.
        recipe: Of the run.
        run: The run's folder, with its log.
        output: A new folder.
        encoder: That it is to be used with; the validation pairs are scored on its device.
        advance: Called with the number of validation pairs scored since the last call, in all precisions.

    Raises:
        TrainingError: `output` is there already, or cannot be written.
    """
    with finished_folder(output) as partial:
        plot_log(run / LOG_NAME, run / "log.png")
        export(model, partial, float8=recipe.float8)
        load = functools.partial(Reranker, str(partial), encoder.device, encoder.batch_tokens)
        reranker = load()
        others = [load(precision=name) for name in PRECISIONS if name != reranker.precision]
        threshold = fit_threshold(
            reranker,
            data.validation,
            f"{data.source}, validation",
            others=others,
            encoder=encoder,
            contradictions=data.contradictions,
            advance=advance,
        )
        threshold.save(partial / FILE_NAME)
        write_card(partial, output.name, recipe, data.source, data.train, data.validation, threshold, run / LOG_NAME)
    return Reranker(str(output), encoder.device)
