"""How a reranker is fine-tuned; the defaults are the original system's recipe."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search.errors import TrainingError
from search.model_folder import BASE


class Recipe(BaseModel):
    """The knobs of a fine-tuning run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = BASE
    """Built-in name, local folder, or hub id of the model to start from."""
    learning_rate: float = Field(default=5e-5, gt=0, le=1)
    """Falls linearly to 0."""
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    batch_size: int = Field(default=16, ge=1)
    """Pairs per device and step."""
    accumulation: int = Field(default=1, ge=1)
    """Steps whose gradients are added up before the weights move."""
    epochs: float = Field(default=3, gt=0, allow_inf_nan=False)
    max_length: int = Field(default=512, ge=16)
    """Tokens of a pair, at most as many as the base can read; the rest is cut."""
    evaluation_steps: int = Field(default=500, ge=1)
    """Steps between evaluations and checkpoints; the best checkpoint is kept, with `kept` the last."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Of hidden layers and attention; None: the base's own, mostly 0.1. On a CPU 0 trains a fifth faster."""
    kept: float = Field(default=0.0, ge=0, lt=1)
    """Share of the base, itself a reranker, in the finished weights, the rest is what was learnt: so it forgets less
    (weight-space ensembling, Wortsman et al. 2022, arXiv:2109.01903)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """The labels 0 and 1 become this and 1 less this."""
    draws: int = Field(default=1, ge=1)
    """Times that negatives are drawn for every report of the corpus; an epoch is as many times longer."""
    hard: int = Field(default=1, ge=0)
    """Near descriptions of other groups for every report of the corpus."""
    foreign: int = Field(default=0, ge=0)
    """Near descriptions of other categories for every report of the corpus."""
    mined_by: str = BASE
    """Bi-encoder that finds the near descriptions: built-in name, local folder, or hub id."""
    mine_all: bool = False
    """Near descriptions come from all training objects, not only from those learnt from, but not such as come about as
    near to the report as that of its own object."""
    vague: bool = False
    """Learn from the corpus' vague reports too: a description that one fits is a match by one half."""
    groups: str = Field(default="", pattern="^[a-z0-9]*$")
    """First characters of the corpus' groups to learn from, beside stray reports of no group; empty: all. A second
    pass learns from objects that the first has not seen: repeating those of the first makes it worse."""
    bf16: bool = False
    """Compute in bfloat16, keep weights in float32."""
    float8: bool = False
    """Save large matrices in float8, see `export`: two thirds of the size in float16."""
    seed: int = Field(default=42, ge=0, lt=2**32)

    def of_the_corpus(self) -> list[str]:
        """The options that say what is built of the corpus, where they are not the defaults."""
        names = ("draws", "hard", "foreign", "mined_by", "mine_all", "vague", "groups")
        changed = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
        return [f"--{name.replace('_', '-')}" for name in changed]


class EncoderRecipe(BaseModel):
    """The knobs of fine-tuning a bi-encoder; the defaults are those of the shipped one, dropout and groups aside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str = BASE
    """Built-in name, local folder, or hub id of the model to start from."""
    learning_rate: float = Field(default=6e-5, gt=0, le=1)
    """Falls linearly to 0."""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    batch_size: int = Field(default=64, ge=2, le=4096)
    """Objects per step: the others are the negatives of each."""
    rounds: int = Field(default=5, ge=1, le=1000)
    """Times that every object is seen, with another report or description while there are any."""
    groups: str = Field(default="", pattern="^[a-z0-9]*$")
    """First characters of the corpus' groups to learn from; empty: all."""
    contradictions: bool = False
    """Learn from the objects that have them, a contradicting description beside each as one negative more."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """As in `Recipe`; the shipped one has none."""
    kept: float = Field(default=0.25, ge=0, lt=1)
    """As in `Recipe`."""
    checkpoint_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints."""
    bf16: bool = False
    """Compute in bfloat16, keep weights in float32."""
    seed: int = Field(default=42, ge=0, lt=2**32)


AnyRecipe = TypeVar("AnyRecipe", Recipe, EncoderRecipe)


def parse_recipe(kind: type[AnyRecipe], **knobs: Any) -> AnyRecipe:
    """A checked recipe.

    Raises:
        TrainingError: A knob is out of its range; the message names it.
    """
    try:
        return kind(**knobs)
    except ValidationError as error:
        first = error.errors()[0]
        raise TrainingError(
            f"{first['loc'][0]} = {first['input']!r}: {first['msg']}; see the command's --help"
        ) from None
