"""A run folder: recipe.yaml, environment.json, metrics.jsonl, checkpoints/, processor/, and what is
made from them."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

from groundup.core.errors import RunError, did_you_mean
from groundup.core.storage import Storage
from groundup.machine.devices import describe_machine
from groundup.recipe.recipe import Recipe, as_dict, dump_recipe, load_recipe
from groundup.recipe.renamed import upgrade
from groundup.recipe.sections import Training
from groundup.runs.checkpoint import STATE, TO_PREDICT, CheckpointFolder

__all__ = ["Run", "count_steps", "flatten"]

log = logging.getLogger("groundup")
_BANNER = (
    "# The complete recipe of this run, with every automatic choice frozen: "
    "a resume reads it and never measures again.\n"
)


class Run:
    """One run's folder.

    Args:
        folder: Where it is.
        recipe: Its complete recipe.
        storage: The file system, or one that fails on purpose.
    """

    def __init__(self, folder: Path, recipe: Recipe, storage: Storage | None = None) -> None:
        self.folder = folder
        self.recipe = recipe
        self.storage = storage or Storage()
        self.checkpoints = CheckpointFolder(folder / "checkpoints", self.storage)

    @classmethod
    def create(
        cls, recipe: Recipe, root: Path, storage: Storage | None = None, **facts: Any
    ) -> Run:
        """Make the folder ``root/NAME`` with the recipe and the environment.

        Args:
            recipe: The recipe as asked for; what it leaves open is settled later, by ``freeze``.
            root: The folder of all runs.
            storage: The file system.
            **facts: More entries for environment.json.

        Raises:
            RunError: If the folder exists.
        """
        folder = root / recipe.name
        if folder.exists():
            raise RunError(
                str(folder),
                "exists already and nothing there was touched",
                "Choose another name=... or delete it",
            )
        folder.mkdir(parents=True)
        return cls(folder, recipe, storage).restart(recipe, **facts)

    def restart(self, recipe: Recipe, **facts: Any) -> Run:
        """Write the recipe and the environment of a run that has not begun."""
        self.write_json("environment.json", {**describe_machine(), **facts})
        self.write_json("requested.json", as_dict(recipe))
        # Last, because recipe.yaml is what makes a folder a run.
        self.write_recipe(recipe)
        return Run(self.folder, recipe, self.storage)

    @property
    def is_pretrained(self) -> bool:
        """Whether it is pretrained weights that were opened like a run, and has made no step."""
        return bool((self.read_json("environment.json") or {}).get("opened_as_pretrained"))

    @property
    def label(self) -> str:
        """What to call it: its folder, or the pretrained weights."""
        return str(self.recipe.init.pretrained if self.is_pretrained else self.folder)

    @property
    def begun(self) -> bool:
        """Whether anything was made that a wrong recipe would waste: a processor or a
        checkpoint."""
        return bool(self.checkpoints.steps()) or (self.folder / "processor").exists()

    @classmethod
    def open(cls, folder: Path, storage: Storage | None = None) -> Run:
        """Open an existing run.

        Raises:
            RunError: If the folder is not a run; the message names the nearest one.
        """
        if not (folder / "recipe.yaml").is_file():
            runs = [str(path.parent) for path in folder.parent.glob("*/recipe.yaml")]
            hint = did_you_mean(str(folder), runs)
            problem = "is not a run (it has no recipe.yaml)"
            if (folder / "adapter_config.json").is_file():
                raise RunError(
                    str(folder),
                    f"{problem}, but an adapter in PEFT's layout",
                    "Predict with its base and --adapter, or train on with adapter.path",
                )
            found = ", ".join(runs) or "none"
            raise RunError(str(folder), f"{problem}; {hint}runs there: {found}")
        return cls(folder, load_recipe(folder / "recipe.yaml", complete=True), storage)

    def differences(self, wanted: Recipe) -> dict[str, tuple[Any, Any]]:
        """Return the dotted keys in which ``wanted`` is another recipe than this run was started
        with, with the value there and the one wanted.

        It may be the recipe as it was asked for, or its completed form.
        """
        now = flatten(as_dict(wanted))
        settled = flatten(as_dict(self.recipe))
        # As it was asked for, not as it was settled: automatic choices are the machine's. Under the
        # names of today, because an older groundup may have written it, without today's settings.
        requested = flatten(upgrade(self.read_json("requested.json") or {}))
        # What was null may be settled as a table, such as the targets of an adapter gone on from.
        filled = {key: each for key, each in settled.items() if key in now or not requested}
        asked = filled | requested

        def compare(there: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
            return {
                key: (there.get(key), now.get(key))
                for key in sorted({*there, *now})
                # which is only words
                if there.get(key) != now.get(key) and key != "about"
            }

        return min(compare(asked), compare(settled), key=len)

    def check_same(self, wanted: Recipe) -> None:
        """Make sure that ``wanted`` is the recipe this run was started with, or its completed form.

        Raises:
            RunError: Naming the keys that differ.
        """
        differing = [
            f"{key} ({there!r} there, {now!r} now)"
            for key, (there, now) in self.differences(wanted).items()
        ]
        if differing:
            raise RunError(
                str(self.folder),
                f"exists and was made with another recipe: {'; '.join(differing[:5])}; nothing"
                " there was touched",
                f"Choose another name=..., which with init.run={self.folder} begins with its"
                " weights; or delete the folder to start again",
            )

    def write_recipe(self, recipe: Recipe) -> None:
        """Replace recipe.yaml."""
        self.storage.write_text(self.folder / "recipe.yaml", _BANNER + dump_recipe(recipe))

    def log(self, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        # Appended, never rewritten: what was logged before cannot be lost by what comes after.
        self.storage.append_line(
            self.folder / "metrics.jsonl", json.dumps(values, ensure_ascii=False)
        )

    def event(self, step: int, message: str) -> None:
        """Record and announce something that a reader of the run should know."""
        log.info("%s", message)
        self.log({"kind": "event", "step": step, "message": message})

    def write_json(self, name: str, value: Any) -> None:
        """Replace one of the run's JSON files."""
        self.storage.write_text(
            self.folder / name, json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        )

    def read_json(self, name: str) -> Any:
        """Return one of the run's JSON files, or None if there is none."""
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    @property
    def finished(self) -> bool:
        """Whether the newest intact checkpoint is the run's last."""
        # A run whose optimizer's file alone is damaged is finished all the same.
        step = self.checkpoints.newest_intact(TO_PREDICT)
        if step is None:
            return False
        state = self.checkpoints.state(step)
        # More steps may have been asked for since.
        done = step >= count_steps(self.recipe.training, state.get("samples_per_epoch", 0))
        return bool(state.get("finished")) and (done or bool(state.get("stopped")))

    def pick(self, which: str) -> int:
        """Return the step of the checkpoint called ``"best"`` or ``"last"``, or a step number.

        Of the best only what is read is verified; where that is damaged, the newest intact one
        takes its place. A checkpoint that is asked for by its number is verified when it is loaded.

        Raises:
            RunError: If the run has no intact checkpoint, or none of that number.
        """
        if self.is_pretrained:
            return 0
        steps = self.checkpoints.steps()
        if which.isdigit() and steps:
            if int(which) in steps:
                return int(which)
            known = ", ".join(map(str, steps))
            raise RunError(
                str(self.folder),
                f"has no checkpoint of step {which}; there are {known}",
                "Choose one",
            )
        if which == "best":
            # Only the state, which knows the best step whatever became of the newest weights.
            newest = self.checkpoints.newest_intact((STATE,))
            best = None if newest is None else self.checkpoints.state(newest).get("best_step")
            if best in steps and not self.checkpoints.damage(best, TO_PREDICT):
                return int(best)
        last = self.checkpoints.newest_intact(TO_PREDICT)
        if last is None:
            raise RunError(
                str(self.folder),
                "has no intact checkpoint",
                f"Train it first: groundup train --resume {self.folder}",
            )
        return last


def count_steps(training: Training, samples_per_epoch: int) -> int:
    """Return the updates of a whole run; as many as hold all samples."""
    if training.steps is not None:
        return training.steps
    samples = training.samples or (training.epochs or 0) * samples_per_epoch
    return max(1, math.ceil(samples / training.batch_size))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
