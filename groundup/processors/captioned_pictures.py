"""A processor of pictures together with what reads their captions: what a model that makes pictures
from texts travels with.

Shape legend: N pictures or texts, S tokens of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from groundup.contracts.processors import (
    InputProcessor,
    LabelProcessor,
    Pictures,
    ProcessorConfig,
    TextProcessor,
)
from groundup.contracts.trained_models import TrainedModel
from groundup.core import registry
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import processor
from groundup.core.settings import PathText, setting, validate
from groundup.core.values import Batch, Example
from groundup.processors.encoded_texts import texts_encoded_by
from groundup.processors.labelled import Labelled
from groundup.processors.saved_files import read_json, saved_settings, write_json
from groundup.processors.targets import FixedTargets
from groundup.processors.tokenizer_section import read_tokenizer_section

__all__ = ["CaptionedPictures", "CaptionedPicturesConfig", "caption_of"]

_PICTURES = "recipe.processor.pictures"
_TOKENIZER = {"name": "bpe", "vocab_size": 1000}


class CaptionedPictures(LabelProcessor):
    """What turns pictures into tensors, and their captions into tokens.

    Args:
        inputs: What reads the pictures.
        captions: What reads the captions.
        seen: The tokens that training captions have, others were never learned; None: a trained
            encoder knows them all.
    """

    # A caption is no class: no head predicts it.
    targets = FixedTargets(())
    max_length = 0

    def __init__(
        self, inputs: InputProcessor, captions: LabelProcessor, seen: Sequence[int] | None
    ) -> None:
        self.inputs = inputs
        self.captions = captions
        self.seen = None if seen is None else frozenset(seen)
        self.notes = (*inputs.notes, *captions.notes)
        self.cut = captions.cut

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return tuple(self.inputs.input_shape)  # type: ignore[union-attr]

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, C, H, W) float32 of pictures.

        Raises:
            DataError: If one cannot be read or does not fit.
        """
        assert isinstance(self.inputs, InputProcessor)
        return self.inputs.encode_inputs(inputs)

    def encode_captions(self, texts: Sequence[str]) -> Batch:
        """Return ``text`` (N, S) int64 tokens, ``text_lengths`` (N,), 0 of an empty text, and of a
        trained encoder ``text_states`` (N, S, D) float32; what is too long is cut and counted."""
        read = self.captions.encode_inputs(list(texts))
        lengths = read["lengths"]
        for row, text in enumerate(texts):
            # The tokens around a text say nothing by themselves.
            if not text.strip():
                lengths[row] = 0
        found = {"text": read["tokens"], "text_lengths": lengths}
        if "inputs" in read:
            found["text_states"] = read["inputs"]
        return found

    def check_prompt(self, text: str) -> str:
        """Return which tokens of a text no training caption has, in quotes; empty: none.

        Raises:
            DataError: If the text is longer than what is read of it.
        """
        tokenizer = self.captions.tokenizer
        # Whoever asks reads the answer: here nothing is cut, as it may be among many captions.
        (tokens,) = tokenizer.encode_batch([text])
        room = self.captions.max_length - 2 * (tokenizer.frame is not None)
        if len(tokens) > room:
            raise DataError(
                f"{text[:40]!r}",
                f"has {len(tokens)} tokens, but the run reads up to {room} of a text",
                "Ask for less, or train with a larger processor.max_tokens",
            )
        # A trained encoder has seen more than these captions.
        if self.seen is None:
            return ""
        new = dict.fromkeys(token for token in tokens.tolist() if token not in self.seen)
        return ", ".join(repr(tokenizer.decode([token])) for token in new)

    def as_list(self, inputs: Any) -> tuple[list[Any], bool]:
        """Return inputs as a list, and whether they were several."""
        several = isinstance(inputs, list | tuple)
        return (list(inputs) if several else [inputs]), several

    def save(self, folder: Path) -> None:
        """Write processor.json, and the two parts below ``inputs/`` and ``captions/``."""
        for name, part in (("inputs", self.inputs), ("captions", self.captions)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            part.save(folder / name)
        seen = None if self.seen is None else sorted(self.seen)
        saved = {"name": "captioned_pictures", "seen": seen}
        write_json(folder / "processor.json", saved)


def caption_of(example: Example) -> str:
    """Return an example's caption.

    Raises:
        DataError: If it has none.
    """
    caption = example.target
    if not isinstance(caption, str) or not caption.strip():
        raise DataError(
            example.origin or f"example {example.name}",
            f"has no caption, but {caption!r:.40}",
            "Use pictures with captions, such as data: captioned_images",
        )
    return caption


@processor("captioned_pictures")
class CaptionedPicturesConfig(ProcessorConfig):
    """Pictures and their captions: for task generate_images with condition: text."""

    reads: ClassVar[Literal["texts", "examples"]] = "examples"

    pictures: dict[str, Any] = setting(
        {"name": "image"}, "The processor of the pictures, as a section processor has it"
    )
    tokenizer: dict[str, Any] | None = setting(
        None,
        "The processor of the captions, as a section processor has it: bpe, characters, bytes,"
        " tokenizer_json; null: the encoder's, or bpe of 1,000 tokens",
    )
    encoder: PathText | None = setting(
        None,
        "Folder of a run of bert, transformer_classifier, rnn or gpt that reads the captions and"
        " stays as it is; null: the generator's own encoder learns to read them",
    )
    max_tokens: int = setting(
        32, "The most tokens of a caption; a longer one is cut at its end and counted", ge=3
    )

    @model_validator(mode="after")
    def _one_tokenizer(self) -> CaptionedPicturesConfig:
        if self.encoder is not None and self.tokenizer is not None:
            raise ValueError(
                "tokenizer has no effect with encoder, which has its own. Remove one of them"
            )
        return self

    @property
    def trained_run(self) -> tuple[str, str | int] | None:
        """The run whose model encodes captions, and its checkpoint."""
        return None if self.encoder is None else (self.encoder, "best")

    def fit_with(
        self, trained: TrainedModel, examples: Callable[[], Iterator[Example]]
    ) -> CaptionedPictures:
        """Return the processor, which encodes captions by a trained model.

        Raises:
            RecipeError: If that shows no states of texts.
            DataError: If a picture cannot be read, or has no caption.
        """
        texts = texts_encoded_by(trained, self.max_tokens)
        # Found now, and not in the middle of an epoch.
        for example in examples():
            caption_of(example)
        return CaptionedPictures(self._fit_pictures(examples), texts, None)

    def fit(self, texts: Callable[[], Iterator[Example]]) -> CaptionedPictures:
        """Return the processor, learned from the training pictures and captions.

        Raises:
            RecipeError: If a section is of another kind of processor.
            DataError: If a picture cannot be read, or has no caption.
        """
        tokenizer = read_tokenizer_section(
            self.tokenizer or _TOKENIZER, "recipe.processor.tokenizer"
        )
        captions = [caption_of(example) for example in texts()]
        inputs = self._fit_pictures(texts)
        reader = tokenizer.fit(lambda: iter(captions))
        assert isinstance(reader, TextProcessor), "what reads texts is a TextProcessor"
        # What the model never learned of, though the tokenizer can spell it.
        seen = {token for tokens in reader.encode_batch(captions) for token in tokens.tolist()}
        labelled = Labelled(reader, FixedTargets(()), self.max_tokens, head="none")
        return CaptionedPictures(inputs, labelled, sorted(seen))

    def _fit_pictures(self, examples: Callable[[], Iterator[Example]]) -> InputProcessor:
        section = dict(self.pictures)
        name = str(section.pop("name", "image"))
        found = registry.lookup("processor", name, f"{_PICTURES}.name")
        # A tokenizer would read the names of files.
        if found.reads == "examples":
            inputs = validate(found, section, _PICTURES).fit(examples)
            if isinstance(inputs, Pictures) and isinstance(inputs, InputProcessor):
                return inputs
        problem = f"is {name}, which makes no pictures"
        raise RecipeError(f"{_PICTURES}.name", problem, "Choose image")

    @classmethod
    def load(cls, folder: Path) -> CaptionedPictures:
        """Return the processor that was saved to ``folder``.

        Raises:
            DataError: If one of its files is missing or damaged.
        """
        # Each in a folder of its own: both write a processor.json.
        parts = []
        for name in ("inputs", "captions"):
            saved = read_json(folder / name / "processor.json")
            kind = registry.lookup("processor", str(saved.get("name")), f"{folder / name}: name")
            parts.append(kind.load(folder / name))
        inputs, captions = parts
        with saved_settings(folder) as saved:
            if not isinstance(inputs, InputProcessor) or not isinstance(captions, LabelProcessor):
                raise ValueError("no processor of pictures and one of captions")
            return CaptionedPictures(inputs, captions, saved["seen"])
