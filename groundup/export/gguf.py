"""A GGUF file, held against llama.cpp and against our own reload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.core.contracts.models import ModelConfig
from groundup.core.contracts.processors import Processor
from groundup.core.errors import CheckpointError
from groundup.export.verify import Model, Reader, Sample
from groundup.formats.llama_cpp import LlamaServer
from groundup.formats.model_types import as_gguf
from groundup.weights.gguf import model_in, save_gguf

__all__ = ["FILE", "KINDS", "LONGEST", "LlamaCpp", "reload_file", "write_file"]

FILE = "model.gguf"
LONGEST = 1024  # tokens of context to compare in
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
    return Model("our reload of the file", model_in(path))


class LlamaCpp(Reader):
    """A file opened by llama.cpp, its keys and values in float32. Each compared position is one
    call."""

    slow, log_probabilities = True, True

    def __init__(
        self, path: Path, vocabulary: int, context: int, letter: int, *, exact: bool = True
    ) -> None:
        self.server = LlamaServer(path, context, torch.get_num_threads(), _NOTHING)
        self.name, self.vocabulary = self.server.name, vocabulary
        self.characters = context // 4  # of a text that fits, whatever its tokens are
        self.letter, self.exact = letter, exact

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
            problem = f"answers without probabilities of tokens: {str(answer)[:200]}"
            raise CheckpointError(
                self.name, problem, f"{_NOTHING}. Try another version of xllamacpp"
            )
        return list(logs["content"][0]["top_logprobs"])

    def _after(self, prompt: list[int] | str) -> Tensor:
        """Return (V,) log-probabilities of the next token."""
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
        written: list[int] = tokens[: sample.prompt]
        while len(written) < len(tokens):
            written.append(int(self._likeliest(written, 1)[0]["id"]))
        return written[sample.prompt :]

    def other_tokens(
        self, processor: Any, texts: Sequence[str], chats: Sequence[tuple[str, list[int]]] = ()
    ) -> str | None:
        """Return the first text that its tokenizer reads as other tokens than ours, or None.

        It does not show its tokens: what it predicts after the text is compared with what it
            predicts after ours. With
        weights that are not fp32 it rounds what it multiplies them with, as the number of tokens at
        once has it.

        Args:
            processor: What the file's tokenizer is to us.
            texts: Plain ones.
            chats: What a chat template makes of conversations, and the tokens of each.
        """
        begins = (
            [processor.begin_id] if processor.chat_template is None or processor.begin_token else []
        )
        texts = [text[: self.characters] for text in texts]
        read = [[*begins, *ours.tolist()] for ours in processor.encode_batch(texts)]
        # It puts the start token before every text, and takes it out of a template's first.
        told = [(text.removeprefix(processor.begin_token or ""), tokens) for text, tokens in chats]
        for text, ours in [*zip(texts, read, strict=True), *told]:
            its, mine = self._after(text), self._after(ours)
            same = (
                (its - mine).abs().max() < 1e-3
                if self.exact
                else (mine.exp() * (mine - its)).sum() < 0.1
            )
            if not same:
                return text
        return None
