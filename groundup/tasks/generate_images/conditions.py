"""What pictures are asked for by: a class, a caption, or nothing.

Shape legend: B pictures, S tokens of a caption.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from groundup.contracts.processors import LabelProcessor, Targets
from groundup.core.errors import DataError, RecipeError, did_you_mean
from groundup.core.values import Batch, Example
from groundup.media.table_values import as_category
from groundup.processors.captioned_pictures import CaptionedPictures, caption_of
from groundup.processors.class_targets import SingleLabel
from groundup.processors.labelled import with_targets
from groundup.processors.targets import FixedTargets
from groundup.tasks.generate_images.flow import Asked

__all__ = ["ByCaption", "ByClass", "ByNothing", "Condition"]

_log = logging.getLogger("groundup")


@dataclass(frozen=True)
class Condition(ABC):
    """What pictures are asked for by.

    Attributes:
        dropout: Share of the training pictures of which it is not told.
    """

    spec: ClassVar[dict[str, str]] = {}
    word: ClassVar[str] = ""
    """What a picture is asked for by, as messages have it; empty: by nothing."""

    dropout: float

    def fit(self, processor: Any, examples: Callable[[], Iterator[Any]]) -> LabelProcessor:
        """Return the processor with what it has to know of the training split.

        Raises:
            DataError: If a picture has none of what it is asked for by.
            RecipeError: If the processor cannot read it.
        """
        # Training would go well, and only the pictures would show that no caption was read.
        if isinstance(processor, CaptionedPictures):
            raise RecipeError(
                "recipe.task.condition",
                f"is {self.word or 'none'}, but the processor is one of captions, which would not"
                " be read",
                "Set condition: text, or choose processor: image",
            )
        return with_targets(processor, examples, self._targets, 0)

    @abstractmethod
    def _targets(self, targets: Iterable[Any]) -> Targets:
        """Return what is asked for, of all training pictures."""

    @abstractmethod
    def encode(self, examples: Sequence[Example], processor: Any) -> Batch:
        """Return what the pictures are asked for by."""

    @abstractmethod
    def take_away(self, batch: Batch, which: Tensor, processor: Any) -> Batch:
        """Return the batch with nothing asked for where ``which`` (B,) says so."""

    def ask(self, prompts: Sequence[Any], processor: Any) -> Asked:
        """Return what prompts ask for.

        Raises:
            DataError: If a prompt cannot be asked for.
        """
        words = ["" if prompt is None else as_category(prompt) for prompt in prompts]
        if not self.dropout and not all(word.strip() for word in words):
            problem = (
                f"is empty, but the run was trained with {self.word}_dropout 0, only with a"
                f" {self.word}"
            )
            raise DataError("prompt", problem, self._instead(processor))
        told = self._tell(words, processor)
        # Of the same shapes, so that both are asked in one pass.
        everywhere = torch.ones(len(prompts), dtype=torch.bool)
        return Asked(told, self.take_away(told, everywhere, processor))

    @abstractmethod
    def _tell(self, words: Sequence[str], processor: Any) -> Batch: ...

    def _instead(self, processor: Any) -> str:
        """Return what to do where a prompt is empty and must not be."""
        return "Ask for something"

    def check_guidance(self, guidance: float) -> None:
        """Check that a run can be guided so.

        Raises:
            DataError: If it was not trained for it.
        """
        if guidance == 1.0:
            return
        if not self.word:
            raise DataError(
                "guidance",
                f"is {guidance:g}, but the run was trained without classes or captions to guide by",
                "Remove it, or train with task.condition: class or text",
            )
        if not self.dropout:
            raise DataError(
                "guidance",
                f"is {guidance:g}, but the run was trained with {self.word}_dropout 0: the model"
                f" does not know pictures without a {self.word}, which guidance compares with",
                f"Remove it, or train with task.{self.word}_dropout: 0.1",
            )


class ByNothing(Condition):
    """Any pictures like those of the training split."""

    def _targets(self, targets: Iterable[Any]) -> Targets:
        return FixedTargets(())

    def encode(self, examples: Sequence[Example], processor: Any) -> Batch:
        """Return nothing."""
        return {}

    def take_away(self, batch: Batch, which: Tensor, processor: Any) -> Batch:
        """Return the batch as it is."""
        return batch

    def ask(self, prompts: Sequence[Any], processor: Any) -> Asked:
        """Return nothing.

        Raises:
            DataError: If a prompt is not empty.
        """
        for prompt in filter(None, prompts):
            raise DataError(
                str(prompt),
                "is asked for, but the run was trained without classes or captions",
                "Ask for the empty text, or train with task.condition: class or text",
            )
        return Asked()

    def _tell(self, words: Sequence[str], processor: Any) -> Batch:
        return {}


class ByClass(Condition):
    """Pictures of a class; the number after the last says that nothing is asked for."""

    spec: ClassVar[dict[str, str]] = {"classes": "int64 (B,)"}
    word: ClassVar[str] = "class"

    def _targets(self, targets: Iterable[Any]) -> Targets:
        seen = list(targets)
        names = {as_category(target) for target in seen}
        # One may be enough, to learn some pictures of one's own.
        if len(names) == 1 and "" not in names:
            return SingleLabel([names.pop()], counts=[len(seen)])
        return SingleLabel.fit(seen)

    def encode(self, examples: Sequence[Example], processor: LabelProcessor) -> Batch:
        """Return the classes' numbers."""
        return {"classes": processor.targets.encode([each.target for each in examples])}

    def take_away(self, batch: Batch, which: Tensor, processor: LabelProcessor) -> Batch:
        """Return the batch with the number after the last class."""
        classes = torch.where(which, len(processor.labels), batch["classes"])
        return {**batch, "classes": classes}

    def _tell(self, words: Sequence[str], processor: LabelProcessor) -> Batch:
        # By name, as they are written in files and on the command line.
        labels = [as_category(label) for label in processor.labels]
        numbers = []
        for word in words:
            if word and word not in labels:
                problem = (
                    f"is no class of the run; {did_you_mean(word, labels)}known:"
                    f" {', '.join(labels[:12])}"
                )
                raise DataError(word, problem, "Choose one of these")
            numbers.append(labels.index(word) if word else len(labels))
        return {"classes": torch.tensor(numbers, dtype=torch.int64)}

    def _instead(self, processor: LabelProcessor) -> str:
        return f"Ask for one of {', '.join(map(as_category, processor.labels[:12]))}"


