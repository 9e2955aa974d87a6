"""Writing what is said in sounds, one at a time: groundup against transformers and faster-whisper,
with the same weights and the same sounds.

Run ``python benchmarks/whisper_decode.py FOLDER SOUNDS [--number 10] [--rounds 3] [--threads 1]
[--beams 1] [--ctranslate2 FOLDER] [--save]``, where FOLDER and the other are what
``whisper_tiny_en.py --check`` writes, and SOUNDS is a folder of .wav. Ways take turns, sound by
sound and round by round; frames are made beforehand, as transformers' own extractor makes them, and
are not in the time. "CPU" is the seconds of this process, which a busy machine changes less.
Tokens are compared with those of transformers; times are medians over sounds of the best round.

Ways: transformers in fp32; groundup in fp32; groundup with a window of 10 seconds, which changes
what is computed; CTranslate2 (faster-whisper's engine) in fp32 and int8.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groundup.core.settings import validate
from groundup.formats.huggingface_folder import find_pretrained, read_config, read_object
from groundup.generation.beam_search import beam_search
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.machine.devices import describe_machine
from groundup.media.audio import read_sound
from groundup.media.resampling import resample
from groundup.models.whisper import WhisperConfig
from groundup.processors.spectrogram import whisper_frames
from groundup.weights.load import read_pretrained

__all__ = ["main"]

RATE = 16000
SHORT = 10
Way = Callable[[Tensor], list[int]]


def main() -> None:
    """Measure all ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("sounds", type=Path)
    parser.add_argument("--number", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--ctranslate2", type=Path)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(given.threads)
    end = int(read_object(given.folder / "generation_config.json")["eos_token_id"])
    ways = {
        "transformers fp32": transformers_way(given.folder, given.beams),
        "groundup fp32": own_way(given.folder, given.beams, 30),
        f"groundup fp32, window {SHORT} s": own_way(given.folder, given.beams, SHORT),
    }
    if given.ctranslate2 is not None:
        for kind in ("float32", "int8"):
            name = f"faster-whisper's engine {kind}"
            ways[name] = engine_way(
                given.ctranslate2, given.folder, given.beams, kind, given.threads
            )
    sounds = list(read_frames(given.sounds, given.number))
    texts: dict[str, list[list[int]]] = {name: [[] for _ in sounds] for name in ways}
    took = {name: [[float("inf")] * 2 for _ in sounds] for name in ways}
    for _ in range(given.rounds + 1):
        for number, frames in enumerate(sounds):
            for name, way in ways.items():
                begin, used = time.perf_counter(), cpu_seconds()
                tokens = way(frames)
                seconds = (time.perf_counter() - begin, cpu_seconds() - used)
                own = took[name][number]
                # The best of the rounds: of a busy machine the others say more than of the way.
                took[name][number] = [min(pair) for pair in zip(own, seconds, strict=True)]
                texts[name][number] = [token for token in tokens if token < end]
    report(given, texts, took)


def report(given: argparse.Namespace, texts: dict[str, Any], took: dict[str, Any]) -> None:
    """Print, and save, what was measured."""
    first = "transformers fp32"
    rows = []
    for name in texts:
        wall, cpu = (statistics.median(each[n] for each in took[name]) for n in (0, 1))
        pairs = list(zip(took[first], took[name], strict=True))
        faster = [statistics.median(a[n] / b[n] for a, b in pairs) for n in (0, 1)]
        same = sum(a == b for a, b in zip(texts[first], texts[name], strict=True))
        rows.append((name, wall, cpu, *faster, same))
        print(
            f"{name:36} {wall:.3f} s {cpu:.3f} CPU s  x{faster[0]:.2f} (CPU x{faster[1]:.2f})"
            f"  {same} of {len(texts[name])} texts equal"
        )
    if given.save:
        date = time.strftime("%Y-%m-%d")
        path = Path(__file__).parent / "results" / f"{date}-whisper-decode-beams{given.beams}.json"
        values = {"machine": describe_machine(), "threads": given.threads, "ways": rows}
        path.write_text(json.dumps(values, indent=1, default=str) + "\n", encoding="utf-8")


def cpu_seconds() -> float:
    """Return the seconds that this process has computed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def read_frames(folder: Path, number: int) -> Iterator[Tensor]:
    """Yield the frames (1, 3000, 80) of some sounds, evenly from a folder."""
    paths = sorted(folder.rglob("*.wav"))
    for path in paths[:: max(1, len(paths) // number)][:number]:
        yield sound_frames(path)


def sound_frames(path: Path) -> Tensor:
    """Return the frames (1, 3000, 80) of a sound, with silence after it."""
    sound = read_sound(path)
    samples = resample(sound.samples, sound.rate, RATE)[: 30 * RATE]
    padded = np.pad(samples, (0, 30 * RATE - len(samples)))
    return torch.from_numpy(whisper_frames(padded, 80))[None]


def transformers_way(folder: Path, beams: int) -> Way:
    """Return what writes with transformers."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model: Any = transformers.WhisperForConditionalGeneration.from_pretrained(folder).float().eval()

    @torch.no_grad()
    def write(frames: Tensor) -> list[int]:
        return model.generate(frames.transpose(1, 2), num_beams=beams)[0].tolist()  # type: ignore[no-any-return]

    return write


def own_model(folder: Path, seconds: int) -> Any:
    """Return groundup's model of a folder, with a window of so many seconds."""
    settings = WhisperConfig.from_huggingface(read_config(folder))
    settings |= WhisperConfig.from_generation_config(read_object(folder / "generation_config.json"))
    config = validate(WhisperConfig, {**settings, "window_frames": seconds * 100}, "model")
    model: Any = config.build().eval()
    model.load_state_dict(read_pretrained(find_pretrained(str(folder)), config))
    return model


def own_way(folder: Path, beams: int, seconds: int) -> Way:
    """Return what writes with groundup, with a window of so many seconds."""
    model = own_model(folder, seconds)
    never, first = model.suppressed
    options = DecodingOptions(
        temperature=0,
        max_new_tokens=444,
        beams=beams,
        overflow="stop",
        suppress_tokens=never,
        begin_suppress_tokens=first,
    )
    prompt = [[model.start_id, *model.prompt_ids]]
    # As a run's predictor writes on a CPU.
    model = model.decoder()
    ends = {int(read_object(folder / "generation_config.json")["eos_token_id"])}

    def write(frames: Tensor) -> list[int]:
        inputs = {"inputs": frames[:, : seconds * 100]}
        if beams == 1:
            return generate_batch(model, prompt, options, ends, inputs=inputs)[0]
        return beam_search(model, prompt, options, ends, inputs)[0][0].tokens

    return write


def engine_way(folder: Path, tokens: Path, beams: int, kind: str, threads: int) -> Way:
    """Return what writes with CTranslate2."""
    import ctranslate2

    engine = ctranslate2.models.Whisper(str(folder), compute_type=kind, intra_threads=threads)
    values = read_object(tokens / "generation_config.json")
    prompt = [values["decoder_start_token_id"], values["no_timestamps_token_id"]]

    def write(frames: Tensor) -> list[int]:
        given = np.ascontiguousarray(frames.transpose(1, 2).numpy())
        view = ctranslate2.StorageView.from_array(given)
        return engine.generate(view, [prompt], beam_size=beams)[0].sequences_ids[0]  # type: ignore[no-any-return]

    return write


if __name__ == "__main__":
    main()
