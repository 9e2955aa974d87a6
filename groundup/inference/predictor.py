"""A trained run, opened to predict, to stream and to be evaluated."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.data import DataSource
from groundup.contracts.models import context_length_of
from groundup.contracts.tasks import DrawsPictures, EvaluationContext, Streams, Task
from groundup.core import registry
from groundup.core.errors import DataError, GroundupError, RunError
from groundup.core.settings import validate
from groundup.core.values import CutInputs, Evaluation, Split
from groundup.generation.options import FILTERS
from groundup.inference.baselines import add_baselines, check_baselines
from groundup.inference.llama_cpp import check_engine, open_engine
from groundup.inference.precision import quick, set_weights
from groundup.inference.pretrained_run import open_run
from groundup.inference.remedies import remedies_after_training
from groundup.machine import devices
from groundup.reports.sampling import Copies, Sample, content_of
from groundup.runs.processor import cache_folder, load_processor
from groundup.runs.run import Run
from groundup.training.fit_processor import check_classes
from groundup.weights.adapter_runs import use_adapter
from groundup.weights.initial_model import build_trained_model, complete_source
from groundup.weights.load import pretrained_weights, weights_sha256
from groundup.weights.restore import load_weights

__all__ = ["Predictor"]

_log = logging.getLogger("groundup")
# inputs that a note on what was cut names
_NAMED = 10
# the parts of data that were not trained on, the one that chose nothing first
_HELD_OUT: tuple[Split, ...] = ("test", "validation")
# answers that are evaluated where nobody says how many
_GENERATED = 100


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
    replaced: dict[str, Tensor] = field(default_factory=dict)

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
        those are quantized.

        Args:
            folder: The run's folder; or a folder of pretrained weights, a GGUF file, or a name of
                the hub.
            checkpoint: ``"best"`` (on validation), ``"last"``, or a step number.
            adapter: A folder with an adapter for these weights, as ``use`` takes it.
            weights: What they are kept in to predict: ``fp32``, ``bf16``, ``int8`` or ``int4``; see
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
        run = open_run(folder)
        step = run.pick(checkpoint)
        machine = run.recipe.machine
        # A run that was trained on a GPU predicts wherever it is opened.
        if machine.device == "cuda" and not torch.cuda.is_available():
            machine = machine.model_copy(update={"device": "cpu"})
        device = devices.prepare(machine)
        task = run.recipe.task
        processor = load_processor(run.folder / "processor")
        model = build_trained_model(run, step, processor)
        predictor = cls(run, model.to(device).eval(), processor, task, step)
        predictor._warn_of_decoding()
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
            raise RunError(
                str(self.run.folder),
                f"its weights are {kept} by now, which an adapter cannot be put into",
                "Load it with both: load(run, adapter=..., weights=...)",
            )
        # It was made of the layers of before, and is made again when it is needed.
        self.__dict__.pop("_writer", None)
        sha256 = weights_sha256(self.run, self.step)
        use_adapter(self.model, self.run.recipe.model, adapter, sha256, self.replaced)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Return the prediction for raw inputs: for text models a prompt, or a list of prompts."""
        if isinstance(inputs, list | tuple) and not inputs:
            return []
        chosen = self.with_decoding(options)
        with self.noting_what_is_cut(), remedies_after_training():
            return self.task.predict(self._writer, inputs, self.processor, **chosen)

    def tabulate(self, inputs: Sequence[Any], **options: Any) -> list[dict[str, Any]]:
        """Return what is predicted for each of several inputs, by the names of columns; of classes
        every one's probability."""
        if not inputs:
            return []
        return self.task.tabulate(self._writer, inputs, self.processor, **options)

    @contextlib.contextmanager
    def noting_what_is_cut(self) -> Iterator[None]:
        """Say, at the end, how many inputs were cut meanwhile."""
        cut = self.processor.cut
        if cut is not None:
            cut.clear()
        yield
        for note in [*cut.notes(_NAMED), *cut.filled()] if cut is not None else ():
            _log.warning("%s", note)

    def source_of(self, path: str, settings: Mapping[str, Any] | None = None) -> DataSource:
        """Return what reads a file or folder as the run's own data were read, as one split.

        Args:
            path: The file or folder.
            settings: Of the data section, where they are others than the run's.

        Raises:
            DataError: If neither the run's data nor its task read files.
        """
        data = self.run.recipe.data
        source = data.reading(path)
        if source is None and self.task.file_source:
            cls = registry.lookup("data", self.task.file_source)
            source = cls.model_validate({"path": path, "fraction": 0.0})
        if source is None:
            raise DataError(
                path,
                f"data {data.registered_name} reads no files",
                "Use it from Python: groundup.load(run)(inputs)",
            )
        if settings:
            given = source.model_dump(mode="json", exclude_unset=True)
            return validate(type(source), {**given, **settings}, "data")
        return source

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
        chosen = self.with_decoding(options)
        yield from self.task.stream(self._writer, prompt, self.processor, **chosen)

    @cached_property
    def decoding(self) -> dict[str, Any]:
        """How a text is written where nothing else is asked for: what generation_config.json of the
        weights that the run goes back to says."""
        if not isinstance(self.task, Streams):
            return {}
        facts = self.run.read_json("environment.json") or {}
        return dict(facts.get("decoding") or {})

    def _warn_of_decoding(self) -> None:
        facts = self.run.read_json("environment.json") or {}
        left_out = facts.get("decoding_left_out")
        if left_out and isinstance(self.task, Streams):
            _log.warning(
                "generation_config.json of the weights asks for what is not done here: %s; texts"
                " are written without it",
                left_out,
            )

    def with_decoding(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return options with ``decoding`` for those that are not given."""
        found = {**self.decoding, **options}
        if options.get("temperature") == 0:
            # The likeliest token is taken: what the file chooses among has no effect then.
            found = {k: v for k, v in found.items() if k in options or k not in FILTERS}
        return found

    @cached_property
    def _writer(self) -> nn.Module:
        return quick(self.model)

    def evaluate(
        self,
        limit: int | None = None,
        progress: Any = lambda message: None,
        data: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Evaluation:
        """Evaluate the model on its run's held-out split, or on other data, in fp32, next to what
        it was fine-tuned from.

        Args:
            limit: Evaluate at most N examples, drawn from all; None: all, but at most 100 where
                each costs a generation.
            progress: Called with a line about what is being done.
            data: A file or folder of other data than the run's.
            settings: As of ``source_of``.

        Raises:
            RunError: If another engine takes the model's place.
        """
        if self.engine != "groundup":
            raise RunError(
                str(self.run.folder),
                f"{self.engine} writes and evaluates nothing",
                "Load it without engine",
            )
        recipe = self.run.recipe
        run = self.run
        if data is not None:
            recipe = recipe.model_copy(update={"data": self.source_of(data, settings)})
            run = Run(run.folder, recipe, run.storage)
        device = next(self.model.parameters()).device
        held_out = _held_out(recipe.data)
        # References are computed as the model is evaluated, whatever it was trained in.
        machine = recipe.machine.model_copy(update={"precision": "fp32"})
        source = complete_source(run, self.processor, device, machine, (held_out,))
        chosen = Sample(limit or sys.maxsize)
        chosen.add(source.examples(held_out, cache_folder()))
        if limit is not None:
            progress(f"looking at {chosen.in_words}")
        if data is not None:
            check_classes(self.processor, chosen.rows)
            progress(f"{data}: {_in_training(self.run, chosen.rows)}")

        def examples(split: Split) -> Iterable[Any]:
            # what is new is evaluated; what the model was trained on is the run's own
            if split == "train":
                if self.run.is_pretrained:
                    return ()
                return self.run.recipe.data.examples("train", cache_folder())
            return chosen.rows

        context = EvaluationContext(
            model=self.model,
            processor=self.processor,
            examples=examples,
            sequence_length=context_length_of(recipe.model),
            base=self._pretrained(progress),
            checkpoints=[(step, partial(self._at, step)) for step in run.checkpoints.steps()],
            held_out="validation" if held_out == "train" else held_out,
            seed=recipe.seed,
            limit=limit or _GENERATED,
            progress=progress,
        )
        context = self._with_other_runs(context)
        if recipe.evaluation.baselines:
            check_baselines(self.processor)  # before what takes long
        found = self.task.evaluate(context)
        for note in _notes_of(self.processor.cut):
            progress(note)
        if recipe.evaluation.baselines:
            add_baselines(found, self.task, context, recipe.evaluation.baselines)
        return found

    def _at(self, step: int) -> nn.Module:
        model = build_trained_model(self.run, step, self.processor)
        return model.to(next(self.model.parameters()).device).eval()

    def _with_other_runs(self, context: EvaluationContext) -> EvaluationContext:
        """Return the context with the runs that this one is compared with, or evaluated by."""
        init = self.run.recipe.init
        # What the base was trained on is evaluated too, to see what fine-tuning made it forget.
        if init.run is not None:
            base = Predictor.load(Path(init.run), init.checkpoint)
            context = replace(
                context,
                base=(base.model, base.processor),
                base_examples=_examples(base.run.recipe.data),
                base_held_out=_held_out(base.run.recipe.data),
            )
        if isinstance(self.task, DrawsPictures) and self.task.judge:
            judge = Predictor.load(Path(self.task.judge))
            context = replace(context, judge=(judge.model, judge.processor))
        return context

    def _pretrained(self, progress: Any) -> tuple[nn.Module, Any] | None:
        """Return the model with the pretrained weights that the run began with, and the run's own
        processor.

        None where it began otherwise, where they have no head for what the run predicts, or are
        gone.
        """
        recipe = self.run.recipe
        if (
            recipe.init.pretrained is None
            or self.run.is_pretrained
            or not self.task.compares_with_pretrained
        ):
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


def _notes_of(cut: CutInputs | None) -> list[str]:
    return [] if cut is None else [*cut.notes(counts=False), *cut.filled()]


def _examples(source: DataSource) -> Callable[[Split], Iterable[Any]]:
    """Return what gives the raw examples of a split."""
    return lambda split: source.examples(split, cache_folder())


def _held_out(source: DataSource) -> Split:
    # Validation has chosen the checkpoint, and so flatters it; the test split has chosen nothing.
    parts = source.splits()
    for split in _HELD_OUT:
        if split in parts:
            return split
    return "train"  # other data than the run's, with no part that is called otherwise


def _in_training(run: Run, examples: Sequence[Any]) -> str:
    """Return in words how many examples the run was trained on."""
    if run.is_pretrained:
        return f"{len(examples):,} examples; nothing is known of what it was trained on"
    copies = Copies()
    try:
        trained = run.recipe.data.examples("train", cache_folder())
        copies.add("train", map(content_of, trained))
    except (GroundupError, OSError) as error:
        problem = f"not compared with the run's training data, which cannot be read: {error}"
        return f"{len(examples):,} examples, {problem}"
    copies.add("test", map(content_of, examples))
    shared = copies.count("test")[1]
    return f"{shared:,} of {len(examples):,} examples are in the run's training data"
