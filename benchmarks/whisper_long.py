"""A recording longer than a window: real prompts of one voice joined, transcribed as one sound and
one by one.

Run ``python benchmarks/whisper_long.py VOICE MODEL [--minutes 2] [--from 0]``: VOICE is what
``asterisk_voice.py`` writes, MODEL a run or a folder of pretrained weights. The prompts of the
split ``test`` follow each other with the silence that each has of its own at its beginning and end,
and no other: it is no recording of connected speech. Printed are where windows are cut, the word
error rates of both ways (normaliser ``english``), and the words in which both differ, which a
doubled or a lost one would be among.
"""

from __future__ import annotations

import argparse
import difflib
import time
from pathlib import Path

import numpy as np
import torch
from whisper_voice import examples_of

import groundup
from groundup.media.audio import read_sound
from groundup.metrics.error_rates import score_transcripts
from groundup.tasks.transcribe.recordings import Recording, pauses

__all__ = ["main"]


def main() -> None:
    """Print both word error rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("voice", type=Path)
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--first", type=int, default=0, help="the first prompt that is taken")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sounds = []
    references = []
    seconds = 0.0
    for example in examples_of(given.voice, ("test",))[given.first :]:
        sound = read_sound(example.inputs)
        sounds.append(sound)
        references.append(str(example.target))
        seconds += sound.seconds
        if seconds >= 60 * given.minutes:
            break
    (rate,) = {sound.rate for sound in sounds}
    long = (np.concatenate([sound.samples for sound in sounds]), rate)
    predictor = groundup.load(given.model)
    cuts = [
        window.begin_s
        for window in pauses(Recording(long, predictor.processor, "joined"), 30.0, 4.0)
    ]
    ends = np.cumsum([sound.seconds for sound in sounds])
    nearest = [min(abs(ends - cut)) for cut in cuts[1:]]
    shown = ", ".join(
        f"{cut:.1f} ({near:.2f})" for cut, near in zip(cuts[1:], nearest, strict=True)
    )
    print(f"{len(sounds)} prompts, {seconds:.0f} s; cuts (seconds to the nearest join): {shown}")
    begin = time.process_time()
    alone = [row["text"] for row in predictor([(sound.samples, rate) for sound in sounds])]
    between = time.process_time()
    joined = predictor(long)["text"]
    print(f"CPU seconds: {between - begin:.0f} alone, {time.process_time() - between:.0f} joined")
    whole = " ".join(references)
    for name, text in (("one by one", " ".join(alone)), ("joined", joined)):
        found = score_transcripts(["wer"], [text], [whole], normaliser="english")["wer"]
        print(f"{name}: {100 * found.value:.2f}% of words wrong")
    one, two = (text.lower().split() for text in (" ".join(alone), joined))
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        if kind != "equal":
            print(f"  {' '.join(one[a:b])!r} alone, {' '.join(two[c:d])!r} joined (word {c})")


if __name__ == "__main__":
    main()
