"""The sections of a recipe that ``init`` fills: the model and the processor of what the run starts
from."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from groundup.contracts.models import (
    ANY_MODEL_TYPE,
    FromGGUF,
    FromHuggingFace,
    StretchesPositions,
)
from groundup.contracts.tasks import ReadsModelFolder
from groundup.core import registry
from groundup.core.errors import CheckpointError, MissingExtraError, RecipeError
from groundup.core.settings import expand_path, validate
from groundup.formats.gguf import open_gguf
from groundup.formats.huggingface_folder import (
    GENERATION,
    Pretrained,
    find_pretrained,
    read_config,
    read_object,
)
from groundup.formats.model_types import gguf_model_of, gguf_models, huggingface_models
from groundup.recipe.raw import fill_trunk_section, has_other_trunk, section_of
from groundup.recipe.renamed import upgrade
from groundup.recipe.yaml import parse_yaml

__all__ = ["inherit"]

log = logging.getLogger("groundup")
_TOKENIZER = "tokenizer_json"


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
    init = section_of(raw, "init")
    run = init.get("run")
    name = init.get("pretrained")
    teacher = section_of(raw, "distill").get("teacher")
    # What is no text, or empty, is an error, which the validation of the sections says better.
    if isinstance(run, str) and run:
        _from_run(raw, run, planned)
    elif isinstance(name, str) and name and not complete:
        _from_pretrained(raw, name, init)
    elif isinstance(teacher, str) and teacher and not complete:
        _from_teacher(raw, _sections(teacher, planned, "recipe.distill.teacher"))


def _sections(base: str, planned: Mapping[str, dict[str, Any]], where: str) -> dict[str, Any]:
    """Return the recipe of a run that there is, or will be."""
    base = expand_path(base)
    file = Path(base) / "recipe.yaml"
    # A run that exists comes before one that is planned: its recipe is settled.
    if file.is_file():
        return upgrade(parse_yaml(file.read_text(encoding="utf-8"), str(file)))
    if base not in planned:
        raise RecipeError(
            where,
            f"{base} is not a run (it has no recipe.yaml)",
            "Train it first, or correct the path",
        )
    return planned[base]


def _from_teacher(raw: dict[str, Any], sections: dict[str, Any]) -> None:
    """Take the teacher's processor: both models must be given the same numbers."""
    of_teacher = sections["processor"]
    for key, value in section_of(raw, "processor").items():
        if value != of_teacher.get(key):
            raise RecipeError(
                f"recipe.processor.{key}",
                f"is {value!r}, but the teacher's is {of_teacher.get(key)!r}",
                "Leave the section out: it is then the teacher's",
            )
    raw["processor"] = of_teacher


def _from_run(raw: dict[str, Any], base: str, planned: Mapping[str, dict[str, Any]]) -> None:
    sections = _sections(base, planned, "recipe.init.run")
    if has_other_trunk(raw.get("model"), str(sections["model"]["name"])):
        fill_trunk_section(raw, sections["model"], "init.run")
    for kind in ("model", "processor"):
        # With a name a section is the user's own as a whole; without one it changes single keys.
        own = raw.get(kind)
        if own is None or (isinstance(own, dict) and "name" not in own):
            raw[kind] = {**sections[kind], **(own or {})}
    _fill_task(raw, Path(base) / "model")


def _from_pretrained(raw: dict[str, Any], name: str, init: Mapping[str, Any]) -> None:
    # A recipe can be read and shown with config.json alone; gigabytes wait until it is trained.
    base = find_pretrained(name, init.get("revision"), weights=False)
    if not isinstance(raw.get("model") or {}, dict):
        return  # an error, which the validation of the section says better
    ignored = init.get("ignore_config_keys")
    kind = "" if base.is_gguf else huggingface_models().get(str(_type_of(base)), "")
    if kind and has_other_trunk(raw.get("model"), kind):
        _take_trunk(raw, base, kind, ignored)
    else:
        raw["model"] = _model_section(raw.get("model") or {}, base, ignored)
        kind = str(raw["model"]["name"])
    _fill_task(raw, base.folder)
    processor = raw.get("processor") or {}
    # A section with a name is a processor of the user's choice; one without changes single keys.
    if isinstance(processor, dict) and "name" not in processor:
        found = _processor(kind, name, base.folder)
        raw["processor"] = {**found, **processor}


def _type_of(base: Pretrained) -> Any:
    return read_config(base.folder).get("model_type")


def _take_trunk(raw: dict[str, Any], base: Pretrained, kind: str, ignored: Any) -> None:
    """Fill the trunk of a recipe's model with the classifier in a folder."""
    section = _model_section({"name": kind}, base, ignored)
    cls = registry.lookup("model", kind)
    free = cls.free_settings if issubclass(cls, FromHuggingFace) else ()
    fill_trunk_section(raw, section, f"init.pretrained, {base.name},", free)


