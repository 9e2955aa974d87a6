"""A module of the library ``transformers`` under groundup's names, with the forward pass that its
tasks call.

Shape legend: B rows, T positions, V vocabulary, K classes, N boundaries.
"""

from __future__ import annotations

from itertools import count, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.core.errors import DataError
from groundup.core.values import IGNORED
from groundup.generation.recompute_cache import RecomputeCache
from groundup.models.hub.library import COUNT_PADDING, sees_all
from groundup.models.hub.library_module import LibraryModule
from groundup.models.hub.named_parts import NamedParts, named_parts
from groundup.models.hub.positions import BY_LENGTH, begin_again, rotary_positions
from groundup.nn.logits import widen

__all__ = ["Hub"]

# Documents shorter than this are computed together, whatever their lengths.
_SHORTEST = 16


class Hub(LibraryModule):
    """The model of a ``HubConfig``.

    Args:
        config: The settings: ``outputs`` and ``context_length`` are read.
        tree: The library's module.
    """

    def __init__(self, config: Any, tree: Any) -> None:
        super().__init__(config, tree)
        self._by_length = rotary_positions(tree, BY_LENGTH)

    def _find_parts(self, tree: Any) -> NamedParts:
        return named_parts(tree)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        boundaries: Tensor | None = None,
        targets: Tensor | None = None,
        cache: RecomputeCache | None = None,
        last_only: bool = False,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Predict the next token at every position, or with ``config.outputs`` the class of every
        row.

        Args:
            tokens: (B, T) int64.
            positions: (B, T) int64, of tokens after those in the cache, -1 for padding on the left.
                Without a cache documents begin at 0, wherever they are.
            boundaries: (N,) int32, starts of packed documents over the B*T tokens, rising from 0 to
                B*T; default: each row is one. Few architectures can be told, so each document is
                computed in a row of its own.
            targets: (B, T) int64, the tokens that come next, -100 where nothing is trained.
            cache: What was read before; this call adds to it.
            last_only: Return logits of the last position only.
            lengths: (B,) int64, what of each row is no padding, for a classifier; default: all.

        Returns:
            Logits (B, T or 1, V) or (B, K). With targets a scalar: the sum of -log p in nats over
            the targets.
        """
        self._follow()
        # A classifier has no tokens to predict.
        if self.config.outputs:
            return self._classes(tokens, lengths)
        if cache is not None:
            assert positions is not None
            return cache.read(self._read, tokens, positions)
        logits = self._logits(tokens) if boundaries is None else self._apart(tokens, boundaries)
        if targets is not None:
            logits = widen(logits).flatten(0, 1)
            return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORED, reduction="sum")
        return logits[:, -1:] if last_only else logits

    def _logits(self, tokens: Tensor) -> Tensor:
        begin_again(self._by_length)
        return self.tree(input_ids=tokens, **self._accepted(use_cache=False)).logits  # type: ignore[no-any-return]

    def _apart(self, tokens: Tensor, boundaries: Tensor) -> Tensor:
        """Return (B, T, V), each document computed in a row of its own, padded on the right, where
        nothing sees it.

        Documents are taken together with others up to twice as long, so that less than half of what
        is computed is padding.
        """
        flat = tokens.flatten()
        ends = boundaries.tolist()
        groups: dict[int, list[tuple[int, int]]] = {}
        for start, end in pairwise(ends):
            if end > start:
                size = max(_SHORTEST, end - start - 1).bit_length()
                if self._by_length:
                    # A longer document next to it would count as its own length.
                    size = end - start
                groups.setdefault(size, []).append((start, end))
        found = []
        places = []
        for group in groups.values():
            firsts, lasts = torch.tensor(group, device=flat.device).T[:, :, None]
            place = firsts + torch.arange(
                max(end - start for start, end in group), device=flat.device
            )
            real = place < lasts
            # What pads is whatever token follows; nothing sees it, and it is left out.
            found.append(self._logits(flat[place.clamp(max=len(flat) - 1)])[real])
            places.append(place[real])
        # Back in the order of the tokens.
        logits = torch.cat(found)
        return logits[torch.cat(places).argsort()].view(*tokens.shape, -1)

    def _classes(self, tokens: Tensor, lengths: Tensor | None) -> Tensor:
        length = tokens.shape[1]
        if length > self.config.context_length:
            raise DataError(
                "a text",
                f"has {length} tokens; the model reads {self.config.context_length}",
                "Lower task.max_tokens, or raise model.context_length",
            )
        real = torch.ones_like(tokens, dtype=torch.bool)
        if lengths is not None:
            real = torch.arange(length, device=tokens.device) < lengths[:, None]
        # Of a causal model the last token that is no padding is read, told by the padding's own
        # token: one that is in none of the texts.
        if not sees_all(self.config.config):
            used = set(tokens[real].tolist())
            self.tree.config.pad_token_id = next(n for n in count() if n not in used)
            tokens = tokens.masked_fill(~real, self.tree.config.pad_token_id)
        begin_again(self._by_length)
        try:
            # Padding would make every text as long as the longest.
            if self._by_length:
                rows = zip(tokens, real, strict=True)
                found = [self.tree(input_ids=row[own][None]).logits for row, own in rows]
                return torch.cat(found)
            return self.tree(input_ids=tokens, attention_mask=real.long()).logits  # type: ignore[no-any-return]
        # How some of these models say that a text lacks the token whose state they classify.
        except ValueError as error:
            raise DataError(
                "a text",
                f"cannot be classified: {error}",
                "Use a tokenizer that ends texts as the model's own does, or another model",
            ) from error

    def _read(self, tokens: Tensor, mask: Tensor, past: Any) -> tuple[Tensor, Any]:
        """Return the last position's logits (B, 1, V) and what the next call is given as
        ``past``."""
        begin_again(self._by_length)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        arguments = self._accepted(position_ids=positions, past_key_values=past)
        # Some keep what they made under another name, which cannot be given back.
        arguments |= self._accepted(use_cache="past_key_values" in self._accepts)
        # Without padding a mask says nothing.
        if not mask.all():
            arguments["attention_mask"] = mask.long()
        elif "position_ids" not in self._accepts:
            arguments |= self._accepted(attention_mask=mask.long())
        found = self.tree(input_ids=tokens, **arguments)
        return found.logits[:, -1:], found.get("past_key_values")

    def new_cache(self, batch: int, length: int) -> RecomputeCache:
        """Return an empty cache for ``batch`` rows of at most ``length`` tokens."""
        # Without positions to be given, a shorter row would be counted from its padding.
        rows = {"position_ids"} if batch > 1 else set()
        keeps = {"past_key_values", "attention_mask", *rows} <= self._accepts
        # What was read before would be turned otherwise in a longer text.
        keeps = keeps and not self._by_length
        keeps = keeps and (batch == 1 or self.config.config["model_type"] not in COUNT_PADDING)
        return RecomputeCache(batch, next(self.parameters()).device, keeps=keeps)
