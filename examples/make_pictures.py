"""Make a picture with a generator that was exported to ONNX, without groundup.

python examples/make_pictures.py EXPORT/model.onnx CLASS OUT.png
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image


def direction(session, noisy, time, span, number, guidance, nothing):
    """Return the way that is left, over the time that is left, from what the network says that the
    picture will be."""
    wanted = [value.name for value in session.get_inputs()]

    def ask(number):
        told = {"inputs": noisy, "times": np.full(len(noisy), time, np.float32)}
        told["spans"] = np.full(len(noisy), span, np.float32)
        told["classes"] = np.full(len(noisy), number, np.int64)
        return session.run(["outputs"], {name: told[name] for name in wanted})[0]

    picture = ask(number)
    if guidance != 1.0:
        without = ask(nothing)
        picture = without + guidance * (picture - without)
    return (picture - noisy) / (1 - time)


def sample(session, facts, noise, number, steps, guidance):
    """Return pictures as the network reads them, of noise (N, C, H, W) of a normal distribution."""
    spans = "spans" in [value.name for value in session.get_inputs()]
    heun = facts["task"]["sampler"] == "heun" and not spans
    nothing = len(facts.get("classes", ()))
    length = 1 / steps
    place = noise
    for step in range(steps):
        span = length if spans else 0.0
        asked = (number, guidance, nothing)
        first = direction(session, place, step * length, span, *asked)
        ahead = place + np.float32(length) * first
        # A network that was not told how long a step is is asked at both of its ends.
        if heun and step + 1 < steps:
            second = direction(session, ahead, (step + 1) * length, 0.0, *asked)
            ahead = place + np.float32(length / 2) * (first + second)
        place = ahead
    return place


def main() -> None:
    """Write one picture of a class."""
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} MODEL.onnx CLASS OUT.png")
    session = onnxruntime.InferenceSession(sys.argv[1])
    known = session.get_modelmeta().custom_metadata_map
    facts = {name: json.loads(text) for name, text in known.items()}
    form, task = facts["inputs"], facts["task"]
    noise = np.random.default_rng(0).standard_normal((1, *form["shape"])).astype(np.float32)
    number = facts["classes"].index(sys.argv[2])
    made = sample(session, facts, noise, number, task["steps"], task["guidance"])[0]
    # Back to pixels: what the processor did, the other way round.
    pixels = made.transpose(1, 2, 0) * form["std"] + form["mean"]
    bytes_ = (pixels / form["white"] * 255).round().clip(0, 255).astype(np.uint8)
    Image.fromarray(bytes_.squeeze()).save(sys.argv[3])


if __name__ == "__main__":
    main()
