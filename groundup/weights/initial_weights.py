"""The weights that a run starts from, chosen once from its recipe: random numbers, another run's
weights or pretrained ones.

Whatever they are, a model is filled with them in the same way, part by part, and their base is
quantized where the recipe's adapter says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.models import FromHuggingFace, HasVocabulary, ModelConfig, PredictsOutputs
from groundup.contracts.processors import Processor
from groundup.contracts.shared_weights import TiesEmbeddings
from groundup.nn.lora.adapters import LOW_RANK, merge_tensors
from groundup.nn.part_names import HEADS, TASK_WEIGHTS
from groundup.recipe.adapter import Adapter
from groundup.runs.processor import load_processor
from groundup.runs.run import Run
from groundup.weights.as_stored import with_own_head
from groundup.weights.head_rows import describe_rows, keep_rows
from groundup.weights.load import (
    check_pretrained,
    pretrained_config,
    pretrained_labels,
    pretrained_parts,
    pretrained_weights,
    weights_sha256,
)
from groundup.weights.new_tokens import add_rows, token_tables
from groundup.weights.quantized_base import (
    build_without_content,
    quantize_layer,
    quantize_layers,
    quantized_names,
    weights_as_quantized,
)
from groundup.weights.restore import check_same_base, load_weights, misfit
from groundup.weights.trunk import fill_trunk, trunk_in, trunk_of

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
            RecipeError: If they are to be quantized, and the model has no linear layer in blocks.
        """

    @abstractmethod
    def read(self) -> dict[str, Tensor]:
        """Return all of them by name, before any quantization."""

    @abstractmethod
    def reference(self) -> dict[str, Any]:
        """Return how checkpoints name them: ``run`` (a folder or name), ``step`` and ``sha256``."""

    @property
    def fingerprint(self) -> str:
        """What changes whenever the weights do."""
        return str(self.reference()["sha256"])

    def _keep_rows(
        self,
        before: Sequence[str],
        base: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
        announce: Announce,
    ) -> dict[str, Tensor]:
        """Return a head whose rows of classes that the base has, too, are the base's; and say
        which."""
        assert self._targets is not None
        said = describe_rows(before, self._targets.labels)
        announce(said or f"new head, from random numbers: {', '.join(own)}")
        return keep_rows(before, self._targets.labels, base, own) if said else dict(own)

    def _quantized_as(self) -> Adapter | None:
        adapter = self._run.recipe.adapter
        if adapter is None or not adapter.quantized:
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
        if trunk_of(self._run.recipe.model, self.base.recipe.model) is not None:
            self.new_head = fill_trunk(model, weights, str(self.base.folder), announce)
            return
        # Random numbers where the names of classes differ, even if there are as many of them.
        if self._predicts_otherwise():
            own = {k: v for k, v in model.state_dict().items() if k.startswith(HEADS)}
            self.new_head = tuple(own)
            base = {name: w for name, w in weights.items() if name.startswith(HEADS)}
            weights = {name: w for name, w in weights.items() if name not in base}
            weights |= own
            before = load_processor(self.base.folder / "processor").targets
            if before is not None and self._targets is not None:
                if before.kind == self._targets.kind:
                    weights |= self._keep_rows(before.labels, base, own, announce)
                elif own:
                    announce(f"new head, from random numbers: {', '.join(own)}")
        load_weights(model, weights, str(self.base.folder))
        quantized = self._quantized_as()
        if quantized is not None:
            quantize_layers(model, quantized, str(self._run.recipe.init.run))

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
        model = self._run.recipe.model
        if isinstance(model, TiesEmbeddings) and not model.tied_embeddings:
            found = with_own_head(found)
        before = self.base.recipe.model
        # What pads the base's embedding was never trained, so it is no row of a token.
        known = before.vocabulary_size if isinstance(before, HasVocabulary) else 0
        if isinstance(model, HasVocabulary) and model.vocabulary_size > known > 0:
            found = add_rows(found, token_tables(model), known)
        return {name: w for name, w in found.items() if not name.startswith(TASK_WEIGHTS)}

    def reference(self) -> dict[str, Any]:
        """Return the run's folder, the step and the SHA-256 of its weights."""
        sha256 = weights_sha256(self.base, self.step)
        return {"run": str(self.base.folder), "step": self.step, "sha256": sha256}


