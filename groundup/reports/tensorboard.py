"""TensorBoard event files of the same numbers that ``metrics.jsonl`` keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from groundup.reports.formatting import is_number

__all__ = ["EventWriter"]


class EventWriter:
    """Append scalars and texts to event files in a folder that ``tensorboard --logdir`` opens.

    Args:
        folder: Where the event files go, such as ``runs/x/tensorboard``; made if need be.
        from_step: The first step to come. After a resume TensorBoard then hides what was written
            beyond it.
    """

    def __init__(self, folder: Path, from_step: int = 0) -> None:
        # 0.2 s, which only training needs
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(folder), purge_step=from_step, max_queue=100, flush_secs=10
        )

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one row of ``metrics.jsonl``: its finite numbers as ``<kind>/<name>``, a sample or
        an event as text."""
        kind = str(row.get("kind", "train"))
        step = int(row["step"])
        if kind == "sample":
            # indented, a text is shown as it is: it may look like Markdown or HTML
            text = str(row.get("text") or row.get("picture") or "").replace("\n", "\n    ")
            self._writer.add_text("sample", f"**{row.get('prompt', '')}**\n\n    {text}", step)
        elif kind == "event":
            self._writer.add_text("event", str(row.get("message", "")), step)
        else:
            for name, amount in row.items():
                if name != "step" and is_number(amount):
                    self._writer.add_scalar(f"{kind}/{name}", amount, step)

    def close(self) -> None:
        """Flush and close the file; safe to call twice."""
        self._writer.close()
