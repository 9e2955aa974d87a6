"""The sections of a recipe that ``init`` fills: the model and the processor of what the run starts
from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.core import registry
from groundup.core.errors import CheckpointError, RecipeError
from groundup.core.settings import validate
from groundup.formats.huggingface_folder import (
    BUILT_HERE,
    Pretrained,
    find_pretrained,
    read_config,
    read_object,
)
from groundup.recipe.renamed import upgrade
from groundup.recipe.yaml import parse_yaml

__all__ = ["inherit"]

_IN_GGUF = ("gpt", "gemma3", "phi3")
_FREE = ("dropout", "context_length")  # what weights are not tied to


def inherit(raw: dict[str, Any], planned: Mapping[str, dict[str, Any]], *, complete: bool) -> None:
    """Fill the sections ``model`` and ``processor`` of a raw recipe from ``init.run`` or
    ``init.pretrained``.

    Args:
        raw: The recipe as it was written, changed in place.
        planned: Complete recipes by run folder that will have run before this one.
        complete: Whether it is a run's own recipe, which has both sections: a folder of pretrained
            weights may be gone.

    Raises:
        RecipeError: If there is nothing to start from, or the model section is of another model.
        CheckpointError: If the pretrained weights are of a model that cannot be built.
    """
    init = raw.get("init")
    run, name = (
        (init.get("run"), init.get("pretrained")) if isinstance(init, dict) else (None, None)
    )
    if isinstance(run, str):
        _from_run(raw, run, planned)
    elif isinstance(name, str) and isinstance(init, dict) and not complete:
        revision = init.get("revision")
        _from_pretrained(raw, name, revision if isinstance(revision, str) else None)
    distill = raw.get("distill")
    if (
        isinstance(distill, dict)
        and isinstance(distill.get("teacher"), str)
        and not complete
        and not (run or name)
    ):
        _from_teacher(raw, _sections(distill["teacher"], planned, "recipe.distill.teacher"))


def _sections(base: str, planned: Mapping[str, dict[str, Any]], where: str) -> dict[str, Any]:
    """Return the recipe of a run that there is, or will be."""
    file = Path(base) / "recipe.yaml"
    if not file.is_file() and base not in planned:
        raise RecipeError(
            where,
            f"{base} is not a run (it has no recipe.yaml)",
            "Train it first, or correct the path",
        )
    if not file.is_file():
        return planned[base]
    return upgrade(parse_yaml(file.read_text(encoding="utf-8"), str(file)))


def _from_teacher(raw: dict[str, Any], sections: dict[str, Any]) -> None:
    """Take the teacher's processor: both models must be given the same numbers."""
    own, theirs = raw.get("processor") or {}, sections["processor"]
    own = {"name": own} if isinstance(own, str) else own
    for key, value in own.items() if isinstance(own, dict) else ():
        if value != theirs.get(key):
            problem = f"is {value!r}, and the teacher's is {theirs.get(key)!r}"
            raise RecipeError(
                f"recipe.processor.{key}",
                problem,
                "Leave the section out: it is then the teacher's",
            )
    raw["processor"] = theirs


def _from_run(raw: dict[str, Any], base: str, planned: Mapping[str, dict[str, Any]]) -> None:
    sections = _sections(base, planned, "recipe.init.run")
    for kind in ("model", "processor"):
        own = raw.get(kind)
        if own is None or (isinstance(own, dict) and "name" not in own):
            raw[kind] = {**sections[kind], **(own or {})}


def _from_pretrained(raw: dict[str, Any], name: str, revision: str | None) -> None:
    base = find_pretrained(name, revision, weights=False)
    own = raw.get("model") or {}
    own = {"name": own} if isinstance(own, str) else own
    if isinstance(own, dict):
        raw["model"] = _agreed(own, base)
    processor = raw.get("processor")
    if isinstance(raw["model"], dict) and (
        processor is None or (isinstance(processor, dict) and "name" not in processor)
    ):
        raw["processor"] = {
            **_processor(str(raw["model"]["name"]), name, base.folder),
            **(processor or {}),
        }


