"""Groundup's detectors next to a detector of transformers of about as many parameters: the same
pictures in the same order, the same scorer, and for each as many seconds of processor time.

    python benchmarks/detectors.py COMPOSITES OUT --minutes 3

COMPOSITES is a folder that ``stamp_composites.py`` wrote, or another with COCO's files of boxes. The
peer is RT-DETR of transformers with its own loss, noisy boxes included, in a plain loop with AdamW,
a warmup and a cosine, as groundup's runs have them. Nobody starts from pretrained weights.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from groundup import api
from groundup.contracts.detection import SetDetections
from groundup.core.values import IGNORED
from groundup.nn.box_head import from_centres, to_centres

OURS: dict[str, dict[str, Any]] = {
    "groundup detector": {
        "name": "detector",
        "backbone": {"name": "resnet", "layers": [1, 1, 1, 1], "width": 24, "zero_init": True},
        "width": 64,
    },
    "groundup rt_detr": {
        "name": "rt_detr",
        "backbone": {
            "name": "resnet",
            "layers": [1, 1, 1, 1],
            "width": 24,
            "stem": "deep",
            "shortcut": "pooled",
        },
        "encoder_width": 64,
        "encoder_mlp_width": 128,
        "width": 64,
        "mlp_width": 128,
    },
}
WARMUP = 0.05  # of all steps
TRIED = 6  # steps by which the rate is measured, after as many that are not counted


def recipe_of(name: str, args: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Return a run's recipe; the peer reads its data as the first one does."""
    return {
        "name": name.replace(" ", "_"),
        "model": OURS[name],
        "task": {"name": "detect", "measured": 0},
        "processor": {"name": "image", "size": [args.size, args.size], "channels": 3},
        "data": {"name": "boxes", "path": str(args.data)},
        "training": {"batch_size": args.batch_size, "steps": steps},
        "optim": {
            "lr": args.lr,
            "warmup_steps": max(1, round(WARMUP * steps)),
            "schedule": "cosine",
            "clip_norm": 1.0,
        },
        "evaluation": {"every": steps},
        "checkpoints": {"every": steps},
        "machine": {"precision": "fp32", "compile": False, "threads": 1},
    }


class Peer(nn.Module):
    """RT-DETR of transformers, which says what it finds as groundup's detectors do."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        trunk = transformers.RTDetrResNetConfig(
            embedding_size=24,
            hidden_sizes=[24, 48, 96, 192],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_indices=[2, 3, 4],
        )
        config = transformers.RTDetrConfig(
            backbone_config=trunk,
            # Weights from scratch need statistics of their own.
            freeze_backbone_batch_norms=False,
            encoder_in_channels=[48, 96, 192],
            encoder_hidden_dim=64,
            decoder_in_channels=[64] * 3,
            d_model=64,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            decoder_layers=3,
            hidden_expansion=0.5,
            num_queries=30,
            num_denoising=30,
            num_labels=classes,
        )
        self.model = transformers.RTDetrForObjectDetection(config)
        self.size = size

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the library's own loss."""
        unit = batch["boxes"].new_tensor([self.size, self.size])
        labels = []
        for boxes, classes, crowd in zip(
            batch["boxes"], batch["labels"], batch["crowd"], strict=True
        ):
            real = (classes != IGNORED) & ~crowd
            labels.append({"class_labels": classes[real], "boxes": to_centres(boxes[real], unit)})
        return self.model(pixel_values=batch["inputs"], labels=labels).loss  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor) -> SetDetections:
        """Return what it finds."""
        found = self.model(pixel_values=inputs)
        unit = inputs.new_tensor([self.size, self.size])
        return SetDetections(found.logits, from_centres(found.pred_boxes, unit))


def settle_steps(step: Callable[[], Any], seconds: float) -> int:
    """Return how many steps fit into so many seconds of processor time."""
    for _ in range(TRIED):
        step()
    began = time.process_time()
    for _ in range(TRIED):
        step()
    return max(20, int(seconds * TRIED / (time.process_time() - began)))


def train_ours(name: str, args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Train one of groundup's detectors and return what it reached."""
    trial = api.trainer(
        recipe_of(name, args, 1000), {"name": f"trial_{OURS[name]['name']}"}, runs=args.out
    )
    steps: Iterator[Any] = trial.steps()
    count = settle_steps(lambda: next(steps), seconds)
    trial.close()
    trainer = api.trainer(recipe_of(name, args, count), runs=args.out)
    began = time.process_time()
    for _ in trainer.steps():
        pass
    used = time.process_time() - began
    trainer.close()
    return measure(trainer, trainer.model, args) | {"steps": count, "seconds": used}


def train_peer(args: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Train the peer on what groundup's first run reads, and return what it reached."""
    source = api.trainer(recipe_of(next(iter(OURS)), args, 1), {"name": "peer"}, runs=args.out)
    processor: Any = source.parts.processor

    def begin() -> tuple[Peer, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = Peer(processor.outputs, args.size).train()
        return model, torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=1e-2)

    def update(model: Peer, optimizer: torch.optim.Optimizer, rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = args.lr * rate
        optimizer.zero_grad()
        model.loss(next(source.stream)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    tried = begin()
    count = settle_steps(lambda: update(*tried, 0.1), seconds)
    model, optimizer = begin()
    warmup = max(1, round(WARMUP * count))
    began = time.process_time()
    for number in range(count):
        falling = 0.5 * (1 + math.cos(math.pi * max(0, number - warmup) / max(1, count - warmup)))
        update(model, optimizer, min((number + 1) / warmup, falling))
    used = time.process_time() - began
    source.close()
    return measure(source, model, args) | {"steps": count, "seconds": used}


def measure(trainer: Any, model: nn.Module, args: argparse.Namespace) -> dict[str, Any]:
    """Return mAP on pictures that nobody learned from, and how many parameters there are."""
    examples = list(trainer.parts.source.examples("test", args.out))[: args.pictures]
    found = trainer.task.measure(model.eval(), examples, trainer.parts.processor)
    return {**found, "parameters": sum(p.numel() for p in model.parameters())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=3.0, help="of processor time, for each")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--pictures", type=int, default=300, help="of the test split")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows = {name: train_ours(name, args, 60 * args.minutes) for name in OURS}
    rows["transformers RT-DETR"] = train_peer(args, 60 * args.minutes)
    for name, row in rows.items():
        print(
            f"{name:22} {row['parameters'] / 1e6:.2f} M parameters, {row['steps']} steps in"
            f" {row['seconds']:.0f} s: mAP {row['map']:.3f}, mAP50 {row['map_50']:.3f}"
        )
    (args.out / "detectors.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
