"""The loss of transcripts, with a word on those that CTC cannot emit.

Legend: B sounds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from groundup.contracts.ragged import ragged_rows
from groundup.contracts.speech import ReadsSpeech
from groundup.contracts.tasks import Objective
from groundup.core.errors import DataError
from groundup.core.values import Batch, Loss
from groundup.tasks.transcribe.rows import FrameOutputs, frame_targets

__all__ = ["NamesTooLong"]

log = logging.getLogger("groundup")
_NAMED = 10


class NamesTooLong:
    """A loss that refuses transcripts of more tokens than can be emitted for their sounds, or says
    which it leaves out.

    In silence they would be infinite, or, with an option of PyTorch's, teach nothing.

    Args:
        loss: What is computed.
        processor: What made the tokens.
        skips: Whether such transcripts are left out.
    """

    def __init__(self, loss: Objective, processor: ReadsSpeech, *, skips: bool) -> None:
        self._loss = loss
        self._processor = processor
        self._skips = skips
        self._named: set[str] = set()

    def __call__(self, outputs: Any, batch: Batch) -> Loss:
        """Return the loss of a batch.

        Raises:
            DataError: If a transcript cannot be emitted, and such are not left out.
        """
        # An encoder-decoder writes texts of any length about any sound.
        if isinstance(outputs, FrameOutputs):
            for text, problem in self._too_long(outputs, batch):
                self._report(text, problem)
        return self._loss(outputs, batch)

    def _report(self, text: str, problem: str) -> None:
        if not self._skips:
            raise DataError(
                f"transcript {text!r:.200}",
                problem,
                "Lower model.subsampling or processor.hop_ms, check the transcript, or leave such"
                " out: task.on_too_long: skip",
            )
        # Each once, and not in every epoch.
        if text not in self._named and len(self._named) < _NAMED:
            log.warning("transcript %.200r %s; it is left out", text, problem)
        self._named.add(text)

    def _too_long(self, outputs: FrameOutputs, batch: Batch) -> Iterator[tuple[str, str]]:
        """Yield each transcript that needs more frames than there are, and what is wrong."""
        targets = frame_targets(batch)
        beyond = (targets.needed > outputs.lengths).nonzero().flatten().tolist()
        # Only where there are any: a batch is not cut into rows for nothing.
        rows = ragged_rows(batch, "text") if beyond else []
        for number in beyond:
            # By its text: a batch does not know the names of its examples.
            text = self._processor.tokenizer.decode(rows[number][:-1].tolist())
            seconds = float(batch["lengths"][number]) * self._processor.frame_seconds
            problem = (
                f"has {int(targets.tokens[number]):,} tokens, which need"
                f" {int(targets.needed[number]):,} frames, but its {seconds:.3g} seconds of sound"
                f" give {int(outputs.lengths[number]):,}"
            )
            yield text, problem
