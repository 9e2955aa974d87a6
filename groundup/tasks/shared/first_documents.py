"""As much of a corpus as is evaluated in minutes."""

from __future__ import annotations

from collections.abc import Iterable

from groundup.core.values import Document

__all__ = ["first_documents"]


def first_documents(documents: Iterable[Document], most_bytes: int) -> list[Document]:
    """Return the first documents, whole, up to a size of their text; one in any case."""
    taken: list[Document] = []
    size = 0
    for document in documents:
        size += len(document.text.encode())
        if size > most_bytes and taken:
            break
        taken.append(document)
    return taken
