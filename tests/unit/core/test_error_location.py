"""What examples and errors of the system are called in messages."""

from __future__ import annotations

import errno

import pytest

from groundup.core.error_location import name_of, origin_of
from groundup.core.errors import in_words
from groundup.core.values import Document


@pytest.mark.parametrize(
    ("example", "name", "origin"),
    [
        (Document("a", "text", "a.txt line 3"), "a", "a.txt line 3"),
        (Document("a", "text"), "a", ""),
        ({"name": "a key is no attribute"}, "", ""),
        ("a text of a user's own source", "", ""),
    ],
)
def test_an_example_need_not_say_where_it_is_from(example: object, name: str, origin: str) -> None:
    assert (name_of(example), origin_of(example)) == (name, origin)


@pytest.mark.parametrize(
    ("error", "beginning"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.bin"), "x.bin: No space left on de"),
        (OSError(errno.ENOSPC, "No space left on device"), "the system: No space left on device"),
        (OSError("broken"), "the system: broken"),
        (MemoryError("too much"), "the system: too much"),
    ],
)
def test_an_error_of_the_system_names_its_file(error: Exception, beginning: str) -> None:
    text, code = in_words(error)
    assert text.startswith(beginning)
    assert code == 1
