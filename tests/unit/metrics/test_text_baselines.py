"""What a text is answered with without a model."""

from __future__ import annotations

from groundup.metrics.text_baselines import (
    BASELINES,
    baseline_outputs,
    nearest_texts,
    sentences_of,
)

SOURCE = "A title\n\nOpen the file, and\nread it. Then close it!  你好。再见。"


def test_sentences() -> None:
    assert sentences_of(SOURCE) == [
        "A title",
        "Open the file, and read it.",
        "Then close it!",
        "你好。",
        "再见。",
    ]
    assert sentences_of('It is "so." Version 3.5 runs.') == ['It is "so.', "Version 3.5 runs."]
    assert sentences_of(" \n ") == []


def test_baselines() -> None:
    found = {
        name: baseline_outputs(name, [SOURCE, "?"], ["close the door", "read a file"], ["a", "b"])
        for name in BASELINES
    }
    assert found == {
        "copy": [SOURCE, "?"],
        "nearest": ["b", "a"],
        "lead": ["A title", "?"],
        "longest": ["Open the file, and read it.", "?"],
    }


def test_nearest_counts_rare_words_more_than_common_ones_and_order_too() -> None:
    among = [
        "the the the the",
        "the yellow submarine",
        "dog bites man",
        "man bites dog",
        "删除文件夹",
    ]
    texts = ["the submarine", "man bites dog now", "the", "文件夹", "nothing", ""]
    assert nearest_texts(texts, among) == [1, 3, 0, 4, 0, 0]
