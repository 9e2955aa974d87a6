"""A GGUF file, checked against llama.cpp and against groundup's own reload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.core.errors import CheckpointError
from groundup.export.verify import Model, Reader, Sample
from groundup.formats.llama_cpp import LlamaServer
from groundup.formats.model_types import as_gguf
from groundup.weights.gguf import model_in, save_gguf

__all__ = ["FILE", "KINDS", "LONGEST", "LlamaCpp", "reload_file", "write_file"]

FILE = "model.gguf"
# tokens of context to compare in
LONGEST = 1024
_NOTHING = "Nothing was exported, and the run is as it was"
KINDS = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}


def write_file(
    path: Path,
    config: ModelConfig,
    weights: dict[str, Tensor],
    processor: Processor,
    dtype: str,
    name: str,
) -> None:
    """Write the file.

    Raises:
        CheckpointError: If GGUF files have no place for such a model or tokenizer.
    """
    as_gguf(config, "Export it to onnx")
    save_gguf(path, config, weights, processor, KINDS[dtype], name)


def reload_file(path: Path) -> Model:
    """Return the model in a file, from the file alone, its weights in float32."""
    return Model("groundup's reload of the file", model_in(path))


class LlamaCpp(Reader):
    """A file opened by llama.cpp, its keys and values in float32. Each compared position is one
    call."""

    slow = True
    log_probabilities = True

    def __init__(
        self, path: Path, vocabulary: int, context: int, letter: int, *, exact: bool = True
    ) -> None:
        self.server = LlamaServer(path, context, torch.get_num_threads(), _NOTHING)
        self.name = self.server.name
        self.vocabulary = vocabulary
        # of a text that fits, whatever its tokens are
        self.characters = context // 4
        self.letter = letter
        self.exact = exact

    def _likeliest(self, prompt: list[int] | str, number: int) -> list[dict[str, Any]]:
        """Return the likeliest next tokens, the first one first.

        The server says nothing of a token that is no whole character, so a letter is what it is
        made to write; what it says of the likeliest ones is from before that.
        """
        asked = {
            "prompt": prompt,
            "n_predict": 1,
            "temperature": 0,
            "logit_bias": [[self.letter, 1e4]],
        }
        answer = self.server.complete({**asked, "logprobs": number, "n_probs": number})
        logs = answer["choices"][0]["logprobs"]
        if not logs:
            raise CheckpointError(
                self.name,
                f"answers without probabilities of tokens: {str(answer)[:200]}",
                f"{_NOTHING}. Try another version of xllamacpp",
            )
        return list(logs["content"][0]["top_logprobs"])

    def _after(self, prompt: list[int] | str) -> Tensor:
        """Return (V,) log-probabilities of the next token."""
        # a token that the answer lacks stays NaN, which differs from everything
        found = torch.full((self.vocabulary,), float("nan"))
        for entry in self._likeliest(prompt, self.vocabulary):
            found[entry["id"]] = entry["logprob"]
        return found

    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (P, V) log-probabilities."""
        tokens = sample.inputs["tokens"][0].tolist()
        return torch.stack([self._after(tokens[: position + 1]) for position in positions])

    def continuation(self, sample: Sample) -> list[int]:
        """Return the tokens that it writes after the prompt, as many as the sample has."""
        tokens = sample.inputs["tokens"][0].tolist()
        text: list[int] = tokens[: sample.prompt]
        while len(text) < len(tokens):
            text.append(int(self._likeliest(text, 1)[0]["id"]))
        return text[sample.prompt :]

    def find_other_tokens(
        self, processor: Any, texts: Sequence[str], chats: Sequence[tuple[str, list[int]]] = ()
    ) -> str | None:
        """Return the first text that its tokenizer reads as other tokens than groundup's, or None.

        It does not show its tokens: what it predicts after the text is compared with what it
        predicts after groundup's tokens. With weights that are not fp32 it rounds what it
        multiplies them with, as the number of tokens at once has it.

        Args:
            processor: What groundup reads the file's tokenizer as.
            texts: Plain ones.
            chats: What a chat template makes of conversations, and the tokens of each.
        """
        begins = processor.chat_template is None or processor.begin_token
        begin = [processor.begin_id] if begins else []
        texts = [text[: self.characters] for text in texts]
        plain = [
            (text, [*begin, *tokens.tolist()])
            for text, tokens in zip(texts, processor.encode_batch(texts), strict=True)
        ]
        # It puts the start token before every text, and takes it out of a template's first.
        start = processor.begin_token or ""
        for text, tokens in [*plain, *((text.removeprefix(start), own) for text, own in chats)]:
            if not self._is_same(self._after(text), self._after(tokens)):
                return text
        return None

    def _is_same(self, one: Tensor, two: Tensor) -> bool:
        """Return whether log-probabilities (V,) are of the same tokens."""
        if self.exact:
            return bool((one - two).abs().max() < 1e-3)
        return bool((two.exp() * (two - one)).sum() < 0.1)
