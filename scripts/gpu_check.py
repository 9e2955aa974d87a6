"""What the project promises, tried on a GPU in at most eight minutes.

Run ``python scripts/gpu_check.py`` from a copy of the project, installed or not, on a machine with
PyTorch for CUDA and without a network. Missing wheels are named first. It tries, each for itself:

- models: the first steps of every model are those of a CPU;
- contracts: checks of ``groundup.testing`` on the device;
- resume: a run that is stopped goes on to the last bit;
- qlora: an adapter next to 4-bit weights learns, is saved and writes;
- training: tokens/s of the GPT-2 of 124 million parameters in bf16, and its share of the peak;
- decoding: tokens/s of the same model, for one row and for many.

What was found is written to ``benchmarks/results/<date>-gpu-check-<device>.json``.
``--device cpu --quick`` tries the script itself.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import math
import os
import re
import statistics
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "benchmarks")]

LIMIT_S = 480.0
# Import names that differ from those of the wheels.
IMPORTS = {
    "beautifulsoup4": "bs4",
    "pyyaml": "yaml",
    "rouge-score": "rouge_score",
    "scikit-learn": "sklearn",
}
# scikit-learn's files of digits are what the tiny runs learn; jiwer scores those that write speech.
EXTRA = ("scikit-learn", "jiwer")
# Dense bf16 with fp32 accumulation, in FLOP/s, from the makers' data sheets; the first name found
# in the device's counts.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "5090": 209.5e12,
    "4090": 165.2e12,
    "3090": 71e12,
}
# In fp32, of the same steps on two devices: sums in another order, and TF32 in convolutions.
APART = 2e-2
RESUMED = ("gpt", "bert", "cnn", "resnet", "rnn", "vit")
QUICK_MODELS = ("gpt", "mlp")

Found = dict[str, Any]


def missing_wheels() -> list[str]:
    """Return the requirements that cannot be imported here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [*project["dependencies"], *EXTRA]
    found = []
    for requirement in required:
        name = re.split(r"[^\w-]", requirement)[0].lower()
        if importlib.util.find_spec(IMPORTS.get(name, name.replace("-", "_"))) is None:
            found.append(requirement)
    return found


def check_models(device: str, quick: bool, folder: Path) -> Found:
    """Compare the losses of every model's first steps with those of a CPU."""
    from tiny_runs import MODELS, tiny_run, without_chance

    from groundup import api

    found: Found = {}
    left_out = {
        name
        for name, module in {"hub": "transformers", "ctc": "jiwer", "whisper": "jiwer"}.items()
        if importlib.util.find_spec(module) is None
    }
    for name in QUICK_MODELS if quick else sorted(MODELS.keys() - left_out):
        place = folder / name
        place.mkdir()
        recipe = without_chance(tiny_run(name, place))
        losses: dict[str, list[float]] = {}
        for where in ("cpu", device):
            changes = {"machine.device": where, "training.steps": 5}
            trainer = api.trainer(recipe, changes, runs=place / f"runs-{where}-{len(losses)}")
            losses[where] = [report.loss for report in trainer.steps()]
            trainer.close()
        pairs = zip(losses["cpu"], losses[device], strict=True)
        apart = max(abs(one - other) / abs(one) for one, other in pairs)
        found[name] = apart
        assert apart <= APART, f"{name}: losses {losses} are apart by {apart:.3g}"
    return {"largest_relative_difference_of_losses": found, "left_out": sorted(left_out)}


def check_contracts(device: str, quick: bool, folder: Path) -> Found:
    """Run the checks of tasks on the device."""
    from tiny_runs import tiny_run, without_chance

    from groundup.testing import check_task

    cases = ("gpt", "cnn") if quick else ("gpt", "cnn", "mlp", "bert", "rnn", "vit")
    for name in cases:
        place = folder / name
        place.mkdir()
        recipe = without_chance(tiny_run(name, place))
        check_task(recipe, {"machine.device": device, "training.batch_size": 4})
    return {"tasks_with_models": list(cases)}


