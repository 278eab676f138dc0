"""From the corpus to a shipped reranker: pairs, fine-tuning, export, threshold."""

from pathlib import Path

from search.encoder import BiEncoder
from search.model_folder import BUILT_IN_ENCODER
from search.reranker import Reranker
from search.training.corpus import Split, load_corpus
from search.training.export import export
from search.training.finetune import finetune
from search.training.pairs import MIXED, Mix, build_pairs
from search.training.recipe import Recipe
from search.training.threshold_fit import fit_threshold

TRAINING_MIX = Mix(twin=2, hard=1, random=0, stray=1, edited=1, shortened=1, embellished=2, with_category=0.2)

CHECKPOINT_PAIRS = 2000
"""Validation pairs that choose the checkpoint; all of them would take as long as 2,000 training steps."""


def build_reranker(recipe: Recipe, run: Path, output: Path) -> Reranker:
    """Fine-tune on the training split, choose checkpoint and threshold on the validation split, save to `output`.

    Args:
        recipe: The knobs of the fine-tuning.
        run: Folder of checkpoints and log; a killed run is taken up there.
        output: Folder of the finished model with its `threshold.json`.

    Raises:
        InputFileError: The corpus cannot be read.
        ModelError: The base cannot be found.
    """
    corpus = load_corpus()
    encoder = BiEncoder(BUILT_IN_ENCODER)
    train, validation = (
        build_pairs(corpus.objects[split], corpus.strays[split], encoder, mix, recipe.seed)
        for split, mix in ((Split.TRAIN, TRAINING_MIX), (Split.VALIDATION, MIXED))
    )
    model = finetune(train, validation[:CHECKPOINT_PAIRS], recipe, run)
    export(model, output)
    reranker = Reranker(str(output))
    fit_threshold(reranker, validation, fitted_on="corpus, validation split, mixed pairs").save(output)
    return reranker
