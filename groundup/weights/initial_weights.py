"""The weights that a run starts from, chosen once from its recipe: random numbers, another run's
weights or pretrained ones.

Whatever they are, a model is filled with them in the same way, part by part, and their base is
quantised where the recipe's adapter says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.models import FromHuggingFace, ModelConfig, PredictsOutputs
from groundup.contracts.processors import Processor
from groundup.nn.lora.adapters import LOW_RANK, merge_tensors
from groundup.nn.part_names import HEADS, TASK_WEIGHTS
from groundup.recipe.sections import Adapter
from groundup.runs.processor import load_processor
from groundup.runs.run import Run
from groundup.weights.load import (
    pretrained_config,
    pretrained_labels,
    pretrained_parts,
    pretrained_weights,
    weights_sha256,
)
from groundup.weights.quantised_base import (
    build_without_content,
    quantise_layer,
    quantise_layers,
    quantised_names,
    weights_as_quantised,
)
from groundup.weights.restore import check_same_base, load_weights, misfit

__all__ = [
    "FromPretrained",
    "FromRun",
    "InitialWeights",
    "RandomWeights",
    "choose_initial_weights",
    "weights_of",
]

Announce = Callable[[str], None]


def _say_nothing(message: str) -> None:
    pass


class InitialWeights(ABC):
    """What a run starts from, before any adapter.

    Args:
        run: The run.
        processor: Its processor, which knows the classes that are predicted; None where no model is
            loaded.

    Attributes:
        new_head: The tensors that keep their random numbers, because the weights have none for what
            is predicted; known once a model is loaded.
    """

    def __init__(self, run: Run, processor: Processor | None = None) -> None:
        self._run = run
        self._targets = None if processor is None else processor.targets
        self.new_head: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """Return the model to load: with random numbers, or without content where every tensor is
        read anyway."""
        return self._run.recipe.model.build()

    @abstractmethod
    def load(self, model: nn.Module, announce: Announce = _say_nothing) -> None:
        """Fill what ``build`` returned, in place.

        Args:
            model: Its new head, if it gets one, keeps its random numbers.
            announce: Called with what a reader of the run should know.

        Raises:
            RunError: If the weights are others than when the run was begun.
            CheckpointError: If they are damaged, or are not this model's.
            RecipeError: If they are to be quantised, and the model has no linear layer in blocks.
        """

    @abstractmethod
    def read(self) -> dict[str, Tensor]:
        """Return all of them by name, before any quantisation."""

    @abstractmethod
    def reference(self) -> dict[str, Any]:
        """Return how checkpoints name them: ``run`` (a folder or name), ``step`` and ``sha256``."""

    @property
    def fingerprint(self) -> str:
        """What changes whenever the weights do."""
        return str(self.reference()["sha256"])

    def _quantised_as(self) -> Adapter | None:
        adapter = self._run.recipe.adapter
        if adapter is None or not adapter.quantised:
            return None
        return adapter


class RandomWeights(InitialWeights):
    """Those that a model is built with."""

    def load(self, model: nn.Module, announce: Announce = _say_nothing) -> None:
        """Leave the model as it was built."""

    def read(self) -> dict[str, Tensor]:
        """Return none: they are drawn when the model is built."""
        return {}

    def reference(self) -> dict[str, Any]:
        """Return nothing: checkpoints name no base."""
        return {}

    @property
    def fingerprint(self) -> str:
        """The seed that they are drawn with."""
        return f"seed {self._run.recipe.seed}"


class FromRun(InitialWeights):
    """Those of another run's checkpoint, without what its task added."""

    def __init__(self, run: Run, processor: Processor | None = None) -> None:
        super().__init__(run, processor)
        init = run.recipe.init
        assert init.run is not None
        self.base = Run.open(Path(init.run))
        self.step = self.base.pick(init.checkpoint)

    def load(self, model: nn.Module, announce: Announce = _say_nothing) -> None:
        """Copy them; a head keeps its random numbers where other classes or numbers are
        predicted."""
        weights = self.read()
        # Random numbers where the names of classes differ, even if there are as many of them.
        if self._predicts_otherwise():
            own = model.state_dict()
            self.new_head = tuple(name for name in own if name.startswith(HEADS))
            weights = {name: w for name, w in weights.items() if not name.startswith(HEADS)}
            weights |= {name: own[name] for name in self.new_head}
        load_weights(model, weights, str(self.base.folder))
        quantised = self._quantised_as()
        if quantised is not None:
            quantise_layers(model, quantised, str(self._run.recipe.init.run))

    def _predicts_otherwise(self) -> bool:
        """Whether other classes, or numbers, are predicted than the base run predicts."""
        own = self._targets
        if own is None:
            return False
        before = load_processor(self.base.folder / "processor").targets
        return before is None or (own.kind, own.labels) != (before.kind, before.labels)

    def read(self) -> dict[str, Tensor]:
        """Return them, an adapter that the run trained merged."""
        # Without what the base's task added: this run's task begins its own from scratch.
        found = weights_of(self.base, self.step)
        return {name: w for name, w in found.items() if not name.startswith(TASK_WEIGHTS)}

    def reference(self) -> dict[str, Any]:
        """Return the run's folder, the step and the SHA-256 of its weights."""
        sha256 = weights_sha256(self.base, self.step)
        return {"run": str(self.base.folder), "step": self.step, "sha256": sha256}


