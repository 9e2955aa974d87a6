"""Word error rates of recognisers on one speaker's held-out prompts and on what other people read.

Run ``python benchmarks/whisper_voice.py VOICE OTHERS MODEL [MODEL ...]``: VOICE is what
``asterisk_voice.py`` writes, OTHERS what ``tuxpaint_captions.py`` writes, and a MODEL is a run, or a
folder of pretrained weights. Of the voice the split ``test`` is transcribed, of the others all that
is there; each as ``groundup predict`` does it. With ``--mix RUN BASE SHARE ...`` also the weights
that are a share of the way from BASE's to RUN's, for each of the shares.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import groundup
from groundup.core.settings import validate
from groundup.core.values import Example
from groundup.data.sources.speech import Speech
from groundup.inference.predictor import Predictor
from groundup.metrics.error_rates import NORMALISERS, score_transcripts

__all__ = ["main"]


def main() -> None:
    """Print a line for each model and set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("voice", type=Path)
    parser.add_argument("others", type=Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--mix", nargs="+", default=[], metavar="RUN BASE SHARE")
    parser.add_argument("--out", type=Path, help="write all transcripts there, as JSON lines")
    given = parser.parse_args()
    sets = {
        "voice": examples_of(given.voice, ("test",)),
        "others": examples_of(given.others, ("train", "validation", "test")),
    }
    for model in given.models:
        measure(str(model), groundup.load(model), sets, given.out)
    if given.mix:
        run, base, *shares = given.mix
        first = groundup.load(base).model.state_dict()
        tuned = groundup.load(run)
        last = {name: value.clone() for name, value in tuned.model.state_dict().items()}
        for share in map(float, shares):
            mixed = {name: first[name] + share * (last[name] - first[name]) for name in last}
            tuned.model.load_state_dict(mixed)
            measure(f"{share:g} of the way to {run}", tuned, sets, given.out)


def examples_of(path: Path, splits: Sequence[str]) -> list[Example]:
    """Return the sounds of a folder with their transcripts."""
    settings: dict[str, Any] = {"path": str(path), "max_seconds": None}
    source = validate(Speech, settings, "data")
    found: list[Example] = []
    for split in splits:
        if split in source.splits():
            found += source.examples(split, path)
    return found


def measure(
    name: str, predictor: Predictor, sets: dict[str, list[Example]], out: Path | None
) -> None:
    """Print the word error rates of a model on each set, with their 95% intervals."""
    for kind, examples in sets.items():
        begin = time.process_time()
        rows = predictor([each.inputs for each in examples])
        seconds = time.process_time() - begin
        texts = [row["text"] for row in rows]
        references = [str(each.target) for each in examples]
        shown = []
        for normaliser in NORMALISERS:
            found = score_transcripts(["wer"], texts, references, normaliser=normaliser)["wer"]
            bounds = f"[{100 * found.low:.2f}, {100 * found.high:.2f}]"
            shown.append(f"{normaliser} {100 * found.value:.2f}% {bounds}")
        print(
            f"{name}: {kind}, {len(examples)} sounds: {'; '.join(shown)} ({seconds:.0f} CPU s)",
            flush=True,
        )
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                for text, reference in zip(texts, references, strict=True):
                    row = {"model": name, "set": kind, "reference": reference, "text": text}
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
