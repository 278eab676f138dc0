"""From the corpus to a finished bi-encoder: fine-tuning, export, what it retrieves, card."""

from importlib.metadata import version
from pathlib import Path

from sentence_transformers import SentenceTransformer

from search.encoder import BiEncoder
from search.training.card import LIBRARIES, table
from search.training.corpus import Corpus, Split
from search.training.export import export
from search.training.finetune_encoder import finetune_encoder
from search.training.finished_folder import finished_folder
from search.training.recipe import EncoderRecipe
from search.training.retrieval import ITEMS, retrieval
from search.training.run_folder import alone_in
from search.training.searches import Section
from search.types import Advance

SPLIT = Split.VALIDATION


def train_encoder(corpus: Corpus, recipe: EncoderRecipe, run: Path, device: str = "auto") -> SentenceTransformer:
    """Fine-tune on the training split, or take up a killed run; see `finetune_encoder`.

    Raises:
        ModelError: The base cannot be found.
        TrainingError: The run's folder holds another run or is in use.
    """
    with alone_in(run):
        objects = corpus.training_groups(recipe.groups).objects[Split.TRAIN]
        return finetune_encoder(objects, recipe, run, device)


def finish_encoder(
    model: SentenceTransformer, corpus: Corpus, recipe: EncoderRecipe, output: Path, *, device: str, advance: Advance
) -> BiEncoder:
    """Save a fine-tuned bi-encoder with its model card; the folder appears when all of it is there.

    Args:
        model: From `train_encoder`.
        corpus: What it learnt from.
        recipe: Of the run.
        output: A new folder.
        device: Where the inventory of the card is encoded.
        advance: Called with the number of items encoded since the last call, by the new model and by its base.

    Raises:
        TrainingError: `output` is there already, or cannot be written.
    """
    with finished_folder(output) as partial:
        export(model, partial)
        before, after = (
            retrieval(BiEncoder(name, device), corpus.objects[SPLIT], advance) for name in (recipe.base, str(partial))
        )
        card = _card(output.name, corpus, recipe, before, after)
        (partial / "README.md").write_text(card, encoding="utf-8")
    return BiEncoder(str(output), device)


ITEMS_TO_ENCODE = 2 * ITEMS
"""By `finish_encoder`."""


def _card(name: str, corpus: Corpus, recipe: EncoderRecipe, before: Section, after: Section) -> str:
    learnt = corpus.training_groups(recipe.groups).objects[Split.TRAIN]
    objects = [entry for entry in learnt if entry.unlike or not recipe.contradictions]
    sections = [
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n"
        "tags: [bi-encoder, retrieval, lost-property]\n---",
        f"# {name}",
        "A bi-encoder that puts a lost report near the description of the found item. `SentenceTransformer(folder)` "
        "loads it and gives unit vectors.",
        "## Figures",
        f"Reports of the {SPLIT} split among {ITEMS:,} items: one description of each of its "
        f"{len(corpus.objects[SPLIT])} objects, the others put together from facts of training objects; with 95 % "
        "intervals.",
        table(("figure", recipe.base, name), ((figure, before[figure], after[figure]) for figure in after)),
        "## Recipe",
        table(("knob", "value"), recipe.model_dump().items()),
        "## Data",
        f"{len(objects):,} objects of the shipped corpus' training split. A batch has {recipe.batch_size} of them, "
        "each once, with a report and a description. The own description is the positive, those of the others are the "
        "negatives" + (", and beside each one that contradicts the report." if recipe.contradictions else "."),
        "## Versions",
        ", ".join(f"{library} {version(library)}" for library in LIBRARIES) + ".",
    ]
    return "\n\n".join(sections) + "\n"
