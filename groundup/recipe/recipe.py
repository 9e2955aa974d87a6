"""A recipe names a model, a task, a data source and a processor, and says how to train. It is data,
never code.

Loading takes two passes: the names in the YAML file choose the classes, then each class validates
its own section. Only the plugins that a recipe names are imported, and nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SerializeAsAny, model_validator

from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.core.settings import Settings, conditions_of, setting, validate
from groundup.recipe.adapter import Adapter
from groundup.recipe.fill_from_init import inherit
from groundup.recipe.raw import (
    PLUGINS,
    add_task_defaults,
    apply_overrides,
    fill_in_size,
    read_raw,
)
from groundup.recipe.renamed import refuse_old_names, upgrade
from groundup.recipe.sections import (
    Checkpoints,
    Distill,
    Evaluation,
    Init,
    Logging,
    Machine,
    Optim,
    Parallel,
    Samples,
    Training,
    Tune,
)
from groundup.recipe.yaml import dump_yaml

if TYPE_CHECKING:
    from groundup.contracts.data import DataSource
    from groundup.contracts.models import ModelConfig
    from groundup.contracts.processors import ProcessorConfig
    from groundup.contracts.tasks import Task
else:
    # The contracts import torch, which reading a recipe does not need. Which class a section really
    # has is decided by the registry, and checked when the section is validated.
    DataSource = ModelConfig = ProcessorConfig = Task = Settings

__all__ = [
    "Recipe",
    "as_dict",
    "dump_recipe",
    "load_recipe",
    "without_effect",
]


class Recipe(Settings):
    """Everything that decides a run."""

    name: str = setting(
        ..., "Name of the run; its folder is runs/NAME", pattern=r"^\.*[\w\-][\w.\-]*$"
    )
    about: str = setting("", "What this recipe shows, with its measured result")
    uses: tuple[str, ...] = setting(
        (), "Your own Python files with @model, @task, @data ... classes, relative to the recipe"
    )
    seed: int = setting(0, "Decides initial weights, data order, dropout and sampling", ge=0)
    model: SerializeAsAny[ModelConfig] = setting(
        Settings(), "The model; taken from init when left out"
    )
    task: SerializeAsAny[Task] = setting(Settings(), "What to learn")
    data: SerializeAsAny[DataSource] = setting(Settings(), "What to learn from")
    processor: SerializeAsAny[ProcessorConfig] = setting(
        Settings(), "Raw data to tensors; taken from init when left out"
    )
    init: Init = Field(Init(), description="Where the weights come from")
    adapter: Adapter | None = Field(
        None, description="Train adapters (LoRA, DoRA) next to the frozen weights of init"
    )
    distill: Distill | None = Field(
        None, description="A run to learn from, in addition to the data"
    )
    optim: Optim = Field(Optim(), description="Optimizer and schedule")
    training: Training = setting(..., "Batch size, and how long to train")
    logging: Logging = Field(Logging(), description="How often to log")
    evaluation: Evaluation = Field(Evaluation(), description="When to evaluate, and on how much")
    checkpoints: Checkpoints = Field(Checkpoints(), description="When to save, what to keep")
    samples: Samples = Field(Samples(), description="Text to write while training")
    machine: Machine = Field(Machine(), description="Device, precision, threads")
    parallel: Parallel = Field(Parallel(), description="Several processes, on several machines")
    tune: Tune | None = Field(
        None, description="What groundup tune tries; nothing to groundup train"
    )

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Recipe:
        part = self.machine.micro_batch_size
        whole = self.training.batch_size
        if part != "auto" and whole % part:
            raise ValueError(
                f"machine.micro_batch_size {part} does not divide training.batch_size {whole}."
                " Choose a divisor"
            )
        if self.parallel.exact and part == "auto":
            raise ValueError(
                "parallel.exact adds up micro-batches, whose size must not depend on the number of"
                " processes. Set machine.micro_batch_size, such as"
                f" {max(whole // 8, 1)}"
            )
        if self.adapter is not None:
            chosen = self.init.train_layers is not None or self.init.unfreeze_every is not None
            self.adapter.check_beside(self.init.run or self.init.pretrained, layers_chosen=chosen)
        return self


# The sections of which a task may have defaults; those that choose what is trained are the user's.
_SECTIONS: dict[str, type[Settings]] = {
    "optim": Optim,
    "training": Training,
    "logging": Logging,
    "evaluation": Evaluation,
    "checkpoints": Checkpoints,
    "samples": Samples,
}


# ------------------------------------------------------------------------------------------ reading
def load_recipe(
    source: str | Path | dict[str, Any],
    overrides: dict[str, Any] | None = None,
    *,
    planned: Mapping[str, Recipe] | None = None,
    complete: bool = False,
) -> Recipe:
    """Read, complete and validate a recipe.

    With ``init.run``, the model and processor sections are that run's; a ``model:`` section without
    a name changes single keys. With ``init.pretrained`` they are those of the pretrained weights.
    With ``model.size`` the model has the settings of that published size, and the section's others.

    Args:
        source: A YAML file, or the same content as a dictionary.
        overrides: Dotted keys to values, such as ``{"optim.lr": 3e-4}``.
        planned: Recipes by run folder that will have run before this one, so that ``init.run`` may
            name them already.
        complete: Whether it is a run's own recipe, which needs nothing from the pretrained weights
            it started from.

    Raises:
        RecipeError: For anything unknown, missing, of a wrong type, or without effect.
    """
    raw, folder, where = read_raw(source)
    if complete:
        upgrade(raw)
    # Before anything looks at the recipe: an override may name the model, its size or ``init``.
    apply_overrides(raw, overrides or {})
    # a section whose lines are all commented out
    for section in (*_SECTIONS, "init", "machine"):
        if section in raw and raw[section] is None:
            del raw[section]
    if isinstance(raw.get("uses"), list):  # first: a user's model may read pretrained weights
        raw["uses"] = [str((folder / str(file)).resolve()) for file in raw["uses"]]
        for file in raw["uses"]:
            registry.load_file(Path(file))
    fill_in_size(raw)
    before = {run: as_dict(recipe) for run, recipe in (planned or {}).items()}
    inherit(raw, before, complete=complete)
    refuse_old_names(raw)  # only now: a file of the user's may have registered an old name again
    if not complete:  # a run keeps the defaults of the day that it was made
        add_task_defaults(raw, _SECTIONS)
    # Plugin sections apart: which class validates one is known by its name alone.
    own = {key: value for key, value in raw.items() if key not in PLUGINS}
    core = validate(Recipe, own, "recipe")
    return core.model_copy(update={kind: _plugin(kind, raw, where) for kind in PLUGINS})


def _plugin(kind: registry.Kind, raw: dict[str, Any], where: str) -> Settings:
    section = raw.get(kind)
    if section is None:
        raise RecipeError(
            f"recipe.{kind}",
            "is required and missing",
            f"Add a section '{kind}:' with a name to {where}",
        )
    if not isinstance(section, dict) or "name" not in section:
        raise RecipeError(
            f"recipe.{kind}.name",
            "is required and missing",
            f"Known: {', '.join(registry.names(kind))}",
        )
    cls = registry.lookup(kind, str(section["name"]), f"recipe.{kind}.name")
    own = {key: value for key, value in section.items() if key != "name"}
    settings: Settings = validate(cls, own, f"recipe.{kind}")
    return settings


# ------------------------------------------------------------------------------------------ writing
def as_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the complete recipe as plain values; ``load_recipe`` of it gives an equal recipe."""
    plain: dict[str, Any] = {}
    for key, value in recipe:
        if value is None:
            continue
        if isinstance(value, Settings):
            plain[key] = value.model_dump(mode="json", exclude=without_effect(value))
        elif isinstance(value, tuple):
            plain[key] = list(value)
        else:
            plain[key] = value
        if key in PLUGINS:
            plain[key] = {"name": type(value).registered_name, **plain[key]}
    return plain


def without_effect(settings: Settings) -> set[str]:
    """Return the fields whose ``applies_when`` does not hold: writing them out would make the file
    an error to read."""
    values = dict(settings)
    return {
        name
        for name, field in type(settings).model_fields.items()
        if any(values[other] not in allowed for other, allowed in conditions_of(field).items())
    }


def dump_recipe(recipe: Recipe) -> str:
    """Return the complete recipe as YAML text."""
    return dump_yaml(as_dict(recipe))
