"""Which files a path holds: those that are read, and the others counted by the reason why not."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from groundup.core.errors import DataError
from groundup.core.settings import expand_path
from groundup.data.reading.compressed import COMPRESSIONS, DataFile
from groundup.data.reading.other_files import missing_path, remedy_for, remedy_for_folder

__all__ = [
    "KINDS",
    "LINE_KINDS",
    "NOT_USED",
    "ROW_KINDS",
    "TEXT_KINDS",
    "Listing",
    "count_files",
    "in_one_form",
    "is_hidden",
    "leave_out",
    "list_files",
    "suffix_of",
]

ROW_KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
TEXT_KINDS = (".txt", ".md", ".html", ".eml", ".mbox")
KINDS = (".txt", ".md", *ROW_KINDS, ".html", ".eml", ".mbox")
LINE_KINDS = (".conll", ".bio", ".iob", ".iob2")  # a word and its label a line
# other names of the same kinds
_ALIASES = {
    ".text": ".txt",
    ".markdown": ".md",
    ".ndjson": ".jsonl",
    ".jsonlines": ".jsonl",
    ".tab": ".tsv",
    ".pq": ".parquet",
    ".htm": ".html",
    ".xhtml": ".html",
}
# of 00001.7c53336b37003a9286aba55d2945844c, as mails are kept, the end is no suffix
_SUFFIX = re.compile(r"\.[a-z][a-z0-9_]{0,8}|\.\d[a-z]\w?|\.7z")
# what is hidden, and what systems, archives and editors leave next to the files of people
_HIDDEN = re.compile(
    r"\.|~\$|(__MACOSX|(eh)?thumbs\.db|desktop\.ini|\$RECYCLE\.BIN|System Volume Information"
    r"|lost\+found|__pycache__|node_modules|#.*#|.*~)$",
    re.I,
)
# what says something about the files next to it
_ABOUT = re.compile(
    r"(readme|licen[cs]e|notice|copying|changelog|citation|contributing|authors)[\w.-]*\.(md|txt|text)"
    r"|dataset_(infos?|dict)\.json|state\.json",
    re.I,
)
_HEAD = 4096
# How pictures and sounds begin that have no suffix; Pillow and libsndfile find out the rest.
_MAGIC = {
    ".png": re.compile(
        rb"\x89PNG|\xff\xd8\xff|GIF8|BM|II\*\0|MM\0\*|RIFF....WEBP|....ftyp(avif|hei[cfx])", re.S
    ),
    ".wav": re.compile(rb"RIFF....WAVE|fLaC|OggS|ID3|\xff[\xf2\xf3\xfb]|FORM....AIF[FC]", re.S),
}
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MAIL = re.compile(
    rb"(From \S+ .*\d{4}.*\n|(?=(Return-Path|Received|Delivered-To|Message-ID|MIME-Version|X-[\w-]+"
    rb"|From|To|Subject|Date|Reply-To|Sender|Path|Newsgroups|Xref|Organization|Lines)[ \t]*:))"
    rb"([\w-]+[ \t]*:.*\r?\n([ \t].*\n)*){2}",
    re.I,
)
_KNOWN_AGAIN = "links to what is read already"
NOT_USED = "called like a split for which others are named"
_NO_SUFFIX = "no suffix"


@dataclass
class Listing:
    """What a path holds.

    Attributes:
        files: The files that are read, by their relative paths.
        folders: The relative paths of the folders that are not hidden.
        left_out: How many entries are not read, by the reason.
        other_kinds: Of those that are of other kinds, how many have each suffix.
    """

    files: list[DataFile] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    other_kinds: Counter[str] = field(default_factory=Counter)

    def leave_out(self, relative: str) -> None:
        """Count a file of another kind."""
        self.left_out["of other kinds"] += 1
        self.other_kinds[suffix_of(relative) or _NO_SUFFIX] += 1

    def count(self, other: Listing) -> None:
        """Add what another path has that is not read."""
        self.left_out += other.left_out
        self.other_kinds += other.other_kinds

    def about(self, read: int) -> dict[str, Any]:
        """Return what a data card says: files found, read, and left out by reason; these add up.

        Args:
            read: How many are read; of ``files`` some may be counted as left out by now.
        """
        card: dict[str, Any] = {"found": read + self.left_out.total(), "read": read}
        if left_out := +self.left_out:
            card["left_out"] = dict(sorted(left_out.items()))
        if self.other_kinds:
            kinds = sorted(self.other_kinds.items(), key=lambda item: (-item[1], item[0]))
            card["other_kinds"] = ", ".join(f"{kind} {count}" for kind, count in kinds)
        return card


def leave_out(card: dict[str, Any], reason: str, count: int) -> None:
    """Move files that a data card counts as read to those that are left out."""
    if count:
        card["read"] -= count
        card["left_out"] = card.get("left_out", {}) | {reason: count}


# ------------------------------------------------------------------------------------------ listing
def list_files(
    path: str | Path,
    kinds: Sequence[str] = KINDS,
    *,
    encoding: str | None = None,
    on_unreadable: str = "stop",
    with_empty: bool = False,
) -> Listing:
    """Return the readable files of a path: itself, or everything below it, sorted by relative path.

    Links are followed, and what is met twice is read once. Hidden files, what systems leave behind,
    empty files and files of other kinds are counted.

    Args:
        path: A file or a folder.
        kinds: The kinds of files that are read.
        encoding: What texts are in that do not say it themselves.
        on_unreadable: ``skip`` counts folders that may not be listed.
        with_empty: Files without content are files too.

    Raises:
        DataError: If the path is missing, empty, of another kind, or a folder without a readable
            file, or one that may not be listed.
    """
    root = Path(expand_path(path))
    if not root.exists():
        raise missing_path(root)
    if not root.is_file() and not root.is_dir():
        what = "pipe" if root.is_fifo() else "device"
        raise DataError(str(root), f"is a {what}, not a file or folder", "Name a file or folder")
    if root.is_file():
        return Listing([replace(_bare_file(root, kinds), encoding=encoding)])
    listing = Listing()
    suffixless: list[tuple[str, str]] = []
    about: list[DataFile] = []
    for relative, real, size in _walk(root, listing, on_unreadable):
        suffix = suffix_of(relative)
        kind, compression = _kind_of(suffix)
        if not size and not with_empty and (kind in kinds or not suffix):
            listing.left_out["empty (0 bytes)"] += 1
        elif kind in kinds and not (compression and kind not in (*KINDS, *LINE_KINDS)):
            file = DataFile(Path(real), relative, kind, compression, encoding)
            (about if _ABOUT.fullmatch(relative.rpartition("/")[2]) else listing.files).append(file)
        elif suffix:
            listing.leave_out(relative)
        else:
            suffixless.append((relative, real))
    # a licence next to tables is no row, and one next to texts is a text like a read-me
    texts = not any(file.kind in ROW_KINDS for file in listing.files)
    for relative, real in suffixless:
        kind = _look_inside(real, kinds, texts)
        if kind:
            listing.files.append(DataFile(Path(real), relative, kind, "", encoding))
        else:
            listing.leave_out(relative)
    # next to rows a read-me is about them; next to texts it is one, and alone it is what is read
    told = [file for file in about if file.kind in ROW_KINDS or (listing.files and not texts)]
    listing.left_out["about the data (read-mes, licences, data set infos)"] += len(told)
    listing.files += [file for file in about if file not in told]
    if not listing.files:
        raise _nothing_to_read(root, listing, kinds)
    # by name, because folders list their files in another order on every file system
    listing.files.sort(key=lambda file: file.relative)
    return listing


def count_files(root: Path, used: Collection[Path]) -> dict[str, Any]:
    """Return what a data card says of a folder of which some files are used."""
    listing = Listing()
    read = 0
    for relative, real, _ in _walk(root, listing, "skip"):
        if Path(real) in used:
            read += 1
        else:
            listing.leave_out(relative)
    return listing.about(read)


def _walk(root: Path, listing: Listing, on_unreadable: str) -> Iterator[tuple[str, str, int]]:
    """Yield (relative path, real path, bytes) of every file below a folder; what is no file, or was
    met before, is counted."""
    folders = [(str(root), "")]
    links: list[tuple[str, str]] = []
    seen = {_identity(os.stat(root))}
    names: set[str] = set()
    while folders or links:
        if folders:
            place, prefix = folders.pop()
        else:
            # links come last: what is at its own place too is named by that
            links.sort(reverse=True)
            relative, real = links.pop()
            try:
                status = os.stat(real)
            except OSError:
                listing.left_out["broken links"] += 1
                continue
            if _identity(status) in seen:
                listing.left_out[_KNOWN_AGAIN] += 1
                continue
            seen.add(_identity(status))
            if not os.path.isdir(real):
                yield _name_once(relative, names), real, status.st_size
                continue
            place, prefix = real, f"{relative}/"
            listing.folders.append(_name_once(relative, names))
        try:
            entries = list(os.scandir(place))
        except PermissionError:
            if on_unreadable != "skip":
                raise DataError(
                    place,
                    "the folder may not be listed",
                    "Allow it, or set data.on_unreadable: skip to leave such out",
                ) from None
            listing.left_out["folders that may not be listed"] += 1
            continue
        for entry in entries:
            relative = prefix + entry.name
            # hidden at any depth: .git and .ipynb_checkpoints hold copies of what is next to them
            if is_hidden(entry.name):
                listing.left_out["hidden"] += _count_files(entry)
            elif entry.is_symlink():
                links.append((relative, entry.path))
            elif entry.is_dir():
                seen.add(_identity(entry.stat()))
                folders.append((entry.path, f"{relative}/"))
                listing.folders.append(_name_once(relative, names))
            elif entry.is_file():
                status = entry.stat()
                seen.add(_identity(status))
                yield _name_once(relative, names), entry.path, status.st_size
            else:
                listing.left_out["no files (pipes, sockets, devices)"] += 1


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _count_files(entry: os.DirEntry[str]) -> int:
    if not entry.is_dir(follow_symlinks=False):
        return 1
    return sum(len(names) for _, _, names in os.walk(entry.path))


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or left behind by a system."""
    return _HIDDEN.match(name) is not None


