"""Texts as the states of a trained model of texts, which travels with the processor and stays as it
is.

Shape legend: N texts, T tokens, D width of the states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.classifier_models import TokenStates
from groundup.contracts.models import HiddenStates, ModelConfig, context_length_of
from groundup.contracts.processors import LabelProcessor, Processor, ProcessorConfig, TextProcessor
from groundup.contracts.trained_models import TrainedModel
from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.core.registry import processor
from groundup.core.values import Batch
from groundup.processors.labelled import Labelled
from groundup.processors.saved_files import read_json, saved_settings, write_json
from groundup.processors.saved_model import load_model, save_model
from groundup.processors.targets import FixedTargets

__all__ = ["EncodedTexts", "EncodedTextsConfig", "texts_encoded_by"]

_WEIGHTS = "encoder.safetensors"
_AT_ONCE = 64


class EncodedTexts(LabelProcessor):
    """What turns texts into the states of a model that is not trained.

    Args:
        inputs: The tokenizer.
        max_length: Texts are cut to this many tokens.
        config: The model's settings.
        model: It shows the states of tokens, with its weights.
    """

    targets = FixedTargets(())

    def __init__(
        self, inputs: TextProcessor, max_length: int, config: ModelConfig, model: nn.Module
    ) -> None:
        self.inputs = inputs
        self.max_length = max_length
        self._config = config
        self._model = model.eval().requires_grad_(False)
        self._texts = Labelled(inputs, self.targets, max_length, head="none")
        self.cut = self._texts.cut
        self.width = self._states(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1)).shape[2]

    @property
    def vocabulary_size(self) -> int:
        """0: what is read are states."""
        return 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(0, D)."""
        return (0, self.width)

    def _states(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        with torch.no_grad():
            if isinstance(self._model, TokenStates):
                return self._model.states(tokens=tokens, lengths=lengths.long())
            assert isinstance(self._model, HiddenStates)
            # It sees what comes before alone, and padding comes behind.
            return self._model.hidden(tokens)

    def encode_inputs(self, inputs: Sequence[Any]) -> Batch:
        """Return ``inputs`` (N, T, D) float32, 0 in the padding, of ``tokens`` (N, T), and
        ``lengths`` (N,)."""
        read = self._texts.encode_inputs(inputs)
        tokens = read["tokens"]
        lengths = read["lengths"]
        # In parts: a split of captions is encoded at once, and its states are larger than texts.
        found = [
            self._states(tokens[first : first + _AT_ONCE], lengths[first : first + _AT_ONCE])
            for first in range(0, len(tokens), _AT_ONCE)
        ]
        # Batches of no text are asked for where there are no examples of a split.
        states = torch.cat(found) if found else torch.zeros(0, 1, self.width)
        inside = torch.arange(tokens.shape[1]) < lengths[:, None]
        told = states.float() * inside[..., None]
        return {"inputs": told, "tokens": tokens, "lengths": lengths}

    def as_list(self, inputs: Any) -> tuple[list[Any], bool]:
        """Return inputs as a list, and whether they were several."""
        several = isinstance(inputs, list | tuple)
        return (list(inputs) if several else [inputs]), several

    def save(self, folder: Path) -> None:
        """Write processor.json, the model's weights, and the tokenizer below ``inputs/``."""
        (folder / "inputs").mkdir(parents=True, exist_ok=True)
        self.inputs.save(folder / "inputs")
        model = save_model(folder / _WEIGHTS, self._config, self._model)
        saved = {"name": "encoded_texts", "max_length": self.max_length, "model": model}
        write_json(folder / "processor.json", saved)


def texts_encoded_by(trained: TrainedModel, max_length: int) -> EncodedTexts:
    """Return what reads texts by a trained model.

    Raises:
        RecipeError: If it is no model of texts that shows states, or reads fewer tokens.
    """
    tokenizer = trained.processor.reader
    fits = isinstance(trained.model, TokenStates | HiddenStates)
    if not fits or not isinstance(tokenizer, TextProcessor):
        raise RecipeError(
            "recipe.processor.encoder",
            f"{trained.where} is a run of task {trained.task}, which shows no states of texts",
            "Name a run of bert, transformer_classifier, rnn or gpt on texts",
        )
    # Learned positions end there.
    longest = context_length_of(trained.config)
    if 0 < longest < max_length:
        problem = f"is {max_length}, but the encoder reads up to {longest} tokens"
        raise RecipeError("recipe.processor.max_tokens", problem, f"Set it to {longest}")
    return EncodedTexts(tokenizer, max_length, trained.config, trained.model)


@processor("encoded_texts")
class EncodedTextsConfig(ProcessorConfig):
    """Not for recipes: captioned_pictures makes it where it has an encoder."""

    def fit(self, texts: Callable[[], Iterator[Any]]) -> Processor:
        """Raise an error: nothing says what reads the texts."""
        raise RecipeError(
            "recipe.processor.name",
            "encoded_texts is made by captioned_pictures",
            "Write {name: captioned_pictures, encoder: runs/NAME}",
        )

    @classmethod
    def load(cls, folder: Path) -> EncodedTexts:
        """Return the processor that was saved to ``folder``.

        Raises:
            DataError: If one of its files is missing or damaged.
        """
        inner = read_json(folder / "inputs" / "processor.json")
        with saved_settings(folder) as saved:
            tokenizer = registry.lookup("processor", str(inner["name"])).load(folder / "inputs")
            where = str(folder / "processor.json")
            config, model = load_model(folder / _WEIGHTS, saved["model"], where)
            return EncodedTexts(tokenizer, int(saved["max_length"]), config, model)
