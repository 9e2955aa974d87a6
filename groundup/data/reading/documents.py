"""Mails and web pages as plain text, by the standard library's parser and Beautiful Soup."""

from __future__ import annotations

import email
import email.header
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from hashlib import blake2b

from groundup.data.reading.compressed import DataFile
from groundup.data.reading.encodings import check_encoding, decode_lines

__all__ = ["html_to_text", "is_raw_mail", "mail_to_text", "read_documents"]

# What only a mail begins with; Subject and From alone may begin a text about something.
_RAW_MAIL = re.compile(
    rb"(X-[\w-]+:.*\n)*(From \S+ .*\d{4}|(Return-Path|Received|Delivered-To|X-Original-To):)", re.I
)
_BETWEEN_MAILS = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\d{4}[^\n]*\n")
_BLOCKS = re.compile(
    "address|article|aside|blockquote|br|caption|d[dlt]|div|figcaption|footer|form|h[1-6]|header|hr"
    "|li|main|nav|ol|p|section|table|t[dhr]|title|ul"
)
_BLANKS = re.compile(r"\s+")  # spaces and line ends of a page's source mean nothing
_NOT_TEXT = ("script", "style", "template", "noscript")
_HEAD = 2048
_KEPT = 50_000  # mails
_READ: dict[bytes, tuple[str, Counter[str]]] = {}
_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([\w-]+)", re.I)


def is_raw_mail(head: bytes) -> bool:
    """Whether a text begins as a mail does that a server has delivered."""
    return _RAW_MAIL.match(head) is not None


def read_documents(file: DataFile, handle: io.BufferedReader) -> Iterator[tuple[int, str, str]]:
    """Yield (number from 1, or 0 where the file is one; where; text) of the mails of a file, or of
    its web page.

    Args:
        file: What reading it meets is counted in its notes.
        handle: The file, opened.
    """
    if file.kind == ".html":
        stated = _CHARSET.search(handle.peek(_HEAD)[:_HEAD])
        if stated is not None and file.encoding is None and not check_encoding(stated[1].decode()):
            file = replace(file, encoding=stated[1].decode().lower())
        yield 0, str(file.path), html_to_text("".join(decode_lines(file, handle)))
        return
    content = handle.read()
    if file.kind != ".mbox":
        yield 0, str(file.path), _read_mail(content, file.notes)
        return
    mails = (mail for mail in _BETWEEN_MAILS.split(content) if mail.strip())
    for number, mail in enumerate(mails, 1):
        plain = re.sub(rb"(?m)^>(>*From )", rb"\1", mail)
        yield number, f"{file.path} mail {number}", _read_mail(plain, file.notes)


def html_to_text(page: str) -> str:
    """Return what a web page says: its title and its text, a line for each block; scripts and
    styles are left out."""
    from bs4 import BeautifulSoup
    from bs4.element import NavigableString, Tag

    pieces: list[str] = []
    # a list of what is to come, not recursion: pages whose tags are never closed nest deeply
    coming: list[object] = [BeautifulSoup(page, "html.parser")]
    while coming:
        node = coming.pop()
        if isinstance(node, Tag):
            if node.name == "pre":
                coming.append(f"\n{node.get_text()}\n")
            elif node.name not in _NOT_TEXT:
                ends = ["\n"] if _BLOCKS.fullmatch(node.name) else []
                coming += [*ends, *reversed(node.contents), *ends]
        elif type(node) is NavigableString:  # and no comment, which is a kind of it
            pieces.append(_BLANKS.sub(" ", node))
        elif type(node) is str:
            pieces.append(node)
    lines = [line.strip() for line in "".join(pieces).split("\n")]
    return "\n".join(line for line in lines if line)


def _read_mail(content: bytes, notes: Counter[str]) -> str:
    """Return the text of a mail; once made, it is kept: a start reads its data several times, and
    a web page takes far longer to take apart than to read."""
    key = blake2b(content, digest_size=16).digest()
    if key not in _READ:
        if len(_READ) >= _KEPT:
            _READ.clear()
        met: Counter[str] = Counter()
        _READ[key] = (mail_to_text(content, met), met)
    text, met = _READ[key]
    notes.update(met)
    return text


def mail_to_text(content: bytes, notes: Counter[str]) -> str:
    """Return a mail's subject, an empty line, and its text.

    The text is that of the parts of plain text; of a mail without any that of its web pages. What
    is attached, and other headers, which tell the sender and the way, are left out.

    Args:
        content: The mail.
        notes: Counts the mails, the parts that are left out, and texts in another encoding than
            they say.
    """
    mail = email.message_from_bytes(re.sub(rb"\A>?From [^\n]*\n", b"", content))
    plain: list[str] = []
    pages: list[Message] = []
    for part in mail.walk():
        if part.is_multipart():
            continue
        kind = part.get_content_type()
        if part.get_content_disposition() == "attachment" or not kind.startswith("text/"):
            notes["attachments left out"] += 1
        elif kind == "text/html":
            pages.append(part)
        else:
            plain.append(_text_of(part, notes))
    plain = [text for text in plain if text.strip()]
    if plain:
        notes["web pages in mails left out, next to plain text"] += len(pages)
    else:
        plain = [html_to_text(_text_of(part, notes)) for part in pages]
    notes["mails"] += 1
    subject = _decode_header(str(mail.get("Subject", "")))
    return "\n\n".join(text for text in (subject, *plain) if text.strip())


def _text_of(part: Message, notes: Counter[str]) -> str:
    payload = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else b""
    stated = part.get_content_charset("utf-8")
    for name in (stated, "utf-8"):
        try:
            text = content.decode(name)
            break
        except (LookupError, UnicodeError):
            continue
    else:
        # as mail programs do, where a text is not what it says; every byte is some letter then
        text = content.decode("cp1252", "replace")
    try:
        notes["mail parts in another encoding than they say"] += text.encode(stated) != content
    except (LookupError, UnicodeError):
        notes["mail parts in another encoding than they say"] += 1
    return text.replace("\r\n", "\n").replace("\r", "\n").strip("\n")


def _decode_header(value: str) -> str:
    try:
        text = str(email.header.make_header(email.header.decode_header(value)))
    except (ValueError, LookupError):  # an encoding that nobody knows, or damaged Base64
        text = value
    return " ".join(text.split())
