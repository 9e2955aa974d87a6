"""Write what is said in a sound: a token or a blank for every few frames (CTC), or a text by an
encoder-decoder.

Legend: B sounds, N frames and M tokens of all sounds, T frames of the longest, F features, S
    samples, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.ragged import offsets_of, pack_ragged
from groundup.contracts.speech import EmitsFrames, ReadsSpeech
from groundup.contracts.tasks import EvaluationContext, Objective, Task
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import task
from groundup.core.settings import setting
from groundup.core.values import Batch, Evaluation, Example, Loss, Term
from groundup.generation.ngrams import NGramModel
from groundup.generation.options import DecodingOptions
from groundup.media.augmentation.sounds import SoundAugment
from groundup.metrics.error_rates import (
    ErrorRate,
    Normaliser,
    error_rates,
    require_error_rates,
)
from groundup.processors.speech import SpeechProcessor
from groundup.tasks.transcribe.augment import augment_sounds
from groundup.tasks.transcribe.baselines import BASELINES, SpeechBaseline
from groundup.tasks.transcribe.by_frames import (
    Transcript,
    transcribe_by_frames,
)
from groundup.tasks.transcribe.by_writing import prompt_of, transcribe_by_writing
from groundup.tasks.transcribe.checks import WINDOW_SECONDS, check_settings, window_settings
from groundup.tasks.transcribe.evaluation import evaluate_transcripts
from groundup.tasks.transcribe.objective import NamesTooLong
from groundup.tasks.transcribe.options import frame_decoding, writing_options
from groundup.tasks.transcribe.rows import (
    FrameOutputs,
    frame_losses,
    frame_targets,
    pack_frames,
    pack_transcripts,
    pad_frames,
    pad_transcripts,
)

__all__ = ["Transcribe"]

_WITH_NGRAMS = {"ngram": tuple(range(1, 21))}


@task("transcribe")
class Transcribe(Task):
    """Minimise -log p of transcripts: by CTC the sum over all ways to emit one, by an
    encoder-decoder that of every token, its end included.

    Source:
        Graves et al., 2006, "Connectionist temporal classification", section 4; Radford et al.,
        Whisper, 2022 (arXiv:2212.04356), section 2.
    """

    unit: ClassVar[str] = "tokens"
    file_source: ClassVar[str] = "speech"

    metrics: tuple[ErrorRate, ...] = setting(
        ("wer", "cer"),
        "What transcripts are compared with the references by: the share of words, or of"
        " characters, that are wrong; none: the loss alone",
    )
    normaliser: Normaliser = setting(
        "none",
        "What is done to both before they are compared: basic, in lower case and without"
        " punctuation; english, numbers and contractions in one form too",
    )
    on_too_long: str = setting(
        "error",
        "A transcript of more tokens than CTC can emit for its sound: error, or skip: it is left"
        " out of the loss, counted and named",
        pattern="^(error|skip)$",
    )
    max_target_tokens: int | None = setting(
        None,
        "For an encoder-decoder: the most tokens of a transcript, its end included; a longer one is"
        " cut at its end; null: 224",
        ge=2,
    )
    label_smoothing: float = setting(
        0.0,
        "For an encoder-decoder: share of the target spread evenly over all tokens, in training",
        ge=0,
        lt=1,
    )
    measured: int = setting(
        100, "Held-out sounds whose transcripts each validation measures; 0: the loss alone", ge=0
    )
    evaluated: int = setting(
        1000, "Held-out sounds that are transcribed when a run is evaluated", ge=1
    )
    baselines: tuple[SpeechBaseline, ...] = setting(
        BASELINES,
        "Transcripts without a model, scored next to it: none at all, the most frequent one, that"
        " of the training sound with the most similar features",
    )
    beams: int = setting(
        1, "Texts that are searched at once in predicting, of which the best is given", ge=1
    )
    ngram: int = setting(
        0,
        "For CTC: a model of so many tokens in a row, learned from the training transcripts, helps"
        " the beams; 0: none",
        ge=0,
        le=20,
    )
    ngram_weight: float = setting(
        0.5, "What its log-probabilities count", gt=0, applies_when=_WITH_NGRAMS
    )
    length_bonus: float = setting(
        0.0,
        "Added to the score of a text for each token, as n-grams prefer short ones",
        applies_when=_WITH_NGRAMS,
    )
    window_seconds: float | None = setting(
        None,
        "Longer recordings are read in windows of this length; null: 30, or as much as the"
        " processor keeps of a sound",
        ge=2,
        le=600,
    )
    overlap_seconds: float = setting(
        4.0,
        "How much windows have in common; an encoder-decoder's are cut at a pause in it instead",
        ge=0.5,
    )
    silence_db: float | None = setting(
        -60.0,
        "What is quieter than this, in decibels of full scale, is silence, in which nothing is"
        " written; null: the model is asked about it too",
        le=0,
    )
    no_speech: float | None = setting(
        0.6,
        "An encoder-decoder that finds it likelier than this that nothing is said, and is unsure of"
        " what it wrote, has written nothing; null: what it wrote counts",
        ge=0,
        le=1,
    )
    augmentation: SoundAugment = setting(
        SoundAugment(), "How training sounds are changed at random"
    )

    @model_validator(mode="after")
    def _options_are_possible(self) -> Transcribe:
        if self.ngram and self.beams == 1:
            raise ValueError("ngram has no effect with one beam. Use beams: 8 or more")
        window = self.window_seconds or WINDOW_SECONDS
        if self.overlap_seconds > window / 2:
            raise ValueError(
                f"overlap_seconds {self.overlap_seconds:g} is more than half of window_seconds"
                f" {window:g}. Use {window / 2:g} or less"
            )
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("metrics names one twice. Remove it")
        return self

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``forward`` and ``loss`` read: the frames and tokens of all sounds one after the
        other, and where each sound's begin."""
        spec = {
            "frames": "float32 (N, F)",
            offsets_of("frames"): "int64 (O,)",
            "lengths": "int64 (B,)",
            "text": "int64 (M,)",
            offsets_of("text"): "int64 (O,)",
        }
        # Sounds themselves are kept only where they are to be changed.
        if self.augmentation.changes_samples:
            spec |= {"samples": "float32 (S,)", offsets_of("samples"): "int64 (O,)"}
        return spec

    def fit_processor(
        self, processor: Any, examples: Callable[[], Iterator[Example]]
    ) -> SpeechProcessor:
        """Return the processor with the n-grams of the training transcripts, where they are used.

        Raises:
            RecipeError: If it reads no speech.
            DataError: If a transcript is missing.
        """
        if not isinstance(processor, SpeechProcessor):
            raise RecipeError(
                "recipe.processor",
                f"{type(processor).__name__} makes no frames with transcripts, which task"
                " transcribe reads",
                "Choose processor: speech",
            )
        # Here, because only the processor knows whether the data are sounds.
        self.augmentation.check(given=processor.config.features == "given")
        if not self.ngram:
            return processor

        def transcripts() -> Iterator[list[int]]:
            for example in examples():
                (tokens,) = processor.tokenizer.encode_batch([str(example.target)])
                yield tokens.tolist()

        # A base run's processor stays as it is: others may be made of it.
        found = copy.copy(processor)
        found.ngrams = NGramModel.fit(transcripts(), self.ngram, processor.vocabulary_size)
        return found

    def check_model(self, model: nn.Module, processor: Any) -> None:
        """Check that the model emits frames or writes texts, and that all settings count for it;
        see ``check_settings``."""
        require_error_rates(self.metrics, self.normaliser)
        check_settings(self, model, processor)

    # ------------------------------------------------------------------------------------ training
    def encode(self, examples: Sequence[Example], processor: SpeechProcessor) -> Batch:
        """Return the frames of sounds and the tokens of their transcripts.

        Raises:
            DataError: If a sound cannot be read, or a transcript is no text.
        """
        # A number would be written as text without a word: 007 as 7.
        for example in examples:
            if not isinstance(example.target, str):
                problem = f"its transcript is {example.target!r:.60}, which is no text"
                raise DataError(example.origin or example.name, problem, "Write one, or remove it")
        rows = processor.encode_transcripts([each.target for each in examples])
        text = pack_transcripts(rows, processor.tokenizer, self.max_target_tokens)
        if not self.augmentation.changes_samples:
            return pack_frames(processor.encode_inputs([e.inputs for e in examples])) | text
        sounds = [processor.read_samples(e.inputs, e.origin or e.name) for e in examples]
        samples = pack_ragged("samples", [torch.from_numpy(each) for each in sounds])
        return pack_frames(processor.encode_samples(sounds)) | text | samples

    @property
    def augments(self) -> bool:
        """Whether training sounds are changed."""
        return bool(self.augmentation.used)

    def augment(
        self,
        batch: Batch,
        samples: NDArray[np.int64],
        partners: Callable[[], Batch],
        processor: SpeechProcessor,
        seed: int,
    ) -> Batch:
        """Return a micro-batch of sounds changed at random, and of features blanked in
        stretches."""
        return augment_sounds(self.augmentation, batch, samples, processor, seed)

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return the frames of each sound, padded."""
        return pad_frames(batch)

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Return the logits of every frame, or of an encoder-decoder the sums of losses."""
        read = self.inputs(batch)
        # Asked of the model and not said in the recipe: the same task trains both kinds.
        if isinstance(model, EmitsFrames):
            return FrameOutputs(model(**read), model.output_lengths(read["lengths"]))
        return model(**read, **pad_transcripts(batch, prompt_of(model)))

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        """Return the sum of -log p of the transcripts in nats, and the number of their tokens,
        counting one end each.

        Args:
            outputs: ``FrameOutputs``; or (2,) the sums of -log p of the tokens, and of the mean of
                -log p of all tokens of the vocabulary.
            batch: What ``encode`` gave.

        Raises:
            DataError: If a transcript is longer than can be emitted, unless such are skipped.
        """
        lengths = batch[offsets_of("text")].diff()
        if not isinstance(outputs, FrameOutputs):
            total, uniform = outputs
            smooth = self.label_smoothing
            smoothed = total if not smooth else (1 - smooth) * total + smooth * uniform
            count = lengths.sum().float()
            return Loss({"target": Term(smoothed, count)}, {"plain": total.detach()})
        # Of what cannot be emitted the loss is infinite: ``NamesTooLong`` has refused or named it.
        targets = frame_targets(batch)
        fits = targets.needed <= outputs.lengths
        total = frame_losses(outputs, batch, fits).sum()
        # Where none is left the loss is 0, with a gradient of 0.
        total = total + 0.0 * outputs.logits.sum()
        count = lengths[fits].sum().float()
        watched = {"plain": total.detach(), "left_out": (~fits).sum().float()}
        return Loss({"target": Term(total, count)}, watched)

    def beyond_frames(self, model: nn.Module, batch: Batch) -> list[int]:
        """Return the rows whose transcripts CTC cannot emit; an encoder-decoder can write all."""
        if not isinstance(model, EmitsFrames):
            return []
        frames = model.output_lengths(batch["lengths"])
        return (frame_targets(batch).needed > frames).nonzero().flatten().tolist()

    def build_objective(self, model: nn.Module, processor: SpeechProcessor) -> Objective:
        """Return the loss, which names the transcripts that are longer than can be emitted."""
        return NamesTooLong(self.loss, processor, skips=self.on_too_long == "skip")

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return loss in nats a token, the end of each transcript counted as one, not smoothed;
        and how many transcripts were left out, if any were."""
        found = {"loss": sums["plain"][0] / max(sums["target"][1], 1.0)}
        left_out = sums.get("left_out", (0.0, 0.0))[0]
        return found | ({"left_out": left_out} if left_out else {})

    # -------------------------------------------------------------------------------- transcribing
    def predict(
        self, model: nn.Module, inputs: Any, processor: SpeechProcessor, **options: Any
    ) -> Any:
        """Return what is said in a sound, or in each of several.

        Args:
            model: The trained model.
            inputs: A path, the bytes of a file, (samples, rate), or features (T, F); or a list of
                these.
            processor: The run's.
            **options: ``beams``, ``n_best``, and for CTC ``ngram_weight`` and ``length_bonus``;
                what is not given is as the task's settings say.

        Returns:
            Of each sound ``{"text": ..., "words": [{"word", "begin_s", "end_s"}, ...]}``; with
            ``n_best`` above 1 also ``alternatives``, each with a ``score``.
        """
        several = isinstance(inputs, list)
        sounds = inputs if several else [inputs]
        found = self.transcribe(model, sounds, processor, options, timed=True)
        rows = [each.as_row() for each in found]
        return rows if several else rows[0]

    def tabulate(
        self, model: nn.Module, inputs: Sequence[Any], processor: SpeechProcessor, **options: Any
    ) -> list[dict[str, Any]]:
        """Return ``text`` and ``words`` of each sound."""
        found = self.transcribe(model, inputs, processor, options, timed=True)
        return [each.as_row() for each in found]

    def transcribe(
        self,
        model: nn.Module,
        sources: Sequence[Any],
        processor: ReadsSpeech,
        options: dict[str, Any],
        *,
        timed: bool = False,
    ) -> list[Transcript]:
        """Return the transcript of each sound; arguments as of ``predict``. An encoder-decoder is
        asked when each word is said only where ``timed`` says so: it takes another pass."""
        windows = window_settings(self, processor)
        if isinstance(model, EmitsFrames):
            chosen = frame_decoding(self, options)
            ngrams = processor.ngrams if isinstance(processor, SpeechProcessor) else None
            return transcribe_by_frames(model, sources, processor, chosen, windows, ngrams)
        writing: DecodingOptions = writing_options(self, options)
        return transcribe_by_writing(model, sources, processor, writing, windows, timed=timed)

    def measure(
        self, model: nn.Module, examples: Sequence[Example], processor: SpeechProcessor
    ) -> dict[str, float]:
        """Return the metrics of what is written about held-out sounds, with one beam."""
        # One beam whatever the settings: a validation is to take seconds.
        options: dict[str, Any] = {"beams": 1}
        if isinstance(model, EmitsFrames):
            options["ngram_weight"] = 0.0
        found = self.transcribe(model, [each.inputs for each in examples], processor, options)
        references = [str(each.target) for each in examples]
        outputs = [each.text for each in found]
        return error_rates(self.metrics, outputs, references, self.normaliser)

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Transcribe held-out sounds, and compare with references and baselines; see
        ``evaluate_transcripts``."""
        return evaluate_transcripts(self, context)
