"""Texts and pictures as tokens of one vocabulary: those of a tokenizer, one that begins a picture,
and the codes of a trained autoencoder, which travels with the processor.

Shape legend: V tokens of texts, K codes, N pictures, P codes of a picture, R rows and S columns of
    codes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.pictures import PictureCodes
from groundup.contracts.processors import (
    InputProcessor,
    Pictures,
    Processor,
    ProcessorConfig,
    TextProcessor,
)
from groundup.contracts.trained_models import TrainedModel
from groundup.core import registry
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import processor
from groundup.core.settings import PathText, setting
from groundup.media.pixels import to_bytes
from groundup.processors.saved_files import read_json, saved_settings, write_json
from groundup.processors.saved_model import load_model, save_model
from groundup.processors.tokenizer_section import read_tokenizer_section

__all__ = ["PictureTokens", "PictureTokensConfig"]

_BEGIN = "<|picture|>"
_WEIGHTS = "autoencoder.safetensors"
_AT_ONCE = 64


class PictureTokens(TextProcessor):
    """A tokenizer whose vocabulary goes on with pictures: token V begins one, and V + 1 + k is code
    k of the autoencoder.

    Args:
        tokenizer: Of the texts.
        reader: Makes what the autoencoder reads of pictures.
        config: The autoencoder's settings.
        model: The autoencoder, with its weights.
    """

    def __init__(
        self,
        tokenizer: TextProcessor,
        reader: InputProcessor,
        config: ModelConfig,
        model: nn.Module,
    ) -> None:
        assert isinstance(model, PictureCodes)
        assert isinstance(reader, Pictures)
        self.tokenizer = tokenizer
        self.pictures = reader
        self._config = config
        self._model = model.eval().requires_grad_(False)
        self.notes = (*tokenizer.notes, *reader.notes)
        self.grid = model.grid
        self.codebook_size = model.codebook_size
        # Whoever reports what was cut asks the processor alone.
        self.__dict__["cut"] = tokenizer.cut
        self.stripping_tokens = tokenizer.stripping_tokens
        self.start_token = tokenizer.start_token
        self.begin_token = tokenizer.begin_token
        self.padding_id = tokenizer.padding_id
        self.other_ends = tokenizer.other_ends
        self.special_tokens = {**tokenizer.special_tokens, _BEGIN: self.picture_id}

    # ---------------------------------------------------------------------------------------- texts
    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are, of texts and of pictures."""
        return self.picture_id + 1 + self.codebook_size

    @property
    def picture_id(self) -> int:
        """The token that begins a picture, V."""
        return self.tokenizer.vocabulary_size

    @property
    def picture_length(self) -> int:
        """How many tokens a picture has, without the one that begins it."""
        return self.grid[0] * self.grid[1]

    @property
    def end_id(self) -> int:
        """The token that ends every text."""
        return self.tokenizer.end_id

    @property
    def begin_id(self) -> int:
        """The token that every text begins with."""
        return self.tokenizer.begin_id

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Return the tokens of each text."""
        return self.tokenizer.encode_batch(texts)

    def encode_parts(
        self, texts: Sequence[str], continues: Sequence[bool]
    ) -> list[NDArray[np.int32]]:
        """Return the tokens of each text, some of which go on where another ended."""
        return self.tokenizer.encode_parts(texts, continues)

    def decode(self, tokens: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text; of pictures nothing, or with ``keep_special`` where one begins."""
        parts: list[str] = []
        text: list[int] = []
        for token in tokens:
            # A text goes on behind a picture: its bytes are decoded together.
            if token < self.picture_id:
                text.append(token)
            elif token == self.picture_id and keep_special:
                parts.append(self.tokenizer.decode(text, keep_special=True) + _BEGIN)
                text = []
        return "".join([*parts, self.tokenizer.decode(text, keep_special=keep_special)])

    def token_bytes(self) -> NDArray[np.int32]:
        """Return how many bytes of text each token stands for: those of pictures for none."""
        pictures = np.zeros(1 + self.codebook_size, dtype=np.int32)
        return np.concatenate([self.tokenizer.token_bytes(), pictures])

    def continuations(self) -> NDArray[np.bool_]:
        """Return which tokens go on with the word of the token before them."""
        pictures = np.zeros(1 + self.codebook_size, dtype=np.bool_)
        return np.concatenate([self.tokenizer.continuations(), pictures])

    # ------------------------------------------------------------------------------------- pictures
    def encode_pictures(self, pictures: Sequence[Any]) -> Tensor:
        """Return int64 (N, P), the tokens of each picture without the one that begins it.

        Raises:
            DataError: If a picture cannot be read, or has another size.
        """
        model = self._model
        assert isinstance(model, PictureCodes)
        found = [torch.zeros(0, self.picture_length, dtype=torch.int64)]
        with torch.no_grad():
            for first in range(0, len(pictures), _AT_ONCE):
                read = self.pictures.encode_inputs(pictures[first : first + _AT_ONCE])
                found.append(model.codes(read["inputs"]).flatten(1))
        return torch.cat(found) + self.picture_id + 1

    def draw(self, tokens: Tensor) -> NDArray[np.uint8]:
        """Return the pictures (N, H, W) or (N, H, W, 3) that tokens (N, P) stand for.

        Raises:
            DataError: If they are no picture's: too many or too few, or a token that is no code.
        """
        if tokens.dim() != 2 or tokens.shape[1] != self.picture_length:
            raise DataError(
                "tokens",
                f"have shape {tuple(tokens.shape)}; allowed: (pictures, {self.picture_length})",
                "Give all codes of each picture",
            )
        model, reader = self._model, self.pictures
        assert isinstance(model, PictureCodes)
        assert isinstance(reader, Pictures)
        with torch.no_grad():
            codes = tokens.cpu() - self.picture_id - 1
            drawn = model.from_codes(codes.view(-1, *self.grid))
        return to_bytes(reader.to_pixels(drawn))

    # ---------------------------------------------------------------------------------------- files
    def save(self, folder: Path) -> None:
        """Write processor.json, the autoencoder's weights, and the files of the tokenizer and of
        what reads pictures below ``tokenizer/`` and ``pictures/``."""
        for name, part in (("tokenizer", self.tokenizer), ("pictures", self.pictures)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            part.save(folder / name)
        model = save_model(folder / _WEIGHTS, self._config, self._model)
        write_json(folder / "processor.json", {"name": "picture_tokens", "autoencoder": model})

    @classmethod
    def load(cls, folder: Path) -> PictureTokens:
        """Return the processor that ``save`` wrote to ``folder``.

        Raises:
            DataError: If a file is missing or damaged.
        """
        tokenizer = _load_part(folder / "tokenizer")
        reader = _load_part(folder / "pictures")
        where = str(folder / "processor.json")
        with saved_settings(folder) as saved:
            made, model = load_model(folder / _WEIGHTS, saved["autoencoder"], where)
        if not isinstance(tokenizer, TextProcessor) or not isinstance(reader, InputProcessor):
            problem = "names no tokenizer and reader of pictures"
            raise DataError(where, problem, "Restore the run's folder")
        return cls(tokenizer, reader, made, model)


def _load_part(folder: Path) -> Processor:
    path = folder / "processor.json"
    name = str(read_json(path).get("name"))
    found: Processor = registry.lookup("processor", name, f"{path}: name").load(folder)
    return found


@processor("picture_tokens")
class PictureTokensConfig(ProcessorConfig):
    """A tokenizer of captions, and the codes of a run that has learned to autoencode pictures.

    Source:
        Ramesh et al., 2021 (arXiv:2102.12092), section 2: one vocabulary for both.
    """

    reads = "examples"

    autoencoder: PathText = setting(..., "Folder of a run of task autoencode, whose codes are used")
    checkpoint: str | int = setting("best", "Of that run: best, last, or a step")
    tokenizer: dict[str, Any] = setting(
        {"name": "bpe"},
        "The processor of the captions, as a section processor has it: bpe, characters, bytes,"
        " tokenizer_json",
    )

    def fit(self, texts: Callable[[], Iterator[Any]]) -> PictureTokens:
        """Raise an error: the model of another run is needed, see ``fit_with``."""
        problem = "is fitted with the model of another run"
        raise RecipeError("recipe.processor", problem, "Train with it: groundup train")

    @property
    def trained_run(self) -> tuple[str, str | int]:
        """The autoencoder's run, and its checkpoint."""
        return self.autoencoder, self.checkpoint

    def fit_with(
        self, trained: TrainedModel, examples: Callable[[], Iterator[Any]]
    ) -> PictureTokens:
        """Return the processor, its tokenizer learned from the training captions.

        Raises:
            RecipeError: If the run has learned something else than codes of pictures.
            DataError: If the data are no pictures with captions.
        """
        reader = trained.processor.reader
        # Before all captions are read.
        fits = isinstance(trained.model, PictureCodes) and isinstance(reader, InputProcessor)
        if not fits or not isinstance(reader, Pictures):
            raise RecipeError(
                "recipe.processor.autoencoder",
                f"{trained.where} is a run of task {trained.task}, and no autoencoder of pictures",
                "Name a run of task autoencode",
            )
        assert isinstance(reader, InputProcessor)
        captions = [_caption_of(example) for example in examples()]
        section = read_tokenizer_section(self.tokenizer, "recipe.processor.tokenizer")
        tokenizer = section.fit(lambda: iter(captions))
        assert isinstance(tokenizer, TextProcessor), "what reads texts is a TextProcessor"
        return PictureTokens(tokenizer, reader, trained.config, trained.model)

    @classmethod
    def load(cls, folder: Path) -> PictureTokens:
        """Return the processor that was saved to ``folder``."""
        return PictureTokens.load(folder)


def _caption_of(example: Any) -> str:
    caption = example.target
    if not isinstance(caption, str) or not caption.strip():
        raise DataError(
            example.origin or f"example {example.name}",
            f"has no caption, but {caption!r:.40}",
            "Use pictures with captions, such as data: captioned_images",
        )
    return caption
