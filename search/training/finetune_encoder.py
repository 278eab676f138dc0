"""Fine-tuning a bi-encoder: a report is to be nearer to its own description than to all others of its batch."""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback

from search.errors import TrainingError
from search.loading import quiet_libraries, resolve_device
from search.model_folder import find_model, fingerprint, require_kind
from search.text import item_text
from search.training.corpus import LostObject
from search.training.finetune_common import common_arguments, keep, load_base, weights_of
from search.training.recipe import EncoderRecipe
from search.training.run_folder import bind, digest, last_whole_checkpoint

TOGETHER = 16
"""Texts of similar length that go through the model at once, so that little is padding."""

WITH_CATEGORY = 0.2
"""Share of the descriptions that carry the item's category, as `item_text` puts it."""

Row = tuple[str, ...]
"""A lost report, a description of its object and, where the recipe wants it, one that contradicts the report."""

COLUMNS = ("lost", "found", "unlike")


def batches_of(objects: Sequence[LostObject], recipe: EncoderRecipe) -> list[list[Row]]:
    """What is learnt from, in the order in which it is learnt.

    A round has every object once, with another report or description while there are any; what does not fill a batch
    is left out of it. The objects of a group stand together: twins are the negatives that teach most. In every other
    round so do the groups of one kind of thing, in the others the groups of a batch are chance.

    Args:
        objects: Of the training split.
        recipe: Rounds, batch size, seed.
    """
    rng = random.Random(recipe.seed)  # noqa: S311  no secret
    group_of: dict[str, list[LostObject]] = defaultdict(list)
    rows_of: dict[str, list[Row]] = {}
    for entry in objects:
        if recipe.contradictions and not entry.unlike:
            continue
        group_of[entry.group].append(entry)
        rows_of[entry.object] = [(lost, _described(found, entry, rng)) for lost in entry.lost for found in entry.found]
        if recipe.contradictions:
            contradicted = [(*row, _described(rng.choice(entry.unlike), entry, rng)) for row in rows_of[entry.object]]
            rows_of[entry.object] = contradicted
        rng.shuffle(rows_of[entry.object])
    batches: list[list[Row]] = []
    for number in range(recipe.rounds):
        groups = list(group_of.values())
        rng.shuffle(groups)
        if number % 2 == 0:
            groups.sort(key=lambda group: (group[0].category, group[0].kind))
        entries = [entry for group in groups for entry in group]
        rows = [rows_of[entry.object][number % len(rows_of[entry.object])] for entry in entries]
        of_round = [rows[start : start + recipe.batch_size] for start in range(0, len(rows), recipe.batch_size)]
        of_round = [batch for batch in of_round if len(batch) == recipe.batch_size]
        rng.shuffle(of_round)
        batches += of_round
    return batches


def _described(found: str, entry: LostObject, rng: random.Random) -> str:
    return item_text(found, entry.category, None, None) if rng.random() < WITH_CATEGORY else found


class AsTheyAre(DefaultBatchSampler):
    """Batches of rows that were put into order before."""

    def __iter__(self) -> Iterator[list[int]]:
        """The indices of each batch."""
        for batch in range(len(self)):
            yield list(range(batch * self.batch_size, (batch + 1) * self.batch_size))


class SortedLoss(MultipleNegativesRankingLoss):
    """In-batch negatives (Henderson et al., 2017, arXiv:1705.00652), temperature 0.05, with a third of the padding."""

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """The loss of one batch."""
        vectors = [_embed(self.model, features) for features in sentence_features]
        loss: Tensor = self.compute_loss_from_embeddings(vectors, labels)
        return loss


def _embed(model: SentenceTransformer, features: dict[str, Tensor]) -> Tensor:
    """The vectors of a batch, computed in parts of similar length; shape (texts, dim)."""
    lengths = features["attention_mask"].sum(dim=1)
    order = torch.argsort(lengths)
    parts = []
    for part in torch.split(order, TOGETHER):
        read = features["attention_mask"][part].any(dim=0)  # the rest is padding, on whichever side
        cut = {
            name: value[part][:, read] if torch.is_tensor(value) and value.dim() > 1 else value
            for name, value in features.items()
        }
        parts.append(model(cut)["sentence_embedding"])
    return torch.cat(parts)[torch.argsort(order)]


def finetune_encoder(
    objects: Sequence[LostObject], recipe: EncoderRecipe, run: Path, device: str = "auto"
) -> SentenceTransformer:
    """Fine-tune, or take up the run in this folder where it was killed.

    Args:
        objects: What to learn from.
        recipe: The knobs.
        run: Folder for checkpoints; not for git.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        The model, in float32, a share `recipe.kept` of its base in it.

    Raises:
        ModelError: The base cannot be found, or is no bi-encoder.
        TrainingError: The folder holds another run, the objects fill no batch, or several GPUs would share one.
    """
    base = find_model(recipe.base)
    require_kind(base, "bi-encoder")
    batches = batches_of(objects, recipe)
    if not batches:
        raise TrainingError(
            f"{len(objects)} objects, {'those with contradictions, ' * recipe.contradictions}do not fill a batch of "
            f"{recipe.batch_size}; learn from more --groups or give a smaller --batch-size"
        )
    bind(run, {"recipe": recipe.model_dump(), "base": fingerprint(base), "rows": digest(batches)})
    quiet_libraries()
    set_seed(recipe.seed)
    device = resolve_device(device)
    model = load_base(SentenceTransformer, base, device, recipe.dropout)
    arguments = SentenceTransformerTrainingArguments(
        **common_arguments(recipe, run, device),
        num_train_epochs=1,
        batch_sampler=AsTheyAre,
        eval_strategy="no",
        save_steps=recipe.checkpoint_steps,
        logging_steps=min(20, recipe.checkpoint_steps),
    )
    # They would share out a batch, in which all are the negatives of each.
    if (count := max(arguments.n_gpu, arguments.world_size)) > 1:
        raise TrainingError(f"{count} GPUs or processes are there and one is of use; set CUDA_VISIBLE_DEVICES=0")
    rows = [row for batch in batches for row in batch]
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(dict(zip(COLUMNS, zip(*rows, strict=True), strict=False))),
        loss=SortedLoss(model),
    )
    trainer.remove_callback(PrinterCallback)
    before = weights_of(model)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(run))
    keep(model, before, recipe.kept)
    return model
