"""Whether groundup writes the same tokens about real sounds as other programs with the same
weights: transformers, and CTranslate2 with the folder that ``groundup export`` wrote.

Run ``python benchmarks/whisper_equal.py FOLDER SOUNDS [SOUNDS ...] [--number 200] [--beams 1 5]
[--ctranslate2 EXPORT] [--no-transformers] [--part 0 1] [--threads 1]``: FOLDER is what
``whisper_tiny_en.py`` writes, EXPORT is ``groundup export FOLDER --to ctranslate2``, and SOUNDS are
folders of .wav or .ogg, of which the number is taken, evenly; of these ``--part 1 4`` takes the
second quarter. Sounds are read one by one, each in the model's own window of 30 seconds: once by
each program, which then writes with each number of beams.

Of each text that is not the same, the first tokens that differ are printed, and by how much
groundup's model prefers its own: the logarithm of their probabilities' quotient, and the mean
log-probability of each text. Where these are near 0, or equal, it is rounding that decides.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from whisper_decode import own_model, sound_frames

from groundup.formats.huggingface_folder import read_object
from groundup.generation.beam_search import beam_search
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions

__all__ = ["main"]

# Of frames, the text with each number of beams, without its end.
Writes = Callable[[Tensor], dict[int, list[int]]]


def main() -> None:
    """Print what differs, and how many texts are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sounds", type=Path, nargs="+")
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--beams", type=int, nargs="+", default=[1])
    parser.add_argument("--ctranslate2", type=Path)
    parser.add_argument("--no-transformers", action="store_true")
    parser.add_argument("--part", type=int, nargs=2, default=[0, 1])
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    end = int(read_object(given.folder / "generation_config.json")["eos_token_id"])
    model = own_model(given.folder, 30)
    own = write_with_groundup(model, given.beams, end)
    others: dict[str, Writes] = {}
    if not given.no_transformers:
        others["transformers"] = write_with_transformers(given.folder, given.beams, end)
    if given.ctranslate2 is not None:
        others["CTranslate2"] = write_with_ctranslate2(given.ctranslate2, model, given.beams)
    part, parts = given.part
    paths = choose(given.sounds, given.number)[part::parts]
    same = {(name, beams): 0 for name in others for beams in given.beams}
    tokens = 0
    begin = time.process_time()
    for path in paths:
        frames = sound_frames(path)
        texts = own(frames)
        tokens += sum(map(len, texts.values()))
        for name, write in others.items():
            for beams, found in write(frames).items():
                text = texts[beams]
                same[name, beams] += found == text
                if found != text:
                    told = describe(model, frames, text, found, end)
                    print(f"{path.name}: {name}, beams {beams}: {told}", flush=True)
    for (name, beams), count in same.items():
        print(f"beams {beams}: {count} of {len(paths)} texts are the same as {name}'s")
    print(f"{tokens} tokens, {time.process_time() - begin:.0f} CPU seconds")


def choose(folders: Sequence[Path], number: int) -> list[Path]:
    """Return so many sounds, evenly from folders."""
    paths = sorted(
        path
        for folder in folders
        for ending in ("wav", "ogg")
        for path in folder.rglob(f"*.{ending}")
    )
    places = np.linspace(0, len(paths) - 1, min(number, len(paths))).round().astype(int)
    return [paths[place] for place in places]


def write_with_groundup(model: Any, beams: Sequence[int], end: int) -> Writes:
    """Return what writes as a run's predictor does on a CPU."""
    decoder = model.decoder()
    never, first = model.suppressed
    prompt = [[model.start_id, *model.prompt_ids]]

    def options(number: int) -> DecodingOptions:
        return DecodingOptions(
            temperature=0,
            max_new_tokens=444,
            beams=number,
            overflow="stop",
            suppress_tokens=never,
            begin_suppress_tokens=first,
        )

    @torch.no_grad()
    def write(frames: Tensor) -> dict[int, list[int]]:
        cache = decoder.new_cache(1, 1)
        decoder.encode(cache, inputs=frames)
        inputs = dict(cache.encoded)
        found = {}
        for number in beams:
            if number == 1:
                texts = generate_batch(decoder, prompt, options(1), {end}, inputs=inputs)
                found[1] = texts[0]
            else:
                best = beam_search(decoder, prompt, options(number), {end}, inputs)
                found[number] = best[0][0].tokens
        return found

    return write


def write_with_transformers(folder: Path, beams: Sequence[int], end: int) -> Writes:
    """Return what writes with transformers."""
    import transformers
    from transformers.modeling_outputs import BaseModelOutput

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(folder).float().eval()

    @torch.no_grad()
    def write(frames: Tensor) -> dict[int, list[int]]:
        states = model.get_encoder()(frames.transpose(1, 2)).last_hidden_state
        found = {}
        for number in beams:
            # Its own copy: the library repeats it for each beam.
            read = BaseModelOutput(last_hidden_state=states.clone())
            row = model.generate(encoder_outputs=read, num_beams=number)[0].tolist()
            # All tokens but those of texts are numbered from the end token on.
            found[number] = [token for token in row if token < end]
        return found

    return write


def write_with_ctranslate2(folder: Path, model: Any, beams: Sequence[int]) -> Writes:
    """Return what writes with CTranslate2, in float32."""
    import ctranslate2

    threads = torch.get_num_threads()
    engine = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=threads)
    prompt = [model.start_id, *model.prompt_ids]

    def write(frames: Tensor) -> dict[int, list[int]]:
        given = np.ascontiguousarray(frames.transpose(1, 2).numpy())
        states = engine.encode(ctranslate2.StorageView.from_array(given))
        return {
            number: engine.generate(states, [prompt], beam_size=number)[0].sequences_ids[0]
            for number in beams
        }

    return write


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
    before = [model.start_id, *model.prompt_ids]
    tokens = torch.tensor([[*before, *text[:-1]]])
    logits = model(tokens=tokens, inputs=frames)[0, len(before) - 1 :].double()
    return logits.log_softmax(-1)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