def _fill_task(raw: dict[str, Any], folder: Path) -> None:
    """Fill the task section with what a folder of weights says of it."""
    task = section_of(raw, "task")
    if task.get("name") in registry.names("task"):
        cls = registry.lookup("task", str(task["name"]))
        if issubclass(cls, ReadsModelFolder):
            raw["task"] = {**task, **cls.settings_in(folder, task)}


def _processor(kind: str, name: str, folder: Path) -> dict[str, Any]:
    """Return the processor section of the weights: their tokenizer, or how images are prepared
    for them."""
    cls = registry.lookup("model", kind)
    if not issubclass(cls, FromHuggingFace) or cls.pretrained_processor == _TOKENIZER:
        return {"name": _TOKENIZER, "path": name}
    path = folder / "preprocessor_config.json"
    with _naming(path):
        found = cls.processor_from_huggingface(read_object(path))
    if cls.tokenizer_setting:
        found[cls.tokenizer_setting] = {"name": _TOKENIZER, "path": name}
    return {"name": cls.pretrained_processor, **found}


def _model_section(own: dict[str, Any], base: Pretrained, ignored: Any) -> dict[str, Any]:
    """Return the model section of the weights with what may be changed as the recipe has it."""
    if base.is_gguf:
        cls, settings = _settings_in_gguf(own, base)
        source = base.folder
        where = "the file"
    else:
        cls, settings = _settings_in_folder(own, base)
        source = base.folder / "config.json"
        where = source.name
    kind = cls.registered_name
    given = _with_original_context({k: v for k, v in own.items() if k != "name"}, settings)
    # The file's settings alone first: what is wrong in the file must not be blamed on the recipe.
    of_weights = validate(cls, settings, f"{source} as model {kind}")
    if isinstance(of_weights, FromHuggingFace) and not base.is_gguf:
        _check_keys(of_weights, source, ignored)
    free = FromHuggingFace.free_settings
    if issubclass(cls, FromHuggingFace):
        free = cls.free_settings
        settings = {**settings, **cls.settings_begun_again(settings, given)}
    wanted = validate(cls, {**settings, **given}, "recipe.model")
    for key in given:
        there = dict(of_weights)[key]
        here = dict(wanted)[key]
        if key == "context_length":
            _check_context(of_weights, wanted, base.name)
        # More tokens get rows of their own.
        if key == "vocabulary_size" and (here == 0 or here >= there):
            continue
        # What was stretched is a part of the weights.
        if there != here and (key not in free or (key == "rope_scaling" and there is not None)):
            raise RecipeError(
                f"recipe.model.{key}",
                f"is {here}, but the weights of {base.name} have {there}; free to choose:"
                f" {', '.join(free)}",
                f"Remove it: {where} says what the model is",
            )
    # 0 takes as many as the weights have, or the tokenizer, if that has more.
    given = {k: v for k, v in given.items() if (k, v) != ("vocabulary_size", 0)}
    return {"name": kind, **settings, **given}


def _check_keys(model: FromHuggingFace, path: Path, ignored: Any) -> None:
    """Make sure that every key of config.json is read, changes nothing, or is named by the recipe.

    Raises:
        CheckpointError: If one is not known.
        RecipeError: If the recipe names one that is.
    """
    config = read_object(path)
    unknown = model.unknown_keys(config)
    # What is no list is an error that the validation of the section says better.
    named = [str(key) for key in ignored] if isinstance(ignored, list | tuple) else []
    left = [key for key in unknown if key not in named]
    if left:
        shown = ", ".join(left)
        raise CheckpointError(
            str(path),
            f"has keys that are not known here, and may change what the model computes: {shown}",
            f"If they change nothing, name them: init.ignore_config_keys: [{shown}]",
        )
    needless = [key for key in named if key not in unknown]
    if needless:
        problem = f"names {needless[0]}, which is known or not in {path}"
        raise RecipeError("recipe.init.ignore_config_keys", problem, "Remove it")