class FromPretrained(InitialWeights):
    """Those in a folder in Hugging Face layout, or in a GGUF file.

    The files are never in memory as a whole next to the model, and of a quantised one never more
    than a few layers are in floats.
    """

    def build(self) -> nn.Module:
        """Return a model without content, unless it may get a new head, which needs random
        numbers."""
        config = self._run.recipe.model
        if _may_get_a_head(config):
            return config.build()
        return build_without_content(config)

    def load(self, model: nn.Module, announce: Announce = _say_nothing) -> None:
        """Read a few layers after the other, in float32, and quantise those that are kept so."""
        run = self._run
        settings = self._quantised_as()
        config = run.recipe.model
        name = str(run.recipe.init.pretrained)
        announce(f"starts from the pretrained weights {name}")
        if isinstance(config, FromHuggingFace):
            note = config.note_on_pretrained(pretrained_config(run))
            if note:
                announce(note)
        own = set(model.state_dict())
        quantised: set[str] = set()
        if settings is not None:
            quantised.update(quantised_names(model))
        other_head = self._predicts_other_labels()
        filled: set[str] = set()
        for part in pretrained_parts(run):
            whole = {}
            for key in list(part):
                tensor = part.pop(key)
                if key not in own:
                    raise misfit(name, f"has an unknown tensor {key}")
                if other_head and key.startswith("head."):
                    continue  # what it predicts has other names, even if there are as many
                filled.add(key)
                if settings is not None and key in quantised:
                    quantise_layer(model, key, tensor, settings, f"{name}, tensor {key}")
                else:
                    # A copy, so that the file's pages go, and no change of the file reaches the
                    # model.
                    whole[key] = tensor.to(torch.float32, copy=True).contiguous()
            # A model without content has nothing to copy into. One that may get a new head was
            # built with random numbers, which have to stay where no tensor comes.
            model.load_state_dict(whole, strict=False, assign=not _may_get_a_head(config))
        left = [key for key in model.state_dict() if key in own and key not in filled]
        self.new_head = tuple(key for key in left if key.startswith(HEADS))
        # A head may be missing, which then is a new one. Any other tensor that is missing would
        # stay random, and nobody would notice.
        missing = next((key for key in left if not key.startswith(HEADS)), None)
        if missing is not None or (left and not _may_get_a_head(config)):
            raise misfit(name, f"lacks tensor {missing or left[0]}")
        if self.new_head:
            announce(f"new head, from random numbers: {', '.join(self.new_head)}")
        # Tensors that were assigned require no gradient by themselves.
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())

    def _predicts_other_labels(self) -> bool:
        """Whether other classes, or numbers, are predicted than the weights were trained for."""
        targets = self._targets
        if targets is None or not targets.learned:
            return False
        return targets.labels != pretrained_labels(self._run)

    def read(self) -> dict[str, Tensor]:
        """Return them in their own dtype."""
        return pretrained_weights(self._run)

    def reference(self) -> dict[str, Any]:
        """Return the name, and the SHA-256 that the run was begun with."""
        # As recorded when the run began: the files may have changed or be gone by now.
        recorded = self._run.read_json("environment.json") or {}
        name = self._run.recipe.init.pretrained
        sha256 = recorded.get("base_weights_sha256")
        return {"run": name, "step": 0, "sha256": sha256}


def _may_get_a_head(config: ModelConfig) -> bool:
    return isinstance(config, PredictsOutputs)


def choose_initial_weights(run: Run, processor: Processor | None = None) -> InitialWeights:
    """Return what the recipe of a run says it starts from."""
    if run.recipe.init.run is not None:
        return FromRun(run, processor)
    if run.recipe.init.pretrained is not None:
        return FromPretrained(run, processor)
    return RandomWeights(run, processor)


# ------------------------------------------------------------------------ a trained run's own
def weights_of(run: Run, step: int) -> dict[str, Tensor]:
    """Return all weights of a run's checkpoint; an adapter comes merged into the weights of its
    base.

    If it was trained next to a quantised base, these are what the few bits stand for, and the sum
    is in float32: the same model as was trained.

    Raises:
        CheckpointError: If it is damaged, or an adapter for another base.
    """
    checkpoint = run.checkpoints.load(step, with_optimizer=False)
    adapter = run.recipe.adapter
    if adapter is None:
        return checkpoint.model
    initial = choose_initial_weights(run)
    reference = initial.reference() | {"quantised": adapter.quantised}
    check_same_base(checkpoint.state, reference, str(run.checkpoints.path(step)))
    base = initial.read()
    # A head that was trained as a whole replaces the base's.
    if any(
        name.startswith(HEADS) and name.rpartition(".")[2] not in LOW_RANK
        for name in checkpoint.model
    ):
        base = {name: weight for name, weight in base.items() if not name.startswith(HEADS)}
    if adapter.quantised:
        base = weights_as_quantised(base, run.recipe.model, adapter)
    return merge_tensors({**base, **checkpoint.model}, adapter)
