"""The report: complete, self-contained, and deaf to what is inside the data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from html_pages import HOSTILE, parsed

from groundup.core.errors import RunError
from groundup.reports.page import find_answer_cards, highlight_yaml, write_report


def make_run(folder: Path, name: str = "tiny", **files: Any) -> Path:
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = [
        {
            "kind": "train",
            "step": step,
            "loss": 5.0 / step,
            "lr": 1e-3,
            "gradient_norm": 1.0,
            "tokens": step * 64,
            "tokens_per_s": 900.0,
            "matmul_share": 0.5,
            "memory_bytes": 2**29,
            "elapsed_s": step * 0.1,
        }
        for step in range(1, 61)
    ]
    rows += [
        {"kind": "evaluate", "step": 60, "loss": 1.5, "perplexity": 4.48, "bits_per_byte": 1.25}
    ]
    rows += [{"kind": "sample", "step": 60, "prompt": HOSTILE, "text": "床前明月光"}]
    rows += [{"kind": "event", "step": 30, "message": f"resumed {HOSTILE}"}]
    (folder / "metrics.jsonl").write_text(
        "\n".join(json.dumps(row) for row in rows) + '\n{"kind": "tra', "utf-8"
    )
    (folder / "recipe.yaml").write_text(
        f"name: {name}\nmodel:\n  name: gpt  # {HOSTILE}\n", "utf-8"
    )
    table = {
        "title": HOSTILE,
        "columns": ["question", "before", "after"],
        "rows": [[HOSTILE, None, HOSTILE]],
    }
    plain = {
        "title": "Plain",
        "columns": ["module", "bytes"],
        "rows": [[HOSTILE, 3], "not a row"],
        "note": HOSTILE,
    }
    metrics = {
        "bits_per_byte": 2.1,
        "baseline_xz_bits_per_byte": 2.8,
        "rouge_l": 0.2,
        "base_rouge_l": 0.1,
    }
    files = {
        "evaluation": {"metrics": metrics, "tables": [table, plain, {"title": "no columns"}]},
        "data_card": {
            "samples": [{"text": HOSTILE}],
            HOSTILE: [1, HOSTILE],
            "counts": {"kept": 7},
            "empty": [],
        },
        "environment": {"python": "3.11", "note": HOSTILE},
        **files,
    }
    for file, content in files.items():
        (folder / f"{file}.json").write_text(json.dumps(content), "utf-8")
    return folder


@pytest.mark.slow
def test_a_report_is_well_formed_and_shows_every_part(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", "pretrain"), make_run(tmp_path / "b", "finetune")]
    output = write_report(runs, tmp_path / "out" / "report.html")
    page = output.read_text("utf-8")
    text = " ".join(parsed(page).words)
    for expected in (
        "pretrain → finetune",
        "Learning rate",
        "Gradient norm",
        "Throughput",
        "Share of the machine",
        "床前明月光",
        "xz -9 of the text alone",
        "ROUGE-L",
        "Data card",
        "environment.json",
        "0.75 × xz -9",
        "1 line of metrics.jsonl could not be read",
        "3.11",
    ):
        assert expected in text, expected
    assert page.count('id="run-2"') == 1
    assert set(re.findall(r'href="#([\w-]+)"', page)) <= set(re.findall(r'id="([\w-]+)"', page))


@pytest.mark.slow
def test_what_is_written_has_a_card_and_a_chart(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    rows = [{"kind": "evaluate", "step": n, "loss": 2.0, "bleu": 3.0 * n} for n in (10, 20, 30)]
    with (run / "metrics.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    metrics = {"bleu": 8.5, "bleu_low_95": 7.5, "bleu_high_95": 9.5, "cer": 0.25}
    (run / "evaluation.json").write_text(json.dumps({"metrics": metrics}), "utf-8")
    page = write_report([run], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Held-out bleu" in page
    assert "Held-out cer" not in page
    cards = page[: page.index("best validation loss")]
    assert "8.500" in cards
    assert "0.250" in cards


def test_nothing_from_the_data_becomes_markup_and_nothing_is_loaded(tmp_path: Path) -> None:
    make_run(tmp_path / "a", name="'<b>bold</b>'")
    page = write_report([tmp_path / "a"], tmp_path / "report.html").read_text("utf-8")
    tags = parsed(page)
    assert not {"script", "img", "iframe", "link", "object"} & set(tags.seen)
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;") >= 8
    assert not [name for name, _ in tags.attributes if name.startswith("on") or name == "src"]
    assert not re.search(r"https?://|@import|url\(", page)


def test_a_run_that_has_only_begun_still_has_a_report(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("name: [broken", "utf-8")
    (folder / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 1, "loss": NaN}\n[]\n', "utf-8"
    )
    (folder / "evaluation.json").write_text("{", "utf-8")
    parsed(write_report([folder], tmp_path / "report.html").read_text("utf-8"))


def test_a_report_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="got no run folder"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(RunError, match="is not a run: it has no recipe"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(RunError, match="is not a folder"):
        write_report([tmp_path / "missing"], tmp_path / "report.html")


def test_answer_cards_recognise_questions_and_sides() -> None:
    columns = ["Question", "Documentation", "Before", "After", "ROUGE-L"]
    cards = find_answer_cards({"columns": columns, "rows": [["q", "d", "b", "a", 0.5], ["q2"]]})
    assert cards[0]["question"] == "q"
    assert [role for _, _, role in cards[0]["answers"]] == ["reference", "before", "after"]
    assert cards[0]["rest"] == [("ROUGE-L", 0.5)]
    assert cards[1]["answers"][0][1] is None
    assert find_answer_cards({"columns": ["module", "after"], "rows": [["m", "x"]]}) == []


def test_yaml_is_highlighted_and_escaped() -> None:
    shown = highlight_yaml("# <a>\nname: x # why\n  - item: <b>\nplain")
    assert '<span class="c"># &lt;a&gt;</span>' in shown
    assert (
        '<span class="k">name</span>:<span class="v"> x</span><span class="c"> # why</span>'
        in shown
    )
    assert "<b>" not in shown
