"""A training step of our U-Net against diffusers' UNet2DModel of the same shape, side by side.

Run ``python benchmarks/diffusion_step.py [--rounds 7] [--steps 2] [--batch 32]``. A step is what both training
scripts do with pictures of 32 x 32 pixels in three channels: noise, times, forward, squared error, backward, clipping
and AdamW; drawing pictures is not timed. One thread, fp32 and bf16 (autocast), in turns, medians of the rounds. Ours
is a whole step of the task ``generate_images`` with its keyed noise and its average of the weights; theirs is the loop
of ``examples/unconditional_image_generation/train_unconditional.py`` without its average, as a plain loop.

Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from groundup.core.seeding import keyed_noise
from groundup.machine import devices
from groundup.models.unet import UNetConfig
from groundup.tasks.generate_images.task import GenerateImages

__all__ = ["main"]

SHAPE = UNetConfig(
    widths=(32, 64, 128),
    layers=2,
    attention_side=8,
    head_width=32,
    groups=8,
    input_shape=(3, 32, 32),
    classes=10,
)


def ours(batch: int, dtype: torch.dtype) -> tuple[nn.Module, Callable[[int], None]]:
    """Return our model, and what does its step of a number."""
    torch.manual_seed(0)
    model, task = SHAPE.build(), GenerateImages()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    average = [each.detach().clone() for each in model.parameters()]
    pictures = torch.randn(batch, 3, 32, 32)
    classes = torch.arange(batch) % 10

    class Ten:
        labels = tuple(map(str, range(10)))

    def step(number: int) -> None:
        samples = np.arange(number * batch, (number + 1) * batch)
        drawn = task.augment({"inputs": pictures, "classes": classes}, samples, dict, Ten(), 0)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            outputs = task.forward(model, drawn)
        (term,) = task.loss(outputs, drawn).terms.values()
        (term.total / term.count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(average, list(model.parameters()), 0.001)

    return model, step


def theirs(batch: int, dtype: torch.dtype) -> tuple[nn.Module, Callable[[int], None]]:
    """Return diffusers' model, and what does its step of a number."""
    torch.manual_seed(0)
    config, _ = SHAPE.to_diffusers(SHAPE.build().state_dict())
    model = diffusers.UNet2DModel(
        **{k: v for k, v in config.items() if not k.startswith("_")}
    ).train()
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, prediction_type="sample")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    pictures = torch.randn(batch, 3, 32, 32)
    classes = torch.arange(batch) % 10

    def step(number: int) -> None:
        noise = torch.randn_like(pictures)
        times = torch.randint(0, 1000, (batch,))
        noisy = scheduler.add_noise(pictures, noise, times)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            outputs = model(noisy, times, class_labels=classes).sample
        F.mse_loss(outputs.float(), pictures).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return model, step


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[arguments.clock]
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keyed_noise(0, "warm", np.arange(1), (1,))
    devices.describe_machine()
    for dtype in (torch.float32, torch.bfloat16):
        both = {
            "groundup": ours(arguments.batch, dtype),
            "diffusers": theirs(arguments.batch, dtype),
        }
        sizes = {
            name: sum(p.numel() for p in model.parameters()) for name, (model, _) in both.items()
        }
        rates: dict[str, list[float]] = {name: [] for name in both}
        for round_number in range(arguments.rounds + 1):
            for name, (_, step) in both.items():
                start = clock()
                for number in range(arguments.steps):
                    step(number)
                if round_number:  # the first one warms up
                    rates[name].append(arguments.steps / (clock() - start))
        median = {name: statistics.median(each) for name, each in rates.items()}
        for name, each in median.items():
            print(f"{dtype} {name:10} {sizes[name]:,} parameters {each:.3f} steps/s")
        print(f"{dtype} ratio {median['groundup'] / median['diffusers']:.2f}")


if __name__ == "__main__":
    main()
