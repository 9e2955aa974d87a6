"""TensorBoard event files of the same numbers that ``metrics.jsonl`` keeps, written without
TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from groundup.core.errors import MissingExtraError
from groundup.reports.formatting import is_number

__all__ = ["EventWriter"]


class EventWriter:
    """Append scalars and texts to event files in a folder that ``tensorboard --logdir`` opens.

    Args:
        folder: Where the event files go, such as ``runs/x/tensorboard``; made if need be.
        from_step: The first step to come. After a resume TensorBoard then hides what was written
            beyond it.

    Raises:
        MissingExtraError: If the ``tensorboard`` library is not installed.
    """

    def __init__(self, folder: Path, from_step: int = 0) -> None:
        try:
            from tensorboard.compat.proto import (
                event_pb2,
                summary_pb2,
                tensor_pb2,
                tensor_shape_pb2,
            )
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise MissingExtraError("tensorboard", "tensorboard") from None
        self._event, self._summary = event_pb2, summary_pb2
        self._tensor, self._shape = tensor_pb2, tensor_shape_pb2
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventFileWriter(str(folder), max_queue_size=100, flush_secs=10)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.add_event(
            event_pb2.Event(wall_time=time.time(), step=from_step, session_log=start)
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
        """Write one row of ``metrics.jsonl``: its numbers as ``<kind>/<name>``, a sample or an
        event as text."""
        kind, step = str(row.get("kind", "train")), int(row["step"])
        if kind == "sample":
            self.text(
                step,
                "sample",
                f"**{row.get('prompt', '')}**\n\n    {_indented(row.get('text', ''))}",
            )
        elif kind == "event":
            self.text(step, "event", str(row.get("message", "")))
        else:
            self.scalars(step, row, prefix=f"{kind}/")

    def scalars(self, step: int, values: Mapping[str, Any], prefix: str = "") -> None:
        """Write the finite numbers of ``values``, but not the step itself, each under ``prefix``
        and its name."""
        numbers = [
            self._summary.Summary.Value(tag=f"{prefix}{name}", simple_value=float(amount))
            for name, amount in values.items()
            if name != "step" and is_number(amount)
        ]
        if numbers:
            self._add(numbers, step)

    def text(self, step: int, tag: str, text: str) -> None:
        """Write a text (Markdown) that TensorBoard's text tab shows."""
        metadata = self._summary.SummaryMetadata(
            plugin_data=self._summary.SummaryMetadata.PluginData(plugin_name="text")
        )
        tensor = self._tensor.TensorProto(
            dtype="DT_STRING",
            string_val=[text.encode("utf-8")],
            tensor_shape=self._shape.TensorShapeProto(
                dim=[self._shape.TensorShapeProto.Dim(size=1)]
            ),
        )
        self._add(
            [
                self._summary.Summary.Value(
                    tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor
                )
            ],
            step,
        )

    def flush(self) -> None:
        """Write what is waiting to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file; safe to call twice."""
        self._writer.close()

    def _add(self, values: list[Any], step: int) -> None:
        summary = self._summary.Summary(value=values)
        self._writer.add_event(self._event.Event(wall_time=time.time(), step=step, summary=summary))


def _indented(text: object) -> str:
    return str(text).replace("\n", "\n    ")
