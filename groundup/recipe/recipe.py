"""A recipe names a model, a task, a data source and a processor, and says how to train. It is data,
never code.

Loading takes two passes: the names in the YAML file choose the classes, then each class validates
    its own section. Only
the plugins that a recipe names are imported, and nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, SerializeAsAny, model_validator

from groundup.core import registry
from groundup.core.errors import RecipeError, did_you_mean
from groundup.core.settings import Settings, setting, validate
from groundup.recipe.fill_from_init import inherit
from groundup.recipe.sections import Adapter, Distil, Init, Machine, Tune
from groundup.recipe.yaml import dump_yaml, parse_yaml

if TYPE_CHECKING:
    from groundup.core.contracts.data import DataSource
    from groundup.core.contracts.models import ModelConfig
    from groundup.core.contracts.processors import ProcessorConfig
    from groundup.core.contracts.tasks import Task
else:
    # The contracts import torch, which reading a recipe does not need. Which class a section really
    # has is decided by the registry, and checked when the section is validated.
    DataSource = ModelConfig = ProcessorConfig = Task = Settings

__all__ = [
    "Budget",
    "Every",
    "Optim",
    "Recipe",
    "as_dict",
    "dump_recipe",
    "load_recipe",
    "parse_overrides",
    "without_effect",
]

Count = Annotated[int, Field(gt=0)]
Steps = Count | Literal["epoch"]
PLUGINS: tuple[registry.Kind, ...] = ("model", "task", "data", "processor")


class Optim(Settings):
    """The optimizer and its schedule. Every value is a pure function of the step."""

    name: Literal["adamw", "adam", "sgd", "muon"] = setting("adamw", "PyTorch's own optimizers")
    lr: float = setting(1e-3, "Peak learning rate", gt=0)
    betas: tuple[float, float] = setting(
        (0.9, 0.95), "Decay of the two moments", applies_when={"name": ("adamw", "adam", "muon")}
    )
    eps: float = setting(
        1e-8,
        "Added to the root of the second moment",
        gt=0,
        applies_when={"name": ("adamw", "adam", "muon")},
    )
    momentum: float = setting(
        0.0, "Momentum of SGD (Muon uses its own 0.95)", ge=0, lt=1, applies_when={"name": ("sgd",)}
    )
    nesterov: bool = setting(False, "Nesterov's momentum", applies_when={"name": ("sgd",)})
    layer_decay: float = setting(
        1.0, "Learning rate of each block over that of the one above it", gt=0, le=1
    )
    weight_decay: float = setting(
        0.1, "Decay of matrices; vectors and scalars are never decayed", ge=0
    )
    clip_norm: float | None = setting(1.0, "Largest gradient norm; null turns clipping off", gt=0)
    schedule: Literal["constant", "linear", "cosine", "wsd"] = setting(
        "cosine", "Shape after the warm-up"
    )
    warmup_steps: int = setting(0, "Steps of linear warm-up from 0", ge=0)
    final_lr_fraction: float = setting(
        0.1,
        "Last learning rate over the peak",
        ge=0,
        le=1,
        applies_when={"schedule": ("linear", "cosine", "wsd")},
    )
    decay_fraction: float = setting(
        0.2,
        "Share of the steps that WSD spends decaying",
        gt=0,
        le=1,
        applies_when={"schedule": ("wsd",)},
    )

    average: Literal["none", "ema", "swa"] = setting(
        "none", "Average of the weights that is kept and validated"
    )
    ema_decay: float = setting(
        0.999,
        "Share of the average kept at each update",
        gt=0,
        lt=1,
        applies_when={"average": ("ema",)},
    )
    average_from: float = setting(
        0.75,
        "Share of the steps after which SWA begins",
        ge=0,
        lt=1,
        applies_when={"average": ("swa",)},
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Optim:
        if self.nesterov and self.momentum == 0:
            raise ValueError(
                "nesterov has no effect with momentum 0. Set momentum, for example 0.9"
            )
        return self


class Budget(Settings):
    """How long to train: give exactly one of steps, epochs or samples."""

    batch_size: int = setting(
        16, "Samples (rows, images) an optimizer step, over all ranks and micro-batches", gt=0
    )
    steps: int | None = setting(None, "Optimizer steps", gt=0)
    epochs: float | None = setting(None, "Passes over the training split", gt=0)
    samples: int | None = setting(None, "Samples to train on", gt=0)
    patience: int | None = setting(
        None, "Stop after so many validations without improvement; null never stops", gt=0
    )
    min_improvement: float = setting(0.0, "What counts as one, in every.best; needs patience", ge=0)

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        given = [key for key in ("steps", "epochs", "samples") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of steps, epochs and samples is allowed, got {given or 'none'}."
                " Give one"
            )
        if self.min_improvement and self.patience is None:
            raise ValueError(
                "min_improvement has no effect without patience. Set patience, for example 5"
            )
        return self


class Every(Settings):
    """How often, in optimizer steps. The last step always logs, evaluates and saves."""

    log: int = setting(10, "Steps between lines of metrics.jsonl", gt=0)
    evaluate: Steps = setting(
        200, "Steps between validations, or epoch: after each pass over the training split"
    )
    evaluate_batches: int | None = setting(
        20, "Validate on at most so many micro-batches; null for all", gt=0
    )
    best: str = setting(
        "loss", "Metric of the validation by which a checkpoint is the best; it is saved at once"
    )
    save: Steps = setting(200, "Steps between checkpoints, or epoch")
    sample: int | None = setting(None, "Steps between samples of text; null for none", gt=0)
    sample_prompts: tuple[str, ...] = setting((), "Prompts to sample from")
    keep: int = setting(2, "Checkpoints to keep besides the best", gt=0)
    test: bool = setting(False, "Judge the data's test split after the last step, once")


class Recipe(Settings):
    """Everything that decides a run."""

    name: str = setting(
        ..., "Name of the run; its folder is runs/NAME", min_length=1, pattern=r"^[\w.\-]+$"
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
        None, description="Train adapters (LoRA, DoRA) beside the frozen weights of init"
    )
    distil: Distil | None = Field(None, description="A run to learn from, besides the data")
    optim: Optim = Field(Optim(), description="Optimizer and schedule")
    budget: Budget = setting(..., "How long to train")
    every: Every = Field(Every(), description="How often to log, evaluate and save")
    machine: Machine = Field(Machine(), description="Device, precision, threads")
    tune: Tune | None = Field(
        None, description="What groundup tune tries; nothing to groundup train"
    )

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Recipe:
        part, whole = self.machine.micro_batch, self.budget.batch_size
        if part != "auto" and whole % part:
            raise ValueError(
                f"machine.micro_batch {part} does not divide budget.batch_size {whole}. Choose a"
                " divisor"
            )
        if self.adapter is not None:
            chosen = self.init.train_layers is not None or self.init.unfreeze_every is not None
            self.adapter.check_beside(self.init.run or self.init.pretrained, layers_chosen=chosen)
        return self


# ------------------------------------------------------------------------------------------ reading
def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Turn ``["optim.lr=3e-4"]`` into ``{"optim.lr": 0.0003}``; values are read as YAML."""
    parsed: dict[str, Any] = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(
                override, "is not of the form key=value", "Write for example optim.lr=3e-4"
            )
        parsed[key] = parse_yaml(value, override)
    return parsed


