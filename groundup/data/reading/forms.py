"""In which of several forms the files of a folder say something of its pictures or sounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from groundup.core.errors import DataError
from groundup.data.reading.compressed import DataFile

__all__ = ["Forms", "choose_form"]

_Form = TypeVar("_Form", bound=str)
# Other files that an error names.
_NAMED = 6


class Forms(NamedTuple):
    """What is looked for.

    Attributes:
        what: Is said of the files, such as ``captions``.
        of: How many of which, such as ``7 pictures``.
        others: What other files are called.
        called: What a form is called: ``forms`` or ``formats``.
        remedy: What to do where there is none.
    """

    what: str
    of: str
    others: str
    called: str
    remedy: str


def choose_form(
    root: Path,
    form: _Form | None,
    known: Mapping[_Form, str],
    there: Mapping[_Form, Sequence[DataFile]],
    others: Sequence[DataFile],
    forms: Forms,
) -> _Form:
    """Return the form that files are in.

    Args:
        root: The folder, for messages.
        form: The recipe's ``data.form``.
        known: All forms, each in words.
        there: Those that there are files of.
        others: The files that are of none.
        forms: What is looked for.

    Raises:
        DataError: If there is none, or several and the recipe names none.
    """
    found = [each for each in known if each in there]
    if form is not None and form in there:
        return form
    if form is None and len(found) == 1:
        return found[0]
    if form is None and found:
        names = ", ".join(f"{each} ({there[each][0].relative})" for each in found)
        raise DataError(
            str(root),
            f"holds {forms.what} in several {forms.called}: {names}",
            "Name one as data.form",
        )
    names_of_others = Counter(PurePosixPath(file.relative).name for file in others)
    looked = known[form] if form is not None else "; ".join(known.values())
    named = ", ".join(name for name, _ in names_of_others.most_common(_NAMED)) or "none"
    raise DataError(
        str(root),
        f"no {forms.what} are found for {forms.of}; looked for: {looked}; other"
        f" {forms.others}: {named}",
        forms.remedy,
    )