class FromPretrained(InitialWeights):
    """Those in a folder in Hugging Face layout, or in a GGUF file.

    The files are never in memory as a whole next to the model, and of a quantized one never more
    than a few layers are in floats.
    """

    def build(self) -> nn.Module:
        """Return a model without content, unless it may get a new head, which needs random
        numbers."""
        config = self._run.recipe.model
        stored = self._trunk() or config
        # What the data cannot be read with is said in the recipe's words, before shapes are.
        if isinstance(stored, FromHuggingFace):
            stored.note_on_pretrained(pretrained_config(self._run))
        # Sizes first: what config.json claims may be more than any memory holds.
        check_pretrained(self._run, stored)
        if _may_get_a_head(config):
            return config.build()
        return build_without_content(config)

    def load(self, model: nn.Module, announce: Announce = _say_nothing) -> None:
        """Read a few layers after the other, in float32, and quantize those that are kept so."""
        run = self._run
        settings = self._quantized_as()
        config = run.recipe.model
        name = str(run.recipe.init.pretrained)
        announce(f"starts from the pretrained weights {name}")
        trunk = self._trunk()
        stored = trunk or config
        if isinstance(stored, FromHuggingFace):
            note = stored.note_on_pretrained(pretrained_config(run))
            if note:
                announce(note)
        if trunk is not None:
            weights = {k: w for part in pretrained_parts(run, trunk) for k, w in part.items()}
            self.new_head = fill_trunk(model, weights, name, announce)
            return
        own = model.state_dict()
        quantized: set[str] = set()
        if settings is not None:
            quantized.update(quantized_names(model))
        others = self._outputs_of_others(config)
        filled: set[str] = set()
        for part in pretrained_parts(run):
            whole = {}
            for key in list(part):
                tensor = part.pop(key)
                if key not in own:
                    raise misfit(name, f"has an unknown tensor {key}")
                if key.startswith(others):
                    continue  # what it predicts has other names, even if there are as many
                filled.add(key)
                if settings is not None and key in quantized:
                    quantize_layer(model, key, tensor, settings, f"{name}, tensor {key}")
                else:
                    # A copy, so that the file's pages go, and no change of the file reaches the
                    # model.
                    # Whole numbers are tables, such as of positions.
                    dtype = torch.float32 if own[key].is_floating_point() else own[key].dtype
                    whole[key] = tensor.to(dtype, copy=True).contiguous()
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
            self._fill_head(model, announce)
        # Tensors that were assigned require no gradient by themselves.
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())

    def _trunk(self) -> FromHuggingFace | None:
        """Return the settings of the model's trunk, where the weights are of this alone."""
        model_type = str(pretrained_config(self._run).get("model_type"))
        return trunk_in(self._run.recipe.model, model_type)

    def _fill_head(self, model: nn.Module, announce: Announce) -> None:
        """Copy the rows of classes that the weights tell apart, too, to a new head; the others keep
        their random numbers."""
        config = self._run.recipe.model
        before = pretrained_labels(self._run)
        own = {k: v for k, v in model.state_dict().items() if k in self.new_head}
        base: dict[str, Tensor] = {}
        classes = self._targets is not None and self._targets.kind in ("class", "classes")
        if classes and self._targets is not None and describe_rows(before, self._targets.labels):
            # As many outputs as the weights have, so that their head is read.
            whole = config.model_copy(update={"outputs": len(before)})
            for part in pretrained_parts(self._run, whole):
                base |= {name: tensor for name, tensor in part.items() if name in own}
        if base:
            kept = self._keep_rows(before, base, own, announce)
            model.load_state_dict(kept, strict=False)
        else:
            announce(f"new head, from random numbers: {', '.join(self.new_head)}")

    def _outputs_of_others(self, config: ModelConfig) -> tuple[str, ...]:
        """Return how the names of tensors begin that predict other classes, or numbers, than are
        predicted here."""
        targets = self._targets
        if targets is None or not targets.learned or not isinstance(config, FromHuggingFace):
            return ()
        if self._run.is_pretrained:
            return ()
        return () if targets.labels == pretrained_labels(self._run) else config.output_tensors()

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

    If it was trained next to a quantized base, these are what the few bits stand for, and the sum
    is in float32: the same model as was trained.

    Raises:
        CheckpointError: If it is damaged, or an adapter for another base.
    """
    if run.is_pretrained:
        own = choose_initial_weights(run).read()
        return {name: tensor.float() for name, tensor in own.items()}
    checkpoint = run.checkpoints.load(step, with_optimizer=False)
    adapter = run.recipe.adapter
    today = run.recipe.model.renamed_tensors(checkpoint.model)
    own = {today.get(name, name): tensor for name, tensor in checkpoint.model.items()}
    if adapter is None:
        return own
    initial = choose_initial_weights(run)
    reference = initial.reference() | {"quantised": adapter.quantized}
    check_same_base(checkpoint.state, reference, str(run.checkpoints.path(step)))
    base = initial.read()
    # A head that was trained as a whole replaces the base's.
    if any(name.startswith(HEADS) and name.rpartition(".")[2] not in LOW_RANK for name in own):
        base = {name: weight for name, weight in base.items() if not name.startswith(HEADS)}
    if adapter.quantized:
        base = weights_as_quantized(base, run.recipe.model, adapter)
    return merge_tensors({**base, **own}, adapter)