def in_one_form(name: str) -> str:
    """Return a name in the one form in which names are compared: NFC, which text can hold."""
    if name.isascii():
        return name
    # archives made on a Mac hold NFD; bytes that are no UTF-8 could not be written anywhere
    plain = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", plain)


def _name_once(relative: str, names: set[str]) -> str:
    name = in_one_form(relative)
    if name != relative and name in names:  # both forms are there
        return relative
    names.add(name)
    return name


def suffix_of(relative: str) -> str:
    """Return the suffix in lower case, with that of a compression such as .jsonl.gz; or nothing."""
    stem, dot, end = relative.rpartition("/")[2].lower().rpartition(".")
    last = dot + end
    if not _SUFFIX.fullmatch(last):
        return ""
    if last not in COMPRESSIONS:
        return last
    _, dot, end = stem.rpartition(".")
    before = dot + end
    return before + last if _SUFFIX.fullmatch(before) else last


# of thousands of files the suffixes are few
@lru_cache(maxsize=1000)
def _kind_of(suffix: str) -> tuple[str, str]:
    compression = next((end for end in COMPRESSIONS if suffix.endswith(end)), "")
    kind = suffix.removesuffix(compression)
    return _ALIASES.get(kind, kind), compression


def _look_inside(path: str, kinds: Sequence[str], texts: bool) -> str:
    """Return the kind of a file without a suffix by how it begins, or nothing."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(_HEAD)
    except OSError:
        return kinds[0]  # reading it says what is wrong
    for kind, magic in _MAGIC.items():
        if kind in kinds and magic.match(head):
            return kind
    if ".txt" not in kinds or not texts:
        return ""
    if ".eml" in kinds and _MAIL.match(head):
        return ".mbox" if head.startswith(b"From ") else ".eml"
    marked = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    return ".txt" if marked or not _CONTROL.search(head) else ""


# ------------------------------------------------------------------------------------------- errors
def _bare_file(path: Path, kinds: Sequence[str]) -> DataFile:
    suffix = suffix_of(path.name)
    kind, compression = _kind_of(suffix)
    if path.stat().st_size == 0 and (kind in kinds or not suffix):
        raise DataError(
            str(path), "the file is empty (0 bytes)", "Give a file with something in it"
        )
    if not suffix:
        kind = _look_inside(str(path), kinds, True)
    # a named file of another kind is an error; in a folder it is counted
    if kind not in kinds:
        raise DataError(
            str(path),
            f"the suffix {suffix or '(none)'!r} is not a kind of file that is read here; allowed:"
            f" {', '.join(kinds)}, each also with {', '.join(COMPRESSIONS)}",
            remedy_for(path, suffix, kinds),
        )
    return DataFile(path, path.name, kind, compression)


def _nothing_to_read(root: Path, listing: Listing, kinds: Sequence[str]) -> DataError:
    have = "it has no files"
    if left_out := +listing.left_out:
        about = listing.about(0)
        have = "it has " + ", ".join(f"{n} {reason}" for reason, n in left_out.items())
        if listing.other_kinds:
            have += f" ({about['other_kinds']})"
    problem = f"no file to read in this folder; {have}; allowed: {', '.join(kinds)}"
    return DataError(str(root), problem, remedy_for_folder(root, listing.other_kinds, kinds))