def _apply(raw: dict[str, Any], overrides: dict[str, Any]) -> None:
    for key, value in overrides.items():
        *path, last = key.split(".")
        section = raw
        for part in path:
            if part in PLUGINS and isinstance(section.get(part), str):
                section[part] = {"name": section[part]}
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise RecipeError(
                    f"recipe.{key}", f"{part!r} is a value, not a section", "Check the key"
                )
        section[last] = value


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
    raw, folder, where = _read(source)
    _apply(raw, overrides or {})
    inherit(
        raw, {run: as_dict(recipe) for run, recipe in (planned or {}).items()}, complete=complete
    )
    if isinstance(raw.get("uses"), list):
        raw["uses"] = [str((folder / str(file)).resolve()) for file in raw["uses"]]
        for file in raw["uses"]:
            registry.load_file(Path(file))
    core = validate(
        Recipe, {key: value for key, value in raw.items() if key not in PLUGINS}, "recipe"
    )
    return core.model_copy(update={kind: _plugin(kind, raw, where) for kind in PLUGINS})


def _read(source: str | Path | dict[str, Any]) -> tuple[dict[str, Any], Path, str]:
    if isinstance(source, dict):
        return json.loads(json.dumps(source)), Path(), "recipe"
    path = Path(source)
    if not path.is_file():
        nearby = (
            [str(p) for p in sorted(path.parent.glob("*.yaml"))] if path.parent.is_dir() else []
        )
        raise RecipeError(
            str(path),
            f"no such recipe; {did_you_mean(str(path), nearby)}recipes there:"
            f" {', '.join(nearby) or 'none'}",
            "Give the path of a YAML file",
        )
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise RecipeError(
            str(path), f"is not UTF-8 text (byte {error.start})", "Save it as UTF-8"
        ) from None
    if not isinstance(raw, dict):
        raise RecipeError(str(path), "holds no keys", "Start from: groundup new")
    return raw, path.parent, str(path)


def _plugin(kind: registry.Kind, raw: dict[str, Any], where: str) -> Settings:
    section = raw.get(kind)
    if section is None:
        raise RecipeError(
            f"recipe.{kind}",
            "is required and missing",
            f"Add a section '{kind}:' with a name to {where}",
        )
    section = {"name": section} if isinstance(section, str) else section
    if not isinstance(section, dict) or "name" not in section:
        raise RecipeError(
            f"recipe.{kind}.name",
            "is required and missing",
            f"Known: {', '.join(registry.names(kind))}",
        )
    cls = registry.lookup(kind, str(section["name"]), f"recipe.{kind}.name")
    settings: Settings = validate(
        cls, {k: v for k, v in section.items() if k != "name"}, f"recipe.{kind}"
    )
    return settings


# ------------------------------------------------------------------------------------------ writing
def as_dict(recipe: Recipe) -> dict[str, Any]:
    """Return the complete recipe as plain values; ``load_recipe`` of it gives an equal recipe."""
    plain: dict[str, Any] = {}
    for key in Recipe.model_fields:
        value = getattr(recipe, key)
        if value is None:
            continue
        if isinstance(value, Settings):
            name = {"name": type(value).registered_name} if key in PLUGINS else {}
            value = {**name, **value.model_dump(mode="json", exclude=without_effect(value))}
        plain[key] = list(value) if isinstance(value, tuple) else value
    return plain


def without_effect(settings: Settings) -> set[str]:
    """Return the fields whose ``applies_when`` does not hold: writing them out would make the file
    an error to read."""
    out: set[str] = set()
    for name, field in type(settings).model_fields.items():
        extra = field.json_schema_extra
        conditions = extra.get("applies_when", {}) if isinstance(extra, dict) else {}
        assert isinstance(conditions, dict)
        if any(
            getattr(settings, other) not in cast(list[Any], values)
            for other, values in conditions.items()
        ):
            out.add(name)
    return out


def dump_recipe(recipe: Recipe) -> str:
    """Return the complete recipe as YAML text."""
    return dump_yaml(as_dict(recipe))
