"""Find things in a picture with a detector that was exported to ONNX, without groundup.

python examples/serve_detector.py EXPORT/model.onnx PICTURE
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def prepare(picture, facts):
    """Return the tensor (1, C, H, W) and which of it is the picture; and what brings places in it
    back: scale and offset."""
    mode = {"grey": "L", "RGB": "RGB"}.get(facts["channels"])
    picture = ImageOps.exif_transpose(picture)
    picture = picture.convert(mode) if mode else picture
    height, width = facts["size"]
    rows, columns = height, width
    if facts["resize"] == "pad":
        factor = min(height / picture.height, width / picture.width)
        rows, columns = (
            max(1, round(picture.height * factor)),
            max(1, round(picture.width * factor)),
        )
    scale = np.array([columns / picture.width, rows / picture.height])
    kind = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}
    small = np.asarray(picture.resize((columns, rows), kind[facts["resample"]]), np.float32)
    top, left = (height - rows) // 2, (width - columns) // 2
    pixels = np.zeros((height, width, facts["shape"][0]), np.float32)
    pixels[top : top + rows, left : left + columns] = small.reshape(rows, columns, -1)
    pixels = (pixels * facts["white"] / 255 - facts["mean"]) / facts["std"]
    whole = np.zeros((*facts["shape"][1:], facts["shape"][0]), np.float32)
    down, across = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
    whole[down : down + height, across : across + width] = pixels
    offset = np.array([left + across, top + down])
    mask = np.zeros((1, *whole.shape[:2]), bool)
    mask[:, offset[1] : offset[1] + rows, offset[0] : offset[0] + columns] = True
    return {"inputs": whole.transpose(2, 0, 1)[None], "mask": mask}, scale, offset


def overlap(box, others):
    """Return the intersection of a box with others, over their union."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = sides.clip(0).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return both / (areas - both)


def main() -> None:
    """Print a line for each thing: class, probability, and left, top, right, bottom in pixels."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} MODEL.onnx PICTURE")
    session = onnxruntime.InferenceSession(sys.argv[1])
    known = session.get_modelmeta().custom_metadata_map
    facts = {name: json.loads(text) for name, text in known.items()}
    task = facts["task"]
    picture = Image.open(sys.argv[2])
    tensors, scale, offset = prepare(picture, facts["inputs"])
    told = {value.name: tensors[value.name] for value in session.get_inputs()}
    scores, boxes = (part[0] for part in session.run(["scores", "boxes"], told))
    # Each place says a probability for each class: the surest pairs of both are what is there.
    places, labels = np.nonzero(scores >= task["threshold"])
    order = (-scores[places, labels]).argsort(kind="stable")
    kept = []
    for place, label in zip(places[order], labels[order], strict=True):
        same = boxes[[other for other, its in kept if its == label]].reshape(-1, 4)
        if facts["needs_nms"] and (overlap(boxes[place], same) > task["nms"]).any():
            continue
        kept.append((place, label))
    for place, label in kept[: task["max_detections"]]:
        box = (boxes[place].reshape(2, 2) - offset) / scale
        box = box.clip(0, ImageOps.exif_transpose(picture).size).ravel().round(2)
        print(facts["classes"][label], round(float(scores[place, label]), 4), *box.tolist())


if __name__ == "__main__":
    main()
