"""Descriptions of Debian's packages with the one-line synopsis that their maintainers wrote, as
rows for recipes, and what summarises them without any model.

Get the index with ``apt-get -o Acquire::Languages=en update``; two of its files, under
/var/lib/apt/lists, are called ``*_main_binary-amd64_Packages*`` and ``*_main_i18n_Translation-en*``.
Print each with ``/usr/lib/apt/apt-helper cat-file FILE > NAME``, which unpacks it, then run
``python benchmarks/debian_synopsis.py PACKAGES TRANSLATION OUT.jsonl``. The texts are under the
licences of their packages.

A row has ``source``, the long description on one line, ``target``, the synopsis, and ``origin``,
the source package: many packages of one repeat each other, and belong on one side of a split. What
a synopsis says in parentheses at its end, as "(development files)", stays. Descriptions of fewer
than eight words are left out, and so are rows that are repeated. With ``--score`` the packages that
``parallel_text`` holds out for validation are summarised by each baseline, and ROUGE-L is printed
with 95% intervals.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup.core.settings import validate
from groundup.data.sources.parallel_text import ParallelText
from groundup.metrics.generated_text import score_texts
from groundup.metrics.text_baselines import BASELINES, baseline_outputs

__all__ = ["main"]

FEWEST_WORDS = 8


def main() -> None:
    """Write the pairs, and score the baselines on those that are held out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packages", type=Path, help="the index of packages, unpacked")
    parser.add_argument("translation", type=Path, help="the descriptions, unpacked")
    parser.add_argument("out", type=Path, help="the .jsonl to write")
    parser.add_argument("--score", action="store_true", help="score the baselines")
    given = parser.parse_args()
    left_out: Counter[str] = Counter()
    found = read_rows(given.packages, given.translation, left_out)
    rows = list(dict.fromkeys(found))
    with given.out.open("w", encoding="utf-8") as file:
        for source, target, origin in rows:
            row = {"source": source, "target": target, "origin": origin}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    origins = len({row[2] for row in rows})
    print(f"{len(rows):,} rows of {origins:,} source packages; left out: {dict(left_out)}")
    if given.score:
        score_baselines(given.out)


def read_rows(
    packages: Path, translation: Path, left_out: Counter[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield (description, synopsis, source package) in the order of the index."""
    origins: dict[str, str] = {}
    for fields in paragraphs(packages):
        name = fields["Package"]
        # "Source: gcc-12 (12.2.0-14)" where the version differs; none where the names agree.
        origins[name] = fields.get("Source", name).split()[0]
    for fields in paragraphs(translation):
        synopsis, _, description = fields["Description-en"].partition("\n")
        # A line with a dot alone separates paragraphs.
        lines = [line.strip() for line in description.split("\n") if line.strip() != "."]
        source = " ".join(" ".join(lines).split())
        if fields["Package"] not in origins:
            left_out["not in the index of packages"] += 1
        elif len(source.split()) < FEWEST_WORDS:
            left_out[f"of fewer than {FEWEST_WORDS} words"] += 1
        else:
            yield source, synopsis.strip(), origins[fields["Package"]]


def paragraphs(path: Path) -> Iterator[dict[str, str]]:
    """Yield each paragraph of a Debian control file as its fields; lines that go on are kept as
    lines."""
    fields: dict[str, str] = {}
    name = ""
    with path.open(encoding="utf-8") as file:
        for line in file:
            text = line.rstrip("\n")
            if not text:
                if fields:
                    yield fields
                fields = {}
            elif text[0].isspace():
                fields[name] += "\n" + text
            else:
                name, _, value = text.partition(":")
                fields[name] = value.strip()
    if fields:
        yield fields


def score_baselines(path: Path) -> None:
    """Print what each baseline reaches on the held-out packages."""
    settings: dict[str, Any] = {"path": str(path), "group_column": "origin"}
    source = validate(ParallelText, settings, "data")
    print(json.dumps(source.card(path.parent), ensure_ascii=False, indent=1))
    sides = {split: source.examples(split, path.parent) for split in source.splits()}
    held_out = sides["validation"]
    inputs = [pair.inputs for pair in held_out]
    references = [pair.target for pair in held_out]
    known = ([pair.inputs for pair in sides["train"]], [pair.target for pair in sides["train"]])
    for name in BASELINES:
        found = baseline_outputs(name, inputs, *known)
        score = score_texts(["rouge_l"], found, references)["rouge_l"]
        print(f"{name}: {score.value:.4f} [{score.low:.4f}, {score.high:.4f}]", flush=True)


if __name__ == "__main__":
    main()