def _processor(kind: str, name: str, folder: Path) -> dict[str, Any]:
    """Return the processor section of the weights: their tokenizer, or how pictures are prepared
    for them."""
    read = getattr(registry.lookup("model", kind), "processor_from_huggingface", None)
    if read is None:
        return {"name": "tokenizer_json", "path": name}
    path = folder / "preprocessor_config.json"
    try:
        return {"name": "image", **read(read_object(path))}
    except CheckpointError as error:
        where = str(path) if error.where == path.name else error.where
        raise CheckpointError(where, error.problem, error.remedy) from None
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"holds a value of the wrong kind: {type(error).__name__} {error}"
        raise CheckpointError(str(path), problem, "Fetch the model again") from None


def _agreed(own: dict[str, Any], base: Pretrained) -> dict[str, Any]:
    """Return the model section of the weights with what may be changed as the recipe has it."""
    name, config = base.name, {} if base.is_gguf else read_config(base.folder)
    fitting = (
        _model_in(base.folder)
        if base.is_gguf
        else BUILT_HERE.get(str(config.get("model_type")), "hub")
    )
    kind = str(own.get("name", fitting))
    cls = registry.lookup("model", kind, "recipe.model.name")
    if kind in BUILT_HERE.values() and fitting not in (kind, "hub"):
        problem = f"is {kind}, and the weights of {name} are of model {fitting}"
        raise RecipeError(
            "recipe.model.name", problem, "Remove it: config.json says what the model is"
        )
    settings, where = _settings(cls, kind, base, config)
    given = {key: value for key, value in own.items() if key != "name"}
    theirs = validate(
        cls, settings, f"{base.folder if base.is_gguf else base.folder / where} as model {kind}"
    )
    free, anew = getattr(cls, "FREE", _FREE), getattr(cls, "begin_anew", None)
    settings = {**settings, **(anew(settings, given) if anew is not None else {})}
    wanted = validate(cls, {**settings, **given}, "recipe.model")
    for key in given:
        there, here = getattr(theirs, key), getattr(wanted, key)
        if key == "context_length" and here > there:
            problem = f"is {here}, and {name} was trained for {there}"
            raise RecipeError("recipe.model.context_length", problem, f"Use at most {there}")
        if there != here and key not in free:
            problem = (
                f"is {here}, and the weights of {name} have {there}; free to choose:"
                f" {', '.join(free)}"
            )
            raise RecipeError(
                f"recipe.model.{key}", problem, f"Remove it: {where} says what the model is"
            )
    return {"name": kind, **settings, **given}


def _model_in(file: Path) -> str:
    """Return the name of our model that a GGUF file is of; any model that reads such files knows
    it."""
    return str(registry.lookup("model", _IN_GGUF[0]).from_gguf(file)["name"])


def _settings(
    cls: Any, kind: str, base: Pretrained, config: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Return the settings that the weights are of, and where they stand."""
    layout, method = ("GGUF", "from_gguf") if base.is_gguf else ("Hugging Face", "from_huggingface")
    read = getattr(cls, method, None)
    if read is None:
        known = (
            ", ".join(_IN_GGUF)
            if base.is_gguf
            else ", ".join(dict.fromkeys((*BUILT_HERE.values(), "hub")))
        )
        problem = f"no {layout} layout is known for model {kind!r}; allowed: {known}"
        raise RecipeError("recipe.model.name", problem, "Remove the model section")
    if base.is_gguf:
        return {key: value for key, value in read(base.folder).items() if key != "name"}, "the file"
    where = str(base.folder / "config.json")
    try:
        return read(config), "config.json"
    except CheckpointError as error:
        raise CheckpointError(where, error.problem, error.remedy) from None
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"holds a value of the wrong kind: {type(error).__name__} {error}"
        raise CheckpointError(where, problem, "Fetch the model again") from None
