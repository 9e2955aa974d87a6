"""A trained run, opened to predict, to stream and to be evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup.contracts.data import DataSource
from groundup.contracts.models import context_length_of
from groundup.contracts.tasks import EvaluationContext, Streams, Task
from groundup.core.errors import GroundupError, RunError
from groundup.core.values import Evaluation, Split
from groundup.inference.llama_cpp import check_engine, open_engine
from groundup.inference.precision import quick, set_weights
from groundup.machine import devices
from groundup.runs.processor import cache_folder, load_processor
from groundup.runs.run import Run
from groundup.weights.adapter_runs import use_adapter
from groundup.weights.initial_model import build_trained_model, complete_source
from groundup.weights.load import pretrained_weights, weights_sha256
from groundup.weights.restore import load_weights

__all__ = ["Predictor"]


@dataclass(frozen=True)
class Predictor:
    """The model, processor and task of one checkpoint, ready to use.

    Example:
        >>> predictor = groundup.load("runs/quickstart-finetune")  # doctest: +SKIP
        >>> predictor("What does os.path.join do?")  # doctest: +SKIP
    """

    run: Run
    model: nn.Module
    processor: Any
    task: Task
    step: int
    weights: str = "fp32"
    engine: str = "groundup"

    @classmethod
    def load(
        cls,
        folder: Path,
        checkpoint: str = "best",
        adapter: Path | None = None,
        weights: str = "fp32",
        engine: str = "groundup",
    ) -> Predictor:
        """Open a run. An adapter that it trained comes merged into the weights of its base, unless
        those are quantised.

        Args:
            folder: The run's folder.
            checkpoint: ``"best"`` (on validation), ``"last"``, or a step number.
            adapter: A folder with an adapter for these weights, as ``use`` takes it.
            weights: What they are kept in to predict: ``fp32``, ``bf16`` or ``int8``; see
                ``set_weights``.
            engine: ``groundup``, or ``llama.cpp``, which takes the place of the model; see
                ``open_engine``.

        Raises:
            RunError: If the folder is no run or holds no intact checkpoint, or the model cannot
                have such weights.
            CheckpointError: If the adapter is for other weights, or the engine cannot take them
                over.
            MissingExtraError: If the engine's library is not installed.
        """
        # Before the model is read, which may take long.
        check_engine(engine, weights)
        run = Run.open(folder)
        step = run.pick(checkpoint)
        machine = run.recipe.machine
        # A run that was trained on a GPU predicts wherever it is opened.
        if machine.device == "cuda" and not torch.cuda.is_available():
            machine = machine.model_copy(update={"device": "cpu"})
        device = devices.prepare(machine)
        task = run.recipe.task
        processor = load_processor(folder / "processor")
        model = build_trained_model(run, step, processor)
        predictor = cls(run, model.to(device).eval(), processor, task, step)
        # While the weights are in float32 and groundup's own: later nothing can be merged into
        # them.
        if adapter is not None:
            predictor.use(adapter)
        if engine != "groundup":
            model = open_engine(run, step, predictor.model, processor, weights)
            return replace(predictor, model=model, weights=weights, engine=engine)
        set_weights(predictor.model, weights, str(run.folder))
        return replace(predictor, weights=weights)

    def use(self, adapter: Path | None) -> None:
        """Predict with another adapter for the run's weights from now on; None: with the run's
        weights as they are.

        Args:
            adapter: A folder in PEFT's layout; or another run's, for the adapter that it trained.

        Raises:
            CheckpointError: If it cannot be read, or is for other weights or another model.
            RunError: If the weights are no longer in float32.
        """
        if self.weights != "fp32" or self.engine != "groundup":
            kept = f"in {self.weights}" if self.engine == "groundup" else f"with {self.engine}"
            problem = f"its weights are {kept} by now, which an adapter cannot be put into"
            raise RunError(
                str(self.run.folder),
                problem,
                "Load it with both: load(run, adapter=..., weights=...)",
            )
        # It was made of the layers of before, and is made again when it is needed.
        self.__dict__.pop("_writer", None)
        sha256 = weights_sha256(self.run, self.step)
        use_adapter(self.model, self.run.recipe.model, adapter, sha256)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Return the prediction for raw inputs: for text models a prompt, or a list of prompts."""
        return self.task.predict(self._writer, inputs, self.processor, **options)

    def stream(self, prompt: Any, **options: Any) -> Iterator[str]:
        """Yield the prediction piece by piece.

        Raises:
            RunError: If the task has nothing to stream.
        """
        if not isinstance(self.task, Streams):
            raise RunError(
                str(self.run.folder),
                f"task {self.task.registered_name!r} cannot stream",
                "Use predict",
            )
        yield from self.task.stream(self._writer, prompt, self.processor, **options)

    @cached_property
    def _writer(self) -> nn.Module:
        return quick(self.model)

    def evaluate(self, limit: int, progress: Any = lambda message: None) -> Evaluation:
        """Evaluate the model on its run's held-out split, in fp32, next to what it was fine-tuned
        from.

        Raises:
            RunError: If another engine takes the model's place.
        """
        if self.engine != "groundup":
            problem = f"{self.engine} writes and evaluates nothing"
            raise RunError(str(self.run.folder), problem, "Load it without engine")
        recipe = self.run.recipe
        device = next(self.model.parameters()).device
        held_out = _held_out(self.run)
        # References are computed as the model is evaluated, whatever it was trained in.
        machine = recipe.machine.model_copy(update={"precision": "fp32"})
        source = complete_source(self.run, self.processor, device, machine, (held_out,))
        context = EvaluationContext(
            model=self.model,
            processor=self.processor,
            examples=_examples(source),
            sequence_length=context_length_of(recipe.model),
            base=self._pretrained(progress),
            held_out=held_out,
            seed=recipe.seed,
            limit=limit,
            progress=progress,
        )
        # What the base was trained on is evaluated too, to see what fine-tuning made it forget.
        if recipe.init.run is not None:
            base = Predictor.load(Path(recipe.init.run), recipe.init.checkpoint)
            context = replace(
                context,
                base=(base.model, base.processor),
                base_examples=_examples(base.run.recipe.data),
                base_held_out=_held_out(base.run),
            )
        return self.task.evaluate(context)

    def _pretrained(self, progress: Any) -> tuple[nn.Module, Any] | None:
        """Return the model with the pretrained weights that the run began with, and the run's own
        processor.

        None where it began otherwise, where they have no head for what the run predicts, or are
        gone.
        """
        recipe = self.run.recipe
        if recipe.init.pretrained is None or not self.task.compares_with_pretrained:
            return None
        try:
            model = recipe.model.build()
            load_weights(model, pretrained_weights(self.run), recipe.init.pretrained)
        # The comparison is an extra, and the run's own numbers do not depend on it.
        except GroundupError as error:
            progress(
                f"the pretrained weights cannot be read, so nothing is compared with them: {error}"
            )
            return None
        return model.to(next(self.model.parameters()).device).eval(), self.processor


def _examples(source: DataSource) -> Callable[[Split], Iterable[Any]]:
    """Return what gives the raw examples of a split."""
    return lambda split: source.examples(split, cache_folder())


def _held_out(run: Run) -> Split:
    # Validation has chosen the checkpoint, and so flatters it; the test split has chosen nothing.
    return "test" if "test" in run.recipe.data.splits() else "validation"
