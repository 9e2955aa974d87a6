"""A file's text, line by line, in the encoding that its mark or the recipe says; never guessed:
where neither fits, an error suggests one with a sample to look at."""

from __future__ import annotations

import codecs
import io
import re
import shlex
from collections.abc import Iterator
from typing import Any

from groundup.core.errors import DataError
from groundup.data.reading.compressed import DataFile, encoding_of, open_bytes

__all__ = ["check_encoding", "decode_lines", "decode_text", "suggest_encodings"]

_CHUNK = 1 << 20
_LOOKED_AT = 1 << 16  # bytes: enough to tell encodings apart
_SHOWN = 24  # characters of a sample
# A text in the right encoding is made of the most frequent letters of its language; read in a wrong
# one, its letters are rare. charset-normalizer knows which encodings fit, but ranks short texts at
# random.
_CHINESE = "的一是不了在有人我他上大中和好很看到出也就要会說说你都那么去能子没然自，。、！？"
_CYRILLIC = "оеаинтсрвлкмдпуяыь"
_KANA = "".join(map(chr, range(0x3041, 0x30FD))) + "、。「」"
_LATIN = "éèàùçêâîôûëïüöäßñáíóúãõøåæœÉÖÜÄ’‘“”–—…«»°"
_SLAVIC = "ąćęłńóśźżčďěňřšťůýžőűáéíöüĄĆĘŁŚŻČŘŠŽ"
_FREQUENT = {
    "gb18030": _CHINESE + "这个来时为们还对过电给让无开东",
    "big5": _CHINESE + "這個來時為們還對過電給讓無開東",
    "cp932": _KANA,
    "euc_jp": _KANA,
    "cp949": "이다는에의가을로고하지은한기사들인자대그어리나시아서도를해있으요정말좋았였",
    "cp1252": _LATIN,
    "cp1250": _SLAVIC,
    "cp1251": _CYRILLIC,
    "koi8_r": _CYRILLIC,
    "cp866": _CYRILLIC,
    "iso8859_2": _SLAVIC,
    "cp1253": "αοιετσνηυρπκμλωςίόάέ",
    "cp1254": "ıışğçöüİŞĞ",
    "cp1255": "אבגדהוזחטיךכלםמןנסעףפץצקרשת",
    "cp1256": "اليمنرتبوعدسفهكقحجة",
    "cp874": "านรอกเงมยลวดทสตะปบคหแจพชขใไ",
    "mac_roman": _LATIN,
}
_DENSE = ("gb18030", "big5", "cp949")  # of thousands of letters, the list has but the first ones
_WITH_ASCII = ("cp1252", "cp1250", "iso8859_2", "cp1254", "mac_roman")  # accents between a to z
_ICONV = {"mac_roman": "MACINTOSH", "koi8_r": "KOI8-R", "euc_jp": "EUC-JP", "iso8859_2": "LATIN2"}
_MARK = re.compile("^\ufeff", re.M)
_MARKS_LATER = "byte-order marks at later lines, left out"
_ISO_2022 = re.compile(rb"\x1b\$[@B][^\n]{2,}?\x1b\([BJ]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
# UTF-8 that was read as cp1252 and written as UTF-8 again: an accent, and a quotation mark
_ENCODED_TWICE = (b"\xc3\x83\xc2", b"\xc3\xa2\xe2\x82\xac")


def decode_lines(file: DataFile, handle: io.BufferedReader, ends: str | None = "") -> Iterator[str]:
    r"""Yield decoded lines with their ends (``\n``, ``\r\n`` or ``\r``, and no others); a mark at
    the start is dropped.

    Args:
        file: What is met is counted in its notes.
        handle: The file, opened.
        ends: As ``newline`` of ``open``: None makes every end ``\n``.

    Raises:
        DataError: For bytes that are no text, or not in the file's encoding.
    """
    encoding = _choose_encoding(file, handle)
    # U+2028 and others at which str.splitlines cuts are letters here, as for json and csv
    lines = io.TextIOWrapper(handle, encoding, newline=ends)
    try:
        for number, line in enumerate(lines, 1):
            if "\0" in line:
                raise _refuse_zero(file, number)
            if line[0] == "\ufeff":  # files put together, each with its mark
                file.notes[_MARKS_LATER] += 1
                line = line[1:]
            yield line
    except UnicodeDecodeError:
        raise _refuse_bytes(file, encoding) from None
    finally:
        if not handle.closed:  # as it is where whoever reads stops early
            lines.detach()


def decode_text(file: DataFile, handle: io.BufferedReader) -> str:
    r"""Return all of a file's text, with every end of a line as ``\n``; as ``decode_lines``, but
    several times as quick for small files."""
    encoding = _choose_encoding(file, handle)
    try:
        text = handle.read().decode(encoding)
    except UnicodeDecodeError:
        raise _refuse_bytes(file, encoding) from None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\ufeff" in text:
        text, count = _MARK.subn("", text)
        file.notes[_MARKS_LATER] += count
    if "\0" in text:
        raise _refuse_zero(file, text.count("\n", 0, text.index("\0")) + 1)
    return text


def check_encoding(name: str | None) -> str | None:
    """Return what is wrong with the name of an encoding, as ``"problem. remedy"``, or None."""
    allowed = "allowed: an encoding of texts, such as gb18030, cp1252 or utf-16"
    try:
        b"aaaa".decode(name or "utf-8")
    except UnicodeError:
        return None
    except LookupError:  # also of codecs that make no text, such as base64
        return f"encoding is {name!r}; {allowed}. Correct it"
    return None


def suggest_encodings(content: bytes) -> list[tuple[str, str]]:
    """Return the encodings that bytes which are no UTF-8 may be in, the likeliest first, each with
    the text that it gives."""
    from charset_normalizer import from_bytes

    named = [match.encoding for match in from_bytes(content[:_LOOKED_AT])]
    found: list[tuple[float, str, str]] = []
    for name in (*_FREQUENT, *(name for name in named if name not in _FREQUENT)):
        try:
            # the last character may be cut
            text = codecs.getincrementaldecoder(name)().decode(content)
        except UnicodeDecodeError:
            continue
        found.append((_plausibility(text, name), name, text))
    found.sort(key=lambda each: -each[0])
    return [(name, text) for share, name, text in found if share >= found[0][0] / 2]


def _plausibility(text: str, name: str) -> float:
    """Return about the share of the letters beyond ASCII that are frequent where an encoding is
    used."""
    letters = len(_NOT_ASCII.findall(text))
    if name not in _FREQUENT or not letters:
        return 0.01
    often = f"[{_FREQUENT[name]}]"
    if name in _WITH_ASCII:
        often = f"(?<=[a-zA-Z]){often}|{often}(?=[a-zA-Z])"
    elif name not in _DENSE:  # words are of one script
        often = f"(?<![a-zA-Z]){often}(?![a-zA-Z])"
    share = len(re.findall(often, text)) / letters
    return min(1.0, 2 * share) if name in _DENSE else share


def _choose_encoding(file: DataFile, handle: io.BufferedReader) -> str:
    """Return the encoding of a file; what is unusual about it is noted."""
    encoding = encoding_of(file, handle)
    if encoding not in ("utf-8", "utf-8-sig"):
        file.notes[f"files in {encoding}"] += 1
        return encoding
    head = handle.peek()
    if _ISO_2022.search(head):  # ASCII to the eye of UTF-8
        raise DataError(
            str(file.path),
            "looks like iso2022_jp: it has its signs for a change of letters",
            "Set data.encoding: iso2022_jp",
        )
    if any(sign in head for sign in _ENCODED_TWICE):
        file.notes["files with signs of UTF-8 that was encoded twice"] += 1
    return encoding


def _refuse_zero(file: DataFile, line: int) -> DataError:
    old = shlex.quote(str(file.path))
    new = shlex.quote(str(file.path.with_name(f"clean-{file.path.name}")))
    return DataError(
        f"{file.path} line {line}",
        "holds a zero byte, which no text does",
        f"Remove it, or the line: tr -d '\\000' < {old} > {new}",
    )


def _refuse_bytes(file: DataFile, encoding: str) -> DataError:
    """Return the error for a file that its encoding does not fit: at which byte, what it looks
    like, and what to do."""
    # opened again, because a reader that failed does not say where in the file it was
    decoder: Any = codecs.getincrementaldecoder(encoding)()
    before = 0
    chunk = b""
    with open_bytes(file) as handle:
        while True:
            last, chunk = chunk, handle.read(_CHUNK)
            try:
                decoder.decode(chunk, not chunk)
            except UnicodeDecodeError as error:
                # what was kept from before, of a letter that was cut, counts as part of the last
                kept = len(error.object) - len(chunk)
                at = before - kept + error.start
                return _describe_bytes(
                    file, encoding, at, last + chunk, len(last) - kept + error.start, error.reason
                )
            before += len(chunk)


def _describe_bytes(
    file: DataFile, encoding: str, at: int, content: bytes, place: int, reason: str
) -> DataError:
    name = encoding.upper().removesuffix("-SIG")
    problem = f"byte {at} (0x{content[place]:02x}) is not {name}: {reason}"
    remedy = "Correct the byte, or fetch the file again"
    old = shlex.quote(str(file.path))
    new = shlex.quote(str(file.path.with_name(f"utf8-{file.path.name}")))
    # so much of it is right that a few bytes are damaged
    whole = content.decode("utf-8", "replace")
    bad = whole.count("\ufffd")
    damaged = len(_NOT_ASCII.findall(whole)) > 2 * bad  # which is not ASCII either
    if damaged:
        remedy = f"Correct the byte, or leave out such: iconv -c -f UTF-8 -t UTF-8 {old} > {new}"
    found: list[tuple[str, str]] = []
    if encoding == file.encoding:
        remedy = "Correct data.encoding"
    elif encoding in ("utf-8", "utf-8-sig") and not damaged:
        begin = max(0, content.rfind(b"\n", 0, place) + 1, place - _LOOKED_AT)
        found = suggest_encodings(content[begin : begin + _LOOKED_AT])
    if found:
        shown = [f"{codec}: {_show(text)!r}" for codec, text in found[:3]]
        problem += f"; it looks like {shown[0]}"
        if shown[1:]:
            problem += f" (or {', '.join(shown[1:])})"
        best = found[0][0]
        iconv = f"iconv -f {_ICONV.get(best, best.upper())} -t UTF-8 {old} > {new}"
        remedy = f"Set data.encoding: {best}, or convert it: {iconv}"
    return DataError(str(file.path), problem, remedy)


def _show(text: str) -> str:
    """Return what is around the first letters that are not ASCII."""
    found = _NOT_ASCII.search(text)
    at = found.start() if found else 0
    start = max(text.rfind("\n", 0, at) + 1, at - 4)
    return text[start : start + _SHOWN].splitlines()[0]
