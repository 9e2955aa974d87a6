"""Settings, plugins and values that had another name before: an error where a user writes one,
silent where a saved run has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.recipe.raw import PLUGINS, section_of

__all__ = ["RENAMED", "refuse_old_names", "upgrade"]

# Rows are "old.key": "new.key", or "key=old value": "new value". Rows of plugin sections (model,
# task, data, processor) hold for built-in plugins alone, because a user's own may name its settings
# freely; they hold for the tasks of a multitask and the parts of a mixture too.
RENAMED: dict[str, str] = {
    "budget": "training",
    "every.log": "logging.every",
    "every.evaluate": "evaluation.every",
    "every.evaluate_batches": "evaluation.batches",
    "every.test": "evaluation.test",
    "every.save": "checkpoints.every",
    "every.keep": "checkpoints.keep",
    "every.best": "checkpoints.best_metric",
    "every.sample": "samples.every",
    "every.sample_prompts": "samples.prompts",
    "machine.micro_batch": "machine.micro_batch_size",
    "distil": "distill",
    "task.name=label_tokens": "token_classification",
    "task.name=embed": "sentence_embedding",
    "task.name=regress": "regression",
    "task.labels=one": "single",
    "task.labels=ordered": "ordinal",
    "task.labels=several": "multi_label",
    "task.order_sharpness": "task.ordinal_smoothing",
    "adapter.double_quantisation": "adapter.double_quantization",
    "adapter.rank_stabilised": "adapter.rank_stabilized",
    "data.name=frames": "sequences",
    "data.name=word_labels": "token_labels",
    "data.validation_fraction": "data.fraction",
    "data.split_seed": "data.seed",
    "data.dataset_split": "data.split",
    "data.validation_split": "data.validation",
    "data.validation_path": "data.validation",
    "data.test_split": "data.test",
    "data.test_path": "data.test",
    "data.limit_documents": "data.limit",
    "data.limit_conversations": "data.limit",
    "data.limit_rows": "data.limit",
    "data.unreadable=set_aside": "skip",
    "data.unreadable": "data.on_unreadable",
    "data.packing.nothing_trained": "data.packing.on_fully_masked",
}
# Settings whose number means something else now: how the new one follows, in words and as code.
_CONVERTED: dict[str, tuple[str, Callable[[float], float]]] = {
    "task.order_sharpness": ("1 / order_sharpness", lambda sharpness: 1 / sharpness),
}
# Plugin sections that hold sections of their own kind, by name: the setting that has them.
_NESTED = {"task": "tasks", "data": "parts"}


def refuse_old_names(raw: dict[str, Any]) -> None:
    """Make sure that a user's recipe uses the names of today.

    Raises:
        RecipeError: Naming the first old name, and what it is called now.
    """
    for prefix, root in _roots(raw):
        for row, new in _old_names(root):
            key, is_value, value = row.partition("=")
            where = f"recipe.{_place(prefix, key)}"
            if is_value:
                raise RecipeError(where, f"{value!r} is now called {new!r}", f"Write {new}")
            now = _place(prefix, new)
            problem = f"is now called {now}"
            if row in _CONVERTED:
                problem += f", which is {_CONVERTED[row][0]}"
            raise RecipeError(where, problem, f"Write {now}")
    for key in section_of(section_of(raw, "tune"), "space"):
        # These are dotted keys already, and a row of a section holds for all of its settings.
        for old, new in RENAMED.items():
            if key == old or key.startswith(f"{old}."):
                now = new + key.removeprefix(old)
                raise RecipeError(
                    f"recipe.tune.space.{key}", f"is now called {now}", f"Write {now}"
                )


def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
    """Give a saved run's recipe the names of today, in place, and return it."""
    for _, root in _roots(raw):
        for row, new in _old_names(root):
            key, is_value, _ = row.partition("=")
            holder, last = _holder(root, key)
            if is_value:
                holder[last] = new
            else:
                old = holder.pop(last)
                if row in _CONVERTED:
                    old = _CONVERTED[row][1](old)
                _put(root, new, old)
                section = key.partition(".")[0]
                if root.get(section) == {}:  # every setting of an old section has moved
                    del root[section]
        data = _section(root, "data")
        if data.get("validation") is not None and _is_built_in(root, "data"):
            # a share that nothing was drawn by was saved with what was its default
            data.pop("fraction", None)
    return raw


def _roots(raw: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the recipe, and each section within a section as if it were a recipe, with its place
    as a prefix."""
    yield "", raw
    for kind, setting in _NESTED.items():
        for name, part in section_of(section_of(raw, kind), setting).items():
            yield f"{kind}.{setting}.{name}", {kind: part}


def _place(prefix: str, key: str) -> str:
    """Return where a key is in the whole recipe: in a nested section, the prefix is its kind."""
    if not prefix:
        return key
    return f"{prefix}.{key.partition('.')[2]}"


def _old_names(root: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the rows of the table that a recipe has something of."""
    for row, new in RENAMED.items():
        key, is_value, value = row.partition("=")
        holder, last = _holder(root, key)
        if last not in holder or (is_value and holder[last] != value):
            continue
        if _is_built_in(root, key):
            yield row, new


def _is_built_in(root: dict[str, Any], key: str) -> bool:
    kind = key.partition(".")[0]
    if kind not in PLUGINS:
        return True
    name = _section(root, kind).get("name")
    if name in registry.BUILTINS[kind]:
        return True
    # An old name is a built-in plugin's, unless a file of the user's has registered it since.
    return f"{kind}.name={name}" in RENAMED and name not in registry.names(kind)


def _section(root: dict[str, Any], name: str) -> dict[str, Any]:
    # In a multitask or a mixture the short form of a plugin section is still there: task: classify
    if isinstance(root.get(name), str):
        return {"name": root[name]}
    return section_of(root, name)


def _holder(root: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Return the section that a dotted key is in, empty where there is none, and the key's last
    part."""
    *path, last = key.split(".")
    if not path:
        return root, last
    holder = _section(root, path[0])
    for part in path[1:]:
        holder = section_of(holder, part)
    return holder, last


def _put(root: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        root = root.setdefault(part, {})
    # two old settings may have become one, of which only one was given
    if value is not None or last not in root:
        root[last] = value
