"""Pairs of paragraphs of LibreOffice's help, which people have translated: written for recipes, and
what translates them without any model.

Get Debian's packages with ``apt-get download libreoffice-help-en-us libreoffice-help-de`` (or
``-zh-cn``), unpack each with ``dpkg-deb -x FILE.deb FOLDER``, all into one folder, then run
``python benchmarks/libreoffice_help.py FOLDER de OUT.jsonl``. The help is under the MPL 2.0.

A row has ``source``, ``target`` and ``page``, the file that both are in; paragraphs belong together
by the page and by their ids. Rows whose target is the source itself are not translated and left
out, and so are repeated ones. With ``--score`` the pages that ``parallel_text`` holds out for
validation are translated by each baseline, and BLEU and chrF are printed with 95% intervals.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.core.settings import validate
from groundup.data.sources.parallel_text import ParallelText
from groundup.metrics.generated_text import score_texts
from groundup.metrics.text_baselines import BASELINES, baseline_outputs

__all__ = ["main"]

PLACE = "usr/share/libreoffice/help"
PARAGRAPH = re.compile(r'<(p|h[1-6]) id="((?:par|hd)_\w+)"[^>]*>(.*?)</\1>', re.S)
TAG = re.compile(r"<[^>]*>")


def main() -> None:
    """Write the pairs, and score the baselines on those that are held out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the packages were unpacked")
    parser.add_argument("language", help="of the targets: de, zh-CN ...")
    parser.add_argument("out", type=Path, help="the .jsonl to write")
    parser.add_argument("--score", action="store_true", help="score the baselines")
    given = parser.parse_args()
    rows = list(dict.fromkeys(read_pairs(given.folder / PLACE, given.language)))
    with given.out.open("w", encoding="utf-8") as file:
        for source, target, page in rows:
            row = {"source": source, "target": target, "page": page}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    pairs = len({row[:2] for row in rows})
    print(
        f"{len(rows):,} rows of {len({row[2] for row in rows}):,} pages, {pairs:,} different pairs"
    )
    if given.score:
        score_baselines(given.out, "zh" if given.language.startswith("zh") else "13a")


def read_pairs(folder: Path, language: str) -> Iterator[tuple[str, str, str]]:
    """Yield (source, target, page) in the order of the English pages."""
    root = folder / "en-US" / "text"
    for path in sorted(root.rglob("*.html")):
        page = path.relative_to(root)
        other = folder / language / "text" / page
        if other.is_file():
            translated = paragraphs(other)
            for name, source in paragraphs(path).items():
                target = translated.get(name, "")
                if source and target and source != target:
                    yield source, target, page.as_posix()


def paragraphs(path: Path) -> dict[str, str]:
    """Return the paragraphs of a page by their ids, without marks and on one line."""
    text = path.read_text(encoding="utf-8")
    return {
        name: " ".join(html.unescape(TAG.sub("", inner)).split())
        for _, name, inner in PARAGRAPH.findall(text)
    }


def score_baselines(path: Path, tokenizer: str) -> None:
    """Print what each baseline reaches on the held-out pages."""
    settings: dict[str, Any] = {"path": str(path), "group_column": "page"}
    source = validate(ParallelText, settings, "data")
    card = source.card(path.parent)
    print(json.dumps(card, ensure_ascii=False, indent=1))
    sides = {split: source.examples(split, path.parent) for split in source.splits()}
    read = {split: [pair.inputs for pair in own] for split, own in sides.items()}
    written = {split: [pair.target for pair in own] for split, own in sides.items()}
    for name in BASELINES:
        begin = time.perf_counter()
        found = baseline_outputs(name, read["validation"], read["train"], written["train"])
        seconds = time.perf_counter() - begin
        scores = score_texts(
            ["bleu", "chrf"], found, written["validation"], bleu_tokenizer=tokenizer
        )
        for score in scores.values():
            shown = f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}] {score.signature}"
            print(f"{name} ({seconds:.1f} s): {shown}", flush=True)


if __name__ == "__main__":
    main()