def check_resume(device: str, quick: bool, folder: Path) -> Found:
    """Stop runs with all that is random in them, go on, and compare to the last bit."""
    from resuming import stopped_and_resumed
    from tiny_runs import augmented, tiny_run

    names = QUICK_MODELS[:1] if quick else RESUMED
    for name in names:
        place = folder / name
        place.mkdir()
        recipe = augmented(tiny_run(name, place), name)
        recipe |= {
            "training": {**recipe["training"], "steps": 6},
            "machine": {**recipe["machine"], "device": device},
        }
        stopped_and_resumed(recipe, place / "runs", (3, 6))
    return {"exact": list(names)}


def check_qlora(device: str, quick: bool, folder: Path) -> Found:
    """Train an adapter next to nf4 weights, and let it write."""
    from tiny_runs import tiny_run

    import groundup

    recipe = tiny_run("gpt", folder)
    recipe["model"] = {**recipe["model"], "width": 64, "context_length": 64}
    machine = {**recipe["machine"], "device": device}
    runs = folder / "runs"
    base = recipe | {"name": "base", "machine": machine}
    groundup.train(base | {"training": {"batch_size": 16, "steps": 5}}, runs=runs)
    tuned = {name: value for name, value in base.items() if name not in ("model", "processor")}
    tuned |= {
        "name": "tuned",
        "init": {"run": str(runs / "base")},
        "optim": {"lr": 1e-2, "warmup_steps": 1},
        "adapter": {"rank": 4, "base": "nf4"},
        "training": {"batch_size": 16, "steps": 5 if quick else 30},
    }
    trainer = groundup.trainer(tuned, runs=runs)
    losses = [report.loss for report in trainer.steps()]
    trainer.save()
    trainer.close()
    assert all(map(math.isfinite, losses)), losses
    assert losses[-1] < losses[0], losses
    run = groundup.train(tuned, runs=runs)
    text = groundup.load(run.folder)("O", max_new_tokens=8)
    assert isinstance(text, str)
    return {"first_loss": losses[0], "last_loss": losses[-1]}