def _with_original_context(own: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a recipe says of a model, a stretching of its positions with the context that
    the weights were trained for."""
    scaling = own.get("rope_scaling")
    begins = isinstance(scaling, dict) and scaling.get("kind") != "linear"
    if not begins or settings.get("rope_scaling") is not None:
        return own
    original = {"original_context": settings["context_length"]}
    return {**own, "rope_scaling": {**original, **own["rope_scaling"]}}


def _check_context(of_weights: Any, wanted: Any, name: str) -> None:
    """Make sure that a context is not longer than the weights can read.

    Raises:
        RecipeError: If it is.
    """
    trained = longest = int(of_weights.context_length)
    asked = int(wanted.context_length)
    learned = dict(wanted).get("positions") == "learned"
    remedy = ""
    if isinstance(wanted, StretchesPositions):
        scaling = wanted.rope_scaling
        # Other ways to stretch are part of what weights were trained for, once they have them.
        if scaling and (of_weights.rope_scaling is None or scaling.kind == "dynamic"):
            longest = int(trained * scaling.factor)
        elif scaling is None and not learned:
            factor = float(-(-asked // trained))
            remedy = f", or stretch it: model.rope_scaling: {{kind: yarn, factor: {factor}}}"
    if asked <= longest:
        return
    problem = f"is {asked}, but {name} was trained for {trained}"
    if longest > trained:
        problem += f", which rope_scaling stretches to {longest}"
    raise RecipeError("recipe.model.context_length", problem, f"Use at most {longest}{remedy}")


def _settings_in_gguf(own: dict[str, Any], base: Pretrained) -> tuple[type[Any], dict[str, Any]]:
    """Return the class and the settings of the model in a GGUF file."""
    with _naming(base.folder):
        file = open_gguf(base.folder)
        fitting = gguf_model_of(file)
        cls = registry.lookup("model", str(own.get("name", fitting)), "recipe.model.name")
        if not issubclass(cls, FromGGUF):
            raise _no_layout("GGUF", cls, gguf_models())
        if cls.gguf_architectures and fitting != cls.registered_name:
            raise _other_model(cls, base, fitting)
        return cls, cls.from_gguf(file)


def _settings_in_folder(own: dict[str, Any], base: Pretrained) -> tuple[type[Any], dict[str, Any]]:
    """Return the class and the settings of the model in a folder in Hugging Face layout."""
    config = read_config(base.folder)
    readers = huggingface_models()
    fitting = readers.get(str(config.get("model_type")), readers[ANY_MODEL_TYPE])
    cls = registry.lookup("model", str(own.get("name", fitting)), "recipe.model.name")
    if not issubclass(cls, FromHuggingFace):
        raise _no_layout("Hugging Face", cls, readers)
    reads_any = not cls.huggingface_model_types or ANY_MODEL_TYPE in cls.huggingface_model_types
    if not reads_any and fitting not in (cls.registered_name, readers[ANY_MODEL_TYPE]):
        raise _other_model(cls, base, fitting)
    with _naming(base.folder / "config.json"):
        try:
            found = cls.from_huggingface(config)
            written = base.folder / GENERATION
            if written.is_file():
                found |= cls.from_generation_config(read_object(written))
            return cls, found
        except CheckpointError as error:
            # Whoever names a model wants that one.
            taken = None if "name" in own else _from_any(config, readers[ANY_MODEL_TYPE])
            if taken is None:
                raise
            reason = f"{base.folder / 'config.json'}: {error.problem}"
            _say_once(f"{reason}; so model {taken[0].registered_name} opens it, with transformers")
            return taken


def _from_any(config: dict[str, Any], name: str) -> tuple[type[Any], dict[str, Any]] | None:
    """Return the class and the settings of the model that reads all families, or None where it
    does not read this one."""
    cls = registry.lookup("model", name)
    assert issubclass(cls, FromHuggingFace)
    with suppress(CheckpointError, MissingExtraError):
        return cls, cls.from_huggingface(config)
    return None


@lru_cache(maxsize=32)
def _say_once(message: str) -> None:
    # A recipe is read more than once.
    log.info("%s", message)


def _no_layout(layout: str, cls: type[Any], readers: Mapping[str, str]) -> RecipeError:
    known = ", ".join(dict.fromkeys(readers.values()))
    problem = f"no {layout} layout is known for model {cls.registered_name!r}; allowed: {known}"
    return RecipeError("recipe.model.name", problem, "Remove the model section")


def _other_model(cls: type[Any], base: Pretrained, fitting: str) -> RecipeError:
    problem = f"is {cls.registered_name}, but the weights of {base.name} are of model {fitting}"
    remedy = "Remove it: the weights say what the model is"
    return RecipeError("recipe.model.name", problem, remedy)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn errors about what a file says into errors that name the file."""
    try:
        yield
    except CheckpointError as error:
        problem = error.problem
        if error.where not in (str(path), path.name):  # what was read says where in the file
            problem = f"{error.where} {problem}"
        raise CheckpointError(str(path), problem, error.remedy) from None
    # A config.json may be anybody's: this is what reading wrong values out of it raises.
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            str(path),
            f"holds a value of the wrong kind: {type(error).__name__} {error}",
            "Fetch the model again",
        ) from None
