"""Event files that TensorBoard opens."""

from __future__ import annotations

import struct
from pathlib import Path

from groundup.reports.tensorboard import EventWriter


def test_event_files_hold_scalars_and_texts(tmp_path: Path) -> None:
    with EventWriter(tmp_path / "tensorboard", from_step=7) as writer:
        writer.write({"loss": 1.5, "step": 7, "nothing": None, "nan": float("nan")})
        writer.write({"kind": "evaluate", "step": 8, "loss": 2.5})
        writer.write({"kind": "sample", "step": 8, "prompt": "Once", "text": "a\n床"})
        writer.write({"kind": "event", "step": 8, "message": "saved"})
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = _events(path.read_bytes())
    scalars = {
        (v.tag, e.step): v.simple_value
        for e in events
        for v in e.summary.value
        if v.HasField("simple_value")
    }
    texts = {
        v.tag: v.tensor.string_val[0].decode()
        for e in events
        for v in e.summary.value
        if v.HasField("tensor")
    }
    assert scalars == {("train/loss", 7): 1.5, ("evaluate/loss", 8): 2.5}
    assert texts == {
        "sample/text_summary": "**Once**\n\n    a\n    床",
        "event/text_summary": "saved",
    }
    assert [e.step for e in events if e.HasField("session_log")] == [7]


def _events(content: bytes) -> list:  # type: ignore[type-arg]
    from tensorboard.compat.proto.event_pb2 import Event

    found, at = [], 0
    while at < len(content):  # length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", content[at : at + 8])
        found.append(Event.FromString(content[at + 12 : at + 12 + length]))
        at += 16 + length
    return found