def check_training(device: str, quick: bool, folder: Path) -> Found:
    """Measure the benchmark's step of the 124-million-parameter GPT in bf16, eager, compiled, and
    as recipes run it."""
    import torch
    from train_step import CUDA_BATCH, CUDA_SHAPE, our_step, random_tokens, timed

    from groundup.machine import devices
    from groundup.recipe.sections import Machine

    shape = CUDA_SHAPE
    batch = CUDA_BATCH
    if quick:
        shape = shape.model_copy(
            update={"layers": 2, "width": 64, "heads": 2, "context_length": 64}
        ).model_copy(update={"vocabulary_size": 512, "mlp_width": 128})
        batch = 2
    length = shape.context_length
    settings = {"device": device, "precision": "bf16", "threads": torch.get_num_threads()}
    peak = peak_of(device)
    found: Found = {"batch": batch, "context": length}
    # The last is what a recipe does by default: packed documents, and gradients that repeat.
    packed = torch.arange(0, batch * length + 1, length // 4, dtype=torch.int32, device=device)
    ways: dict[str, tuple[bool, torch.Tensor | None]] = {"eager": (False, None)}
    if not quick:
        ways["compiled"] = (True, None)
    ways["packed_deterministic"] = (not quick, packed)
    for name, (compiled, boundaries) in ways.items():
        machine = Machine(compile=compiled, deterministic=boundaries is not None, **settings)  # type: ignore[arg-type]
        devices.prepare(machine)
        torch.use_deterministic_algorithms(machine.deterministic, warn_only=True)
        step = our_step(shape, machine, compiled=compiled, boundaries=boundaries)
        batches = random_tokens(shape.vocabulary_size, batch, length + 1, device)
        for _ in range(1 if quick else 3):
            timed(step, next(batches))
        seconds = statistics.median(timed(step, next(batches)) for _ in range(2 if quick else 10))
        tokens_per_s = batch * length / seconds
        flops = tokens_per_s * shape.flops_per_token(length)
        found[name] = {"tokens_per_s": tokens_per_s, "flops_per_s": flops}
        if peak:
            found[name]["share_of_peak"] = flops / peak
    if device == "cuda":
        found["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    return found


def check_decoding(device: str, quick: bool, folder: Path) -> Found:
    """Measure greedy decoding of the same model in fp32 and bf16."""
    import torch
    from train_step import CUDA_SHAPE

    from groundup.generation import recorded_steps
    from groundup.generation.decoding import generate_batch
    from groundup.generation.options import DecodingOptions

    shape = CUDA_SHAPE
    if quick:
        shape = shape.model_copy(
            update={"layers": 2, "width": 64, "heads": 2, "vocabulary_size": 512, "mlp_width": 128}
        )
    torch.manual_seed(0)
    options = DecodingOptions(max_new_tokens=8 if quick else 128, temperature=0.0)
    found: Found = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = shape.build().to(device, dtype).eval()
        for rows in (1, 2) if quick else (1, 32):
            prompts = [[number + 1] * 16 for number in range(rows)]
            generate_batch(model, prompts, options)
            begin = time.perf_counter()
            texts = generate_batch(model, prompts, options)
            seconds = time.perf_counter() - begin
            name = f"{str(dtype).removeprefix('torch.')}_rows_{rows}"
            found[name] = {"tokens_per_s": sum(map(len, texts)) / seconds}
            if dtype == torch.float32:
                with mock.patch.object(recorded_steps, "_BEFORE", 10**9):
                    plain = generate_batch(model, prompts, options)
                found[name]["texts_as_without_recordings"] = texts == plain
                assert texts == plain, "recorded steps write other texts"
    return found


CHECKS: dict[str, Callable[[str, bool, Path], Found]] = {
    "models": check_models,
    "contracts": check_contracts,
    "resume": check_resume,
    "qlora": check_qlora,
    "training": check_training,
    "decoding": check_decoding,
}


def device_name(device: str) -> str:
    """Return what the device calls itself."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def peak_of(device: str) -> float | None:
    """Return the device's dense bf16 rate in FLOP/s, where it is known."""
    name = device_name(device)
    return next((peak for key, peak in PEAKS.items() if key in name), None)


def run_checks(device: str, names: list[str], quick: bool, limit: float) -> Found:
    """Run checks one after the other, whatever the others do; one that would begin after the limit
    is left out."""
    begin = time.perf_counter()
    found: Found = {}
    for name in names:
        if time.perf_counter() - begin > limit:
            found[name] = {"outcome": "left out", "problem": f"the limit of {limit:.0f} s was over"}
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            os.environ["GROUNDUP_CACHE"] = str(Path(folder) / "cache")
            try:
                result = {"outcome": "passed"} | CHECKS[name](device, quick, Path(folder))
            except Exception as error:
                result = {
                    "outcome": "failed",
                    "problem": f"{type(error).__name__}: {error}"[:2000],
                    "traceback": traceback.format_exc()[-4000:],
                }
        result["seconds"] = round(time.perf_counter() - started, 2)
        found[name] = result
        print(f"{name}: {result['outcome']} in {result['seconds']} s", flush=True)
        if "problem" in result:
            print(f"  {result['problem']}", flush=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Check, write what was found, and return 0 if everything passed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), default=list(CHECKS))
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args(arguments)
    missing = missing_wheels()
    if missing:
        print("these wheels are missing; bring them from a machine with a network:")
        print("  pip download --only-binary :all: --no-deps " + " ".join(map(repr, missing)))
    if importlib.util.find_spec("torch") is None:
        return 2
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here; --device cpu --quick tries the script")
        return 2
    found = run_checks(options.device, options.only, options.quick, options.limit)
    now = datetime.datetime.now(datetime.UTC)
    result = {
        "date": now.isoformat(timespec="seconds"),
        "device": device_name(options.device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "quick": options.quick,
        "missing": missing,
        "checks": found,
    }
    name = re.sub(r"\W+", "-", device_name(options.device).lower()).strip("-")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{now:%Y-%m-%d}-gpu-check-{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return int(any(each["outcome"] != "passed" for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
