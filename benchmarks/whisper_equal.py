"""Whether groundup writes the same tokens about real sounds as other programs with the same
weights: transformers, and CTranslate2 with the folder that ``groundup export`` wrote.

Run ``python benchmarks/whisper_equal.py FOLDER SOUNDS [SOUNDS ...] [--number 200] [--beams 1]
[--ctranslate2 EXPORT] [--no-transformers] [--threads 1]``: FOLDER is what ``whisper_tiny_en.py``
writes, EXPORT is ``groundup export FOLDER --to ctranslate2``, and SOUNDS are folders of .wav or
.ogg, of which the number is taken, evenly. Sounds are read one by one, each in the model's own
window of 30 seconds.

Of each text that is not the same, the first tokens that differ are printed, and by how much
groundup's model prefers its own: the logarithm of their probabilities' quotient, and with several
beams the difference of the two texts' scores. Where that is near 0, it is rounding that decides.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from whisper_decode import engine_way, own_model, own_way, sound_frames, transformers_way

from groundup.formats.huggingface_folder import read_object
from groundup.models.whisper import WhisperConfig

__all__ = ["main"]


def main() -> None:
    """Print what differs, and how many texts are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sounds", type=Path, nargs="+")
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--ctranslate2", type=Path)
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    others = {}
    if not given.no_transformers:
        others["transformers"] = transformers_way(given.folder, given.beams)
    if given.ctranslate2 is not None:
        folder = given.ctranslate2
        others["CTranslate2"] = engine_way(
            folder, given.folder, given.beams, "float32", given.threads
        )
    own = own_way(given.folder, given.beams, 30)
    model = own_model(given.folder, 30)
    end = int(read_object(given.folder / "generation_config.json")["eos_token_id"])
    paths = sorted(
        path
        for folder in given.sounds
        for kind in ("wav", "ogg")
        for path in folder.rglob(f"*.{kind}")
    )
    paths = paths[:: max(1, len(paths) // given.number)][: given.number]
    same = dict.fromkeys(others, 0)
    tokens = 0
    begin = time.process_time()
    for path in paths:
        frames = sound_frames(path)
        text = own(frames)
        tokens += len(text)
        for name, way in others.items():
            found = [token for token in way(frames) if token < end]
            same[name] += found == text
            if found != text:
                print(
                    f"{path.name}: {name}: {describe(model, frames, text, found, end)}", flush=True
                )
    for name, count in same.items():
        print(f"{count} of {len(paths)} texts are {name}'s, beams {given.beams}")
    print(f"{tokens} tokens, {time.process_time() - begin:.0f} CPU seconds")


@torch.no_grad()
def describe(model: Any, frames: Tensor, own: list[int], other: list[int], end: int) -> str:
    """Return in words how two texts differ."""
    texts = ([*own, end], [*other, end])
    place = next(n for n, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1])
    logs = [log_probs(model, frames, text) for text in texts]
    here = logs[0][place]
    gap = float(here[texts[0][place]] - here[texts[1][place]])
    scores = [
        float(each.gather(1, torch.tensor(text)[:, None]).mean())
        for each, text in zip(logs, texts, strict=True)
    ]
    return (
        f"token {place}: {texts[0][place]} and not {texts[1][place]}, log quotient {gap:.2g};"
        f" mean log p {scores[0]:.7f} and {scores[1]:.7f}; lengths {len(own)} and {len(other)}"
    )


def log_probs(model: Any, frames: Tensor, text: list[int]) -> Tensor:
    """Return the log-probabilities (T, V) of all tokens at each place of a text."""
    config: WhisperConfig = model.config
    before = [model.start_id, *config.prompt_ids]
    tokens = torch.tensor([[*before, *text[:-1]]])
    logits = model(tokens=tokens, inputs=frames)[0, len(before) - 1 :].double()
    return logits.log_softmax(-1)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
