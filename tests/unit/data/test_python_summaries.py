"""First sentences of docstrings: what is taken for one, and that no source is on two sides."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from groundup.data.sources.python_summaries import PythonSummaries, spell_words, split_docstring

BODY = "It does so for each thing in turn, and returns how many there were of kind"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of 60 modules, of which some share a docstring's body."""
    folder = tmp_path / "library"
    folder.mkdir()
    for number in range(60):
        # so many words of its own that no module is held out together with another
        words = " ".join(f"word{number * 100 + i}" for i in range(60))
        (folder / f"module{number:02}.py").write_text(
            f'"""{words}"""\n'
            f'def act(a):\n    """Perform action {number}.\n\n    {BODY} {number % 30}.\n    """\n'
            f'def again(a):\n    """Perform action {number}.\n\n    {BODY} {number % 30}.\n    """\n'
            'def short():\n    """Return it."""\n'
            f'def long():\n    """Return {"very " * 30}much.\n\n    {BODY} {number}.\n    """\n'
            f'def unclear():\n    """Return some, e.g. one.\n\n    {BODY} {number}.\n    """\n'
        )
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(folder))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Pack a box.\n\nIt is\n  closed.", ("Pack a box.", "It is\n  closed.")),
        (
            "Pack a box\nof things. Then close it.\n\nNote.",
            ("Pack a box of things.", "Then close it.\n\nNote."),
        ),
        ("pack(box) -> int\nPack a box.\n\nNote.", ("Pack a box.", "Note.")),
        ("pack(box)\n\nPack a box.", ("", "pack(box)\n\nPack a box.")),
        ("Pack a box, e.g. yours.\n\nNote.", ("", "Pack a box, e.g. yours.\n\nNote.")),
        ("---\n\nNote.", ("", "---\n\nNote.")),
    ],
)
def test_first_sentences(text: str, expected: tuple[str, str]) -> None:
    assert split_docstring(text) == expected


def test_words_of_names(cache: Path) -> None:
    assert spell_words("RawConfigParser.has_section") == "raw config parser has section"
    assert spell_words("(HTTPServer2, max_size=0)") == "http server 2 max size 0"
    plain = PythonSummaries(fraction=0.2, signatures=True).examples("train", cache)
    spelled = PythonSummaries(fraction=0.2, signatures="words").examples("train", cache)
    found = {pair.name: pair.inputs for pair in spelled}
    for pair in plain:
        head, _, rest = pair.inputs.partition("\n\n")
        number = pair.name[6:8]
        assert head.startswith(f"{pair.name}(")
        assert found[pair.name] == f"module {number} {pair.name.rpartition('.')[2]} : a | {rest}"


def test_pairs_are_split_by_module_and_counted(cache: Path) -> None:
    source = PythonSummaries(fraction=0.2, test=0.1)
    sides = {split: source.examples(split, cache) for split in source.splits()}
    assert list(sides) == ["train", "validation", "test"]
    for pair in (pair for own in sides.values() for pair in own):
        number = int(pair.name[6:8])
        assert pair.name.endswith(".act")
        assert (pair.inputs, pair.target) == (f"{BODY} {number % 30}.", f"Perform action {number}.")
        assert pair.texts == (pair.inputs, pair.target)
        assert pair.origin == f"module{number:02}.py line 2"
    read = {split: {pair.inputs for pair in own} for split, own in sides.items()}
    assert not read["train"] & (read["validation"] | read["test"])
    card = source.card(cache)
    counted = card["rows"]["left_out"]
    repeated = counted.pop("with a source that is held out as well")
    assert counted == {
        "the same as an earlier pair": 60,
        "with a first sentence of over 30 words": 60,
        "with a source of less than 8 words": 60,
        "without a first sentence": 60,
    }
    assert card["rows"]["read"] == sum(map(len, sides.values())) == 60 - repeated < 60
    assert card["rows"]["found"] == 300
    named = PythonSummaries(fraction=0.2, signatures=True).examples("validation", cache)
    assert named[0].inputs.split("\n\n") == [
        f"{named[0].name}(a)",
        f"{BODY} {int(named[0].name[6:8]) % 30}.",
    ]
