"""Fine-tuning a cross-encoder on pairs with sentence-transformers' trainer."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.evaluation import CrossEncoderClassificationEvaluator
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from torch.distributed import is_torchelastic_launched
from transformers import TrainerCallback, TrainerState, set_seed
from transformers.trainer_callback import PrinterCallback

from search.errors import ModelError, TrainingError
from search.loading import quiet_libraries, resolve_device
from search.model_folder import find_model, fingerprint, require_kind
from search.training.finetune_common import common_arguments, keep, load_base, weights_of
from search.training.pairs import Pair
from search.training.recipe import Recipe
from search.training.run_folder import bind, digest, last_whole_checkpoint
from search.whole_file import write_whole

BATCHES_PER_POOL = 50

LOG_NAME = "log.csv"

LOG_COLUMNS = ("step", "epoch", "loss", "learning_rate", "average_precision")


class SimilarLengths(DefaultBatchSampler):
    """Batches of pairs of similar length in random order: on short texts a third less padding than by chance."""

    def __init__(self, dataset: Dataset, **options: Any) -> None:
        """Note the lengths, in characters."""
        super().__init__(dataset, **options)
        self._lengths = [
            len(lost) + len(found)
            for lost, found in zip(dataset["sentence_0"][:], dataset["sentence_1"][:], strict=True)
        ]

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of one epoch, drawn by seed and epoch."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        pool = self.batch_size * BATCHES_PER_POOL
        batches = []
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=self._lengths.__getitem__)
            batches += [near[at : at + self.batch_size] for at in range(0, len(near), self.batch_size)]
        if self.drop_last:  # processes that train together take equal batches
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        for index in torch.randperm(len(batches), generator=generator).tolist():
            yield batches[index]


def finetune(
    train: Sequence[Pair], validation: Sequence[Pair], recipe: Recipe, run: Path, device: str = "auto"
) -> CrossEncoder | None:
    """Fine-tune, or take up the run in this folder where it was killed.

    Args:
        train: Pairs to learn from.
        validation: Pairs whose average precision chooses the checkpoint.
        recipe: The knobs.
        run: Folder for checkpoints and `log.csv`; not for git.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        The best checkpoint, or with a share of the base in it the last, in float32; None in the processes beside the
        first that `accelerate launch` starts.

    Raises:
        ModelError: The base cannot be found or loaded.
        TrainingError: The folder holds a run of another recipe or of other pairs, or the base has no such dropout,
            or is to be kept and no reranker.
    """
    base = find_model(recipe.base)
    if recipe.kept:
        _require_reranker(base)
    rows = [(pair.lost, pair.found, pair.label) for pair in (*train, *validation)]
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # of `accelerate launch`; a step is of another size with others
    bind(
        run,
        {
            "recipe": recipe.model_dump(exclude={"float8"}),
            "base": fingerprint(base),
            "pairs": digest(rows),
            "processes": processes,
        },
    )
    quiet_libraries()
    set_seed(recipe.seed)
    device = resolve_device(device)
    model = load_base(CrossEncoder, base, device, recipe.dropout, num_labels=1, max_length=recipe.max_length)
    model.activation_fn = torch.nn.Sigmoid()  # many a base of the hub gives logits; ours gives probabilities
    evaluator = CrossEncoderClassificationEvaluator(
        [[pair.lost, pair.found] for pair in validation],
        [int(pair.is_match) for pair in validation],
        name="validation",
        batch_size=64,
        show_progress_bar=False,
        write_csv=False,
    )
    arguments = CrossEncoderTrainingArguments(
        **common_arguments(recipe, run, device),
        num_train_epochs=recipe.epochs,
        gradient_accumulation_steps=recipe.accumulation,
        # a search for unused ones misses those behind the model's dictionary of outputs
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if device == "cpu" and is_torchelastic_launched() else None,
        batch_sampler=SimilarLengths,
        eval_strategy="steps",
        eval_steps=recipe.evaluation_steps,
        save_steps=recipe.evaluation_steps,
        load_best_model_at_end=not recipe.kept,  # before the base is mixed in, the last may well look worse
        metric_for_best_model="eval_validation_average_precision",
        logging_steps=min(100, recipe.evaluation_steps),
    )
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=as_dataset(train, recipe.label_smoothing),
        loss=BinaryCrossEntropyLoss(model),
        evaluator=evaluator,
    )
    trainer.remove_callback(PrinterCallback)  # where there is no terminal it would print figures among the answers
    trainer.add_callback(LogWriter(run / LOG_NAME))
    trainer.add_callback(BestOfMovedRun(run))
    before = weights_of(model) if recipe.kept else []
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(run))
    if recipe.kept:
        keep(model, before, recipe.kept)
    return model if trainer.is_world_process_zero() else None


def _require_reranker(base: Path) -> None:
    try:
        require_kind(base, "cross-encoder")
    except ModelError as error:
        raise TrainingError(f"{base} is no reranker, so no share of it can be kept; leave --kept out") from error


class BestOfMovedRun(TrainerCallback):
    """The trainer forgets the best checkpoint of a run whose folder has another path than when it began."""

    def __init__(self, run: Path) -> None:
        """The run is here now."""
        self._run = run

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Called by the trainer."""
        best = self._run / f"checkpoint-{state.best_global_step}"
        if state.best_global_step and state.best_model_checkpoint is None and best.is_dir():
            state.best_model_checkpoint = str(best)


class LogWriter(TrainerCallback):
    """Writes the log after every evaluation, so that a killed run leaves it too."""

    def __init__(self, path: Path) -> None:
        """Write to this CSV file."""
        self._path = path

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """Called by the trainer."""
        if state.is_world_process_zero:
            write_log(state.log_history, self._path)

    on_train_end = on_evaluate


def as_dataset(pairs: Sequence[Pair], label_smoothing: float = 0.0) -> Dataset:
    """The pairs in the columns that the loss reads."""
    return Dataset.from_dict(
        {
            "sentence_0": [pair.lost for pair in pairs],
            "sentence_1": [pair.found for pair in pairs],
            "label": [label_smoothing + (1 - 2 * label_smoothing) * pair.label for pair in pairs],
        }
    )


def write_log(history: list[dict[str, Any]], path: Path) -> None:
    """The trainer's history as CSV, one row per step at which something was noted."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in history:
        row = rows.setdefault(entry["step"], {"step": entry["step"], "epoch": round(entry["epoch"], 3)})
        row |= {name: entry[name] for name in ("loss", "learning_rate") if name in entry}
        if "eval_validation_average_precision" in entry:
            row["average_precision"] = round(entry["eval_validation_average_precision"], 4)
    text = io.StringIO()
    writer = csv.DictWriter(text, LOG_COLUMNS)
    writer.writeheader()
    writer.writerows(rows.values())
    write_whole(path, text.getvalue())
