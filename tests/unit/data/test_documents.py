"""Mails and web pages become text by a stated rule, and what is left out of them is counted."""

from __future__ import annotations

from collections import Counter
from email.message import EmailMessage
from pathlib import Path

import pytest

from groundup.data.reading.documents import html_to_text, is_raw_mail, mail_to_text
from groundup.data.sources.labelled_text import LabelledText
from groundup.data.sources.text import TextSource

RAW = b"""Return-Path: <someone@example.org>
Received: from a.example by b.example; Mon, 1 Jan 2001 00:00:00
From: Someone <someone@example.org>
Subject: =?iso-8859-1?q?Caf=E9?= at noon
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

Meet me at the caf\xe9.
"""


def mail(subject: str, text: str, page: str = "", attachment: bytes = b"") -> bytes:
    made = EmailMessage()
    made["From"] = "someone@example.org"
    made["Subject"] = subject
    made.set_content(text)
    if page:
        made.add_alternative(page, subtype="html")
    if attachment:
        made.add_attachment(attachment, "image", "png", filename="a.png")
    return bytes(made)


def read(content: bytes) -> tuple[str, dict[str, int]]:
    notes: Counter[str] = Counter()
    return mail_to_text(content, notes), {what: n for what, n in notes.items() if n}


def test_a_mail_is_its_subject_and_its_plain_text() -> None:
    assert read(RAW) == ("Café at noon\n\nMeet me at the café.", {"mails": 1})
    assert read(mail("Hello", "plain é")) == ("Hello\n\nplain é", {"mails": 1})
    text, notes = read(mail("Hello", "plain", "<p>page</p>", b"\x89PNG"))
    assert text == "Hello\n\nplain"
    left_out = "web pages in mails left out, next to plain text"
    assert notes == {"mails": 1, left_out: 1, "attachments left out": 1}


@pytest.mark.slow
def test_a_mail_of_a_web_page_alone() -> None:
    made = EmailMessage()
    made["Subject"] = "Offer"
    made.set_content("<h1>Buy</h1><style>p {}</style><p>now &amp; here", subtype="html")
    assert read(bytes(made)) == ("Offer\n\nBuy\nnow & here", {"mails": 1})


@pytest.mark.parametrize(
    ("charset", "body", "text"),
    [
        ("nonsense", b"caf\xc3\xa9", "café"),
        ("us-ascii", b"caf\xe9 \x93quoted\x94", "café “quoted”"),
        ("gb2312", "很好".encode("gb2312"), "很好"),
    ],
)
def test_parts_in_another_encoding_than_they_say(charset: str, body: bytes, text: str) -> None:
    head = f"Subject: x\nContent-Type: text/plain; charset={charset}\n\n".encode()
    odd = {} if charset == "gb2312" else {"mail parts in another encoding than they say": 1}
    assert read(head + body) == (f"x\n\n{text}", {"mails": 1} | odd)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"Subject: =?nonsense?b?!!!?=\n\n",
        b"Content-Type: multipart/mixed; boundary=x\n\nno parts",
        b"Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\n!!!not base64",
        b"Subject: \xff\xfe\n\xff: broken\n\ntext",
        b"Content-Type: text/html\n\n" + b"<div>" * 5000 + b"deep",
        b"Content-Type: text/html\n\n<![if x]><!DOCTYPE <a href=",
    ],
)
def test_mails_that_are_damaged_are_read(content: bytes) -> None:
    assert isinstance(read(content)[0], str)


def test_what_a_raw_mail_begins_with() -> None:
    assert is_raw_mail(RAW)
    assert is_raw_mail(b"From a@example.org Mon Jan  1 00:00:00 2001\n")
    assert not is_raw_mail(b"From here to there it is far.\nSubject: none\n")


def test_web_pages() -> None:
    page = (
        "<html><head><title>A title</title><script>x()</script></head><body><!-- no -->"
        "<h1>Hi <b>you</b></h1><p>one\n two<br>three<ul><li>a<li>b</ul><pre>x\n y</pre>"
        "<table><tr><td>1<td>2</table>end"
    )
    lines = ["A title", "Hi you", "one two", "three", "a", "b", "x", "y", "1", "2", "end"]
    assert html_to_text(page).split("\n") == lines


@pytest.mark.slow  # which is the time to import the library
def test_web_pages_say_their_encoding(tmp_path: Path) -> None:
    page = '<meta charset="gb2312"><p>很好的电影'
    (tmp_path / "a.html").write_bytes(page.encode("gb2312"))
    (tmp_path / "b.HTM").write_bytes("<p>很好".encode())
    source = TextSource(path=str(tmp_path), fraction=0.0)
    found = [e.text for e in source.examples("train", tmp_path / "cache")]
    assert found == ["很好的电影", "很好"]


@pytest.mark.parametrize("name", ["{}.eml", "{}", "{}.txt", "0{}.7c53336b37003a9286aba55d294584"])
def test_folders_of_mails(tmp_path: Path, name: str) -> None:
    for label in ("ham", "spam"):
        for number in range(6):
            path = tmp_path / "mails" / label / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(RAW.replace(b"noon", f"{label} {number}".encode()))
    (tmp_path / "mails" / "ham" / "cmds").write_bytes(b"mv 1 2\n\0")
    source = LabelledText(path=str(tmp_path / "mails"), fraction=0.3)
    found = [e for split in source.splits() for e in source.examples(split, tmp_path)]
    assert sorted(e.inputs.split("\n")[0] for e in found) == sorted(
        f"Café at {label} {n}" for label in ("ham", "spam") for n in range(6)
    )
    card = source.card(tmp_path)
    assert card["files"] == {
        "found": 13,
        "read": 12,
        "left_out": {"of other kinds": 1},
        "other_kinds": "no suffix 1",
    }
    assert card["met_in_files"] == {"mails": 12}


def test_a_mailbox_holds_several_mails(tmp_path: Path) -> None:
    between = b"From a@example.org Mon Jan  1 00:00:00 2001\n"
    body = RAW.replace(b"Meet", b"From noon on\n>From us all: Meet")
    for name, count in (("a.mbox", 3), ("b", 2)):
        (tmp_path / name).write_bytes(b"\n".join([between + body] * count))
    source = TextSource(path=str(tmp_path), fraction=0.0, cleaning={"drop_exact_duplicates": False})
    found = list(source.examples("train", tmp_path / "cache"))
    assert [e.name for e in found] == ["a.mbox:1", "a.mbox:2", "a.mbox:3", "b:1", "b:2"]
    assert found[0].text.split("\n")[2:4] == ["From noon on", "From us all: Meet me at the café."]
