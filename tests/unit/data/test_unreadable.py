"""What cannot be read, and forms of files: one message for all sources."""

from __future__ import annotations

import pytest

from groundup.core.errors import DataError
from groundup.data.reading.unreadable import refuse_unreadable, warn_of_unreadable


def test_the_first_is_named_and_the_others_counted(caplog: pytest.LogCaptureFixture) -> None:
    bad = [("a.png", "is empty"), ("b.png", "ends early"), ("c.png", "is none")]
    with pytest.raises(DataError, match=r"a\.png: is empty \(2 other pictures too\)\. Replace or"):
        refuse_unreadable(bad, "pictures", "stop")
    with pytest.raises(DataError, match=r"a\.png: is empty\. Replace or remove it, or set data"):
        refuse_unreadable(bad[:1], "sounds", "stop")
    refuse_unreadable(bad, "pictures", "skip")
    refuse_unreadable([], "pictures", "stop")
    warn_of_unreadable("here", [], "sounds")
    assert not caplog.records
    warn_of_unreadable("here", ["b", "a"], "sounds")
    assert "here: 2 unreadable sounds are left out: a, b" in caplog.text