class ByCaption(Condition):
    """Pictures of what a text says; a text without tokens asks for nothing."""

    spec: ClassVar[dict[str, str]] = {"text": "int64 (B, S)", "text_lengths": "int64 (B,)"}
    word: ClassVar[str] = "caption"

    def fit(self, processor: Any, examples: Callable[[], Iterator[Any]]) -> LabelProcessor:
        """Return the processor; see ``Condition``."""
        if not isinstance(processor, CaptionedPictures):
            problem = "reads no captions, which task.condition: text asks for pictures by"
            raise RecipeError("recipe.processor", problem, "Choose captioned_pictures")
        return processor

    def _targets(self, targets: Iterable[Any]) -> Targets:
        return FixedTargets(())

    def encode(self, examples: Sequence[Example], processor: CaptionedPictures) -> Batch:
        """Return the captions' tokens, and how many each has."""
        return processor.encode_captions([caption_of(example) for example in examples])

    def take_away(self, batch: Batch, which: Tensor, processor: Any) -> Batch:
        """Return the batch with no token that is told."""
        return {**batch, "text_lengths": batch["text_lengths"].masked_fill(which, 0)}

    def _tell(self, words: Sequence[str], processor: CaptionedPictures) -> Batch:
        # Made all the same: a part of the prompt may be known, but nobody should wonder.
        for word in words:
            new = processor.check_prompt(word)
            if new:
                _log.warning("%r: no caption of the training split has %s", word, new)
        told = processor.encode_captions(words)
        # The model is told either, by one name.
        text = told.pop("text_states", told["text"])
        return {**told, "text": text}
