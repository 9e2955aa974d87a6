"""XML of people one does not know: without entities, which expand without end, and without what
other files hold. The one file that knows defusedxml."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from groundup.core.errors import DataError, MissingExtraError
from groundup.data.reading.compressed import DataFile, open_file

__all__ = ["read_elements", "read_tree"]


def read_elements(file: DataFile, events: Sequence[str], extra: str) -> Iterator[tuple[str, Any]]:
    """Yield (event, element) of an XML file while it is read.

    Args:
        file: The file.
        events: ``start``, ``end`` or both.
        extra: The extra of this package that brings defusedxml, for whoever lacks it.

    Raises:
        MissingExtraError: If defusedxml is not installed.
        DataError: If the file is not XML, declares entities or refers to another file.
    """
    try:
        from defusedxml import DefusedXmlException, EntitiesForbidden
        from defusedxml.ElementTree import ParseError, iterparse
    except ImportError:
        raise MissingExtraError("defusedxml", extra) from None
    try:
        with open_file(file) as handle:
            yield from iterparse(handle, events)
    except ParseError as error:
        raise DataError(
            str(file.path), f"is not XML: {error}", "Correct it there, or export it again"
        ) from None
    except EntitiesForbidden as error:
        # A few lines of entities that name each other stand for more text than any memory holds.
        problem = f"declares the entity {error.name!r}, which may expand without end; allowed: none"
        raise DataError(
            str(file.path), problem, "Remove the declarations, and write the characters themselves"
        ) from None
    except DefusedXmlException as error:
        problem = f"refers to another file: {error}"
        raise DataError(str(file.path), problem, "Remove the reference") from None


def read_tree(file: DataFile, extra: str) -> Any:
    """Return the outermost element of a small XML file, whole; arguments and errors as
    ``read_elements``."""
    root = None
    for _, element in read_elements(file, ("end",), extra):
        root = element
    return root
