"""What stands in for llama.cpp in fast tests: a server of the same requests over our own model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from groundup.core.registry import lookup
from groundup.models.gpt import GPTConfig
from groundup.weights.gguf import read_gguf

__all__ = ["FakeServer"]


class FakeServer:
    """Answers greedy requests by a forward pass for each token; ends a text at token 7, as a file's
    end token does."""

    def __init__(
        self, path: Path, context: int, threads: int, remedy: str, *, exact: bool = True
    ) -> None:
        assert lookup("model", "gpt") is GPTConfig
        settings, weights, _ = read_gguf(path)
        self.name, self.context, self.remedy, self.opened = (
            "llama.cpp (fake)",
            context,
            remedy,
            path,
        )
        self.model = GPTConfig(**settings).build().eval()
        self.model.load_state_dict(weights)
        self.requests: list[dict[str, Any]] = []

    @torch.no_grad()
    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append({**request, "prompt": list(request["prompt"])})
        context, written = list(request["prompt"]), list[int]()
        assert len(context) + request["n_predict"] <= self.context
        while len(written) < request["n_predict"]:
            logits = self.model(torch.tensor([context]))[0, -1]
            for token, bias in request["logit_bias"]:
                assert bias is False
                logits[token] = -torch.inf
            if "penalties" in request["samplers"]:
                seen = torch.tensor(sorted(set(context[-request["repeat_last_n"] :])))
                values = logits[seen]
                logits[seen] = torch.where(
                    values > 0,
                    values / request["repeat_penalty"],
                    values * request["repeat_penalty"],
                )
            written.append(int(logits.argmax()))
            context.append(written[-1])
            if written[-1] == 7:
                break
        return {"choices": [], "__verbose": {"tokens": written}}
