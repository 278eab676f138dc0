"""From pairs to a finished reranker: fine-tuning, export, threshold, card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.encoder import BiEncoder
from search.loading import PRECISIONS
from search.model_folder import BUILT_IN_ENCODER
from search.reranker import Reranker
from search.threshold import FILE_NAME
from search.training.card import write_card
from search.training.corpus import Split, load_corpus
from search.training.export import export
from search.training.finetune import LOG_NAME, finetune
from search.training.pair_file import hold_out
from search.training.pairs import MIXED, Mix, Pair, build_pairs
from search.training.plots import plot_log
from search.training.recipe import Recipe
from search.training.threshold_fit import fit_threshold
from search.types import Advance

TRAINING_MIX = Mix(twin=6, hard=1, random=0, stray=3, edited=0, shortened=1, embellished=1, with_category=0.2)

CHECKPOINT_PAIRS = 2000
"""Validation pairs that choose the checkpoint; all of them would take as long as 2,000 training steps."""

VALIDATION_SEED = 42

CORPUS_NAME = "the shipped corpus"


@dataclass(frozen=True)
class TrainingData:
    """What a reranker is made from."""

    source: str
    train: Sequence[Pair]
    validation: Sequence[Pair]
    """Choose checkpoint, threshold and calibration."""


def corpus_data(recipe: Recipe) -> TrainingData:
    """The pairs of the shipped corpus: training split and validation split.

    Raises:
        InputFileError: The corpus cannot be read.
    """
    objects, strays = load_corpus().of(Split.TRAIN)
    encoder = BiEncoder(BUILT_IN_ENCODER)
    train = build_pairs(objects, strays, encoder, TRAINING_MIX, seed=recipe.seed, draws=recipe.draws)
    return TrainingData(CORPUS_NAME, train, validation_pairs(encoder))


def file_data(pairs: list[Pair], validation: list[Pair] | None, seed: int) -> TrainingData:
    """A user's own pairs; without a validation file a tenth of the reports is held out.

    Raises:
        InputFileError: There are too few reports to hold any out.
    """
    train, held = (pairs, validation) if validation else hold_out(pairs, seed)
    return TrainingData("a user's file", train, held)


def validation_pairs(encoder: BiEncoder) -> list[Pair]:
    """The mixed pairs of the corpus' validation split, which thresholds are fitted on.

    Raises:
        InputFileError: The corpus cannot be read.
    """
    objects, strays = load_corpus().of(Split.VALIDATION)
    return build_pairs(objects, strays, encoder, MIXED, seed=VALIDATION_SEED)


def build_reranker(
    data: TrainingData, recipe: Recipe, run: Path, output: Path, advance: Advance | None = None
) -> Reranker | None:
    """Fine-tune, then save to `output` with `threshold.json` and model card.

    Args:
        data: The pairs.
        recipe: The knobs of the fine-tuning.
        run: Folder of checkpoints, log and plot; a killed run is taken up there.
        output: Folder of the finished model.
        advance: Called with the number of validation pairs scored since the last call.

    Returns:
        The finished reranker; None in the processes beside the first where several train together.

    Raises:
        ModelError: The base cannot be found.
        TrainingError: The run's folder holds a run of another recipe or data, or the validation pairs are all alike.
    """
    model = finetune(data.train, data.validation[:CHECKPOINT_PAIRS], recipe, run)
    if model is None:
        return None
    plot_log(run / LOG_NAME, run / "log.png")
    export(model, output)
    reranker = Reranker(str(output))
    others = [Reranker(str(output), precision=name) for name in PRECISIONS if name != reranker.precision]
    threshold = fit_threshold(reranker, data.validation, f"{data.source}, validation", others=others, advance=advance)
    write_card(output, recipe, data.source, data.train, data.validation, threshold, run / LOG_NAME)
    threshold.save(output / FILE_NAME)
    return reranker
