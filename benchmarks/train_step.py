"""A whole training step of our GPT against transformers' Llama of the same shape, side by side.

Run ``python benchmarks/train_step.py [--rounds 5] [--steps 3] [--save]``. A step is forward, loss,
backward, clipping and AdamW, on fresh random tokens each time; drawing them is not timed. Four ways
take turns, round by round, and before each the rate of a 2048 x 2048 matrix product on all cores is
measured in the same process:

- ours, eager and compiled block by block, with the allocator tuned: what a recipe's run does;
- transformers, compiled layer by layer too, with the same allocator (``--whole`` compiles it in one
    piece, which takes
  minutes more);
- transformers as it comes, with glibc's own allocator, in a process of its own:
    ``transformers.Trainer`` where
  accelerate is installed, and otherwise a plain loop of the same operations; the table says which.

Denormals are flushed everywhere. "Share" is the step's useful work, 6 FLOPs x weights used in
products x tokens plus causal attention, over the rate of the products measured next to it.

``--device cuda`` measures our GPT-2 of 124 million parameters in bf16 instead.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.machine import devices
from groundup.models.gpt import GPTConfig
from groundup.recipe.recipe import Optim
from groundup.recipe.sections import Machine
from groundup.training.optimizers import build_optimizers

__all__ = ["main"]

SHAPE = GPTConfig(
    **{
        "layers": 6,
        "width": 384,
        "heads": 6,
        "mlp_width": 1024,
        "context_length": 256,
        "vocabulary_size": 4096,
    },
    tied_embeddings=False,
)
BATCH = 16
CUDA_SHAPE = GPTConfig.sizes()["gpt2"].model_copy(update={"vocabulary_size": 50304})
CUDA_BATCH = 32
# Dense bf16 with fp32 accumulation, in FLOP/s, from the makers' data sheets; the first name found
# in the GPU's counts.
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
}

Step = Callable[[Tensor], object]


@dataclass
class Way:
    """One of the things compared: ``measure(n)`` does n steps and gives their seconds and the rate
    of products."""

    name: str
    measure: Callable[[int], tuple[list[float], float]]
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def turn(self, steps: int, *, keep: bool = True) -> None:
        """Do some steps, and remember what they took unless they only warm up."""
        seconds, rate = self.measure(steps)
        if keep:
            self.seconds += seconds
            self.rates.append(rate)


# ---------------------------------------------------------------------------------------- measuring
def matmul_rate(size: int = 2048, repeats: int = 5) -> float:
    """Return the rate of fp32 products of square matrices on all cores, the median, in FLOP/s."""
    values, times = torch.linspace(-1, 1, size * size).view(size, size), []
    out = torch.empty_like(values)
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        torch.mm(values, values, out=out)
        times.append(time.perf_counter() - begin)
    return 2.0 * size**3 / statistics.median(times[1:])


def random_tokens(
    vocabulary: int, batch: int, length: int, device: str = "cpu"
) -> Iterator[Tensor]:
    """Yield (batch, length) tokens without end, the same for everyone."""
    source = torch.Generator().manual_seed(0)
    while True:
        yield torch.randint(vocabulary, (batch, length), generator=source).to(device)


def in_process(
    step: Step, batches: Iterator[Tensor], *, deterministic: bool
) -> Callable[[int], Any]:
    """Return how a step is measured in this process."""

    def measure(steps: int) -> tuple[list[float], float]:
        rate = matmul_rate()
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        return [timed(step, next(batches)) for _ in range(steps)], rate

    return measure


def timed(step: Step, tokens: Tensor) -> float:
    """Return the seconds of one step."""
    _synchronize(tokens)
    begin = time.perf_counter()
    step(tokens)
    _synchronize(tokens)
    return time.perf_counter() - begin


def _synchronize(tokens: Tensor) -> None:
    if tokens.is_cuda:
        torch.cuda.synchronize()


# ---------------------------------------------------------------------------------------- the steps
def our_step(
    shape: GPTConfig, machine: Machine, *, compiled: bool, boundaries: Tensor | None = None
) -> Step:
    """Return what ``Trainer`` does in one step: sum of losses, backward, one division and clipping,
    fused AdamW; of packed documents, where their boundaries are given."""
    torch.manual_seed(0)
    model = shape.build().to(machine.device).train()
    optim = Optim()
    optimizer = build_optimizers(optim, model.named_parameters())
    parameters = list(model.parameters())
    if compiled:
        for block in model.blocks:
            block.compile(dynamic=False)

    def step(tokens: Tensor) -> float:
        with devices.autocast(machine):
            total = model(tokens[:, :-1], targets=tokens[:, 1:], boundaries=boundaries)
        with devices.deterministic_backward(machine):
            total.backward()
        count = tokens[:, 1:].numel()
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients)) / count
        torch._foreach_mul_(gradients, min(1.0, (optim.clip_norm or norm) / (norm + 1e-6)) / count)
        optimizer.set_lr(optim.lr)
        optimizer.step()
        optimizer.zero_grad()
        return float(total.detach()) / count

    return step


def build_llama() -> Any:
    """Return transformers' Llama of our shape, freshly initialised."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=SHAPE.vocabulary_size,
        hidden_size=SHAPE.width,
        intermediate_size=SHAPE.hidden,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.groups,
        max_position_embeddings=SHAPE.context_length,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model = LlamaForCausalLM(config).train()
    ours = SHAPE.build().parameter_count()
    if model.num_parameters() != ours:
        raise SystemExit(
            f"the shapes differ: transformers has {model.num_parameters()} parameters, ours {ours}"
        )
    return model


def llama_step(model: Any) -> Step:
    """Return a step with the operations of ``transformers.Trainer`` and nothing around them."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)

    def step(tokens: Tensor) -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        model.zero_grad()

    return step


# ------------------------------------------------------------------------------------- transformers
# in its own process
class StockProcess:
    """Transformers as it comes, in a process with glibc's own allocator, that works only while it
    is asked to."""

    def __init__(self) -> None:
        chosen = {"THP_MEM_ALLOC_ENABLE", "LD_PRELOAD"}
        environment = {
            k: v for k, v in os.environ.items() if k not in chosen and not k.startswith("MALLOC_")
        }
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--stock-process"],
            **{
                "stdin": subprocess.PIPE,
                "stdout": subprocess.PIPE,
                "text": True,
                "env": environment,
            },
        )
        self.runner = self._ask("0")["runner"]

    def measure(self, steps: int) -> tuple[list[float], float]:
        """Do some steps there."""
        answer = self._ask(str(steps))
        return answer["seconds"], answer["rate"]

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("the process of transformers ended early; its message is above")
        return dict(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def stock_process() -> None:
    """Answer, line by line: a number of steps to do comes in, their seconds and the rate of
    products go out."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the libraries print is no answer
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_flush_denormal(True)
    with_trainer = importlib.util.find_spec("accelerate") is not None
    runner = "transformers.Trainer" if with_trainer else "plain loop"

    def answer(**values: object) -> None:
        print(json.dumps(values), file=replies, flush=True)

    sys.stdin.readline()
    answer(runner=runner)
    model = build_llama()
    if with_trainer:
        _serve_trainer(model, answer)
        return
    step, batches = (
        llama_step(model),
        random_tokens(SHAPE.vocabulary_size, BATCH, SHAPE.context_length),
    )
    for line in sys.stdin:
        rate = matmul_rate()
        answer(seconds=[timed(step, next(batches)) for _ in range(int(line))], rate=rate)


def _serve_trainer(model: Any, answer: Callable[..., None]) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Turns(TrainerCallback):  # type: ignore[misc]
        """Measures from the beginning of a step, its batch at hand, to its end; between turns it
        waits."""

        def __init__(self) -> None:
            self.left, self.rate, self.begin = 0, 0.0, 0.0
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begin = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seconds.append(time.perf_counter() - self.begin)
            if len(self.seconds) == self.left:
                answer(seconds=self.seconds, rate=self.rate)
                control.should_training_stop = not self.wait()

        def wait(self) -> bool:
            line = sys.stdin.readline()
            if line:
                self.left, self.rate, self.seconds = int(line), matmul_rate(), []
            return bool(line)

    rows = next(random_tokens(SHAPE.vocabulary_size, 64 * BATCH, SHAPE.context_length))
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
        }
        settings |= {
            "use_cpu": True,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "max_steps": 10**6,
        }
        arguments = TrainingArguments(folder, per_device_train_batch_size=BATCH, **settings)
        turns = Turns()
        data = [{"input_ids": row, "labels": row} for row in rows]
        if turns.wait():
            Trainer(model, arguments, train_dataset=data, callbacks=[turns]).train()


# ------------------------------------------------------------------------------------------ reports
def summarise(ways: list[Way], shape: GPTConfig, batch: int) -> list[dict[str, Any]]:
    """Return a row for each way: medians, tokens a second and the share of the rate of products
    next to it."""
    tokens, rows = batch * shape.context_length, []
    for way in ways:
        seconds, rate = statistics.median(way.seconds), statistics.median(way.rates)
        work = shape.flops_per_token(shape.context_length) * tokens / seconds
        rows.append(
            {
                **{"name": way.name, "ms": seconds * 1e3, "fastest_ms": min(way.seconds) * 1e3},
                **{
                    "tokens_per_s": tokens / seconds,
                    "matmul_flops_per_s": rate,
                    "flops_per_s": work,
                },
                **{"share": work / rate, "seconds": way.seconds, "matmul_rates": way.rates},
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table and how much faster our ways are than the others, by the clock and by
    share."""
    width = max(len(row["name"]) for row in rows)
    print(f"{'':{width}} {'ms':>8} {'tokens/s':>10} {'products GFLOP/s':>17} {'share':>7}")
    for row in rows:
        figures = (
            f"{row['ms']:8.1f} {row['tokens_per_s']:10,.0f} {row['matmul_flops_per_s'] / 1e9:17.0f}"
        )
        print(f"{row['name']:{width}} {figures} {row['share']:7.1%}")
    for one, other in _pairs(rows):
        ratios = (
            f"{other['ms'] / one['ms']:.2f} times as fast, {one['share'] / other['share']:.2f} by"
            " share"
        )
        print(f"{one['name']} against {other['name']}: {ratios}")


def _pairs(rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    ours = [row for row in rows if row["name"].startswith("ours")]
    return [(one, other) for one in ours for other in rows if other not in ours]


def save(rows: list[dict[str, Any]], settings: dict[str, Any]) -> Path:
    """Write everything measured to ``results/<date>-<hardware>.json`` next to this file, and return
    its path."""
    machine, today = devices.describe_machine(), datetime.date.today().isoformat()
    hardware = (
        machine["gpu"]
        if settings["device"] == "cuda"
        else f"{machine['processor']} {machine['cores']} cores"
    )
    name = re.sub(r"[^a-z0-9]+", "-", str(hardware).lower().replace("(r)", "")).strip("-")
    path = Path(__file__).resolve().parent / "results" / f"{today}-{name}.json"
    path.parent.mkdir(exist_ok=True)
    ratios = {
        f"{one['name']} / {other['name']}": {
            "time": other["ms"] / one["ms"],
            "share": one["share"] / other["share"],
        }
        for one, other in _pairs(rows)
    }
    content = {
        "date": today,
        "machine": machine,
        "settings": settings,
        "ways": rows,
        "ratios": ratios,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


# --------------------------------------------------------------------------------------------- runs
def run_cpu(rounds: int, steps: int, *, whole: bool) -> list[dict[str, Any]]:
    """Measure the four ways in turns."""
    if importlib.util.find_spec("transformers") is None:
        raise SystemExit(
            "transformers is not installed; install it with: pip install 'groundup[test]'"
        )
    stock = StockProcess()  # before this process chooses its allocator
    machine = Machine(
        **{"device": "cpu", "precision": "fp32", "compile": True, "micro_batch_size": BATCH},
        threads=len(os.sched_getaffinity(0)),
    )
    devices.prepare(machine)
    length, vocabulary = SHAPE.context_length, SHAPE.vocabulary_size
    ways = []
    for name, compiled in (("ours, eager", False), ("ours, compiled", True)):
        step = our_step(SHAPE, machine, compiled=compiled)
        batches = random_tokens(vocabulary, BATCH, length + 1)
        ways.append(Way(name, in_process(step, batches, deterministic=machine.deterministic)))
    llama = build_llama()
    for part in [llama] if whole else llama.model.layers:
        part.compile(dynamic=False)
    batches = random_tokens(vocabulary, BATCH, length)
    ways.append(
        Way(
            "transformers, compiled, our allocator",
            in_process(llama_step(llama), batches, deterministic=False),
        )
    )
    ways.append(Way(f"transformers as it comes ({stock.runner})", stock.measure))
    take_turns(ways, rounds, steps)
    stock.close()
    return summarise(ways, SHAPE, BATCH)


def run_cuda(rounds: int, steps: int) -> list[dict[str, Any]]:
    """Measure GPT-2 of 124 million parameters in bf16, eager and compiled, and its share of the
    GPU's peak (MFU)."""
    machine = Machine(
        **{
            "device": "cuda",
            "precision": "bf16",
            "compile": True,
            "micro_batch_size": CUDA_BATCH,
            "threads": 1,
        }
    )
    devices.prepare(machine)
    batches = random_tokens(
        CUDA_SHAPE.vocabulary_size, CUDA_BATCH, CUDA_SHAPE.context_length + 1, "cuda"
    )

    def way(name: str, compiled: bool) -> Way:
        step = our_step(CUDA_SHAPE, machine, compiled=compiled)
        return Way(
            name,
            lambda count: (
                [timed(step, next(batches)) for _ in range(count)],
                devices.matmul_flops_per_s("cuda", "bf16"),
            ),
        )

    ways = [way("ours, eager", False), way("ours, compiled", True)]
    take_turns(ways, rounds, steps)
    rows = summarise(ways, CUDA_SHAPE, CUDA_BATCH)
    name = torch.cuda.get_device_name(0)
    peak = next((value for key, value in PEAKS.items() if key in name), None)
    for row in rows:
        row["mfu"] = row["flops_per_s"] / peak if peak else None
        mfu = (
            f"{row['mfu']:.1%} of {peak / 1e12:.0f} TFLOP/s"
            if peak
            else "unknown: the GPU's peak is not listed"
        )
        print(f"{row['name']}: MFU {mfu}")
    return rows


def take_turns(ways: list[Way], rounds: int, steps: int) -> None:
    """Warm every way up, compiling where it compiles, then measure them in turns."""
    for way in ways:
        begin = time.perf_counter()
        way.turn(2, keep=False)
        print(f"{way.name}: warmed up in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    for _ in range(rounds):
        for way in ways:
            way.turn(steps)


def main() -> None:
    """Read the command line, measure, print and perhaps save."""
    parser = argparse.ArgumentParser(
        description="A training step of ours against transformers', side by side."
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--steps", type=int, default=3, help="steps a turn")
    parser.add_argument(
        "--whole",
        action="store_true",
        help="compile transformers' model in one piece: slow to start",
    )
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/<date>-<hardware>.json"
    )
    parser.add_argument("--stock-process", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stock_process:
        stock_process()
        return
    if given.rounds < 1 or given.steps < 1:
        parser.error("--rounds and --steps have to be at least 1")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU that torch can use here")
    if given.device == "cuda":
        rows = run_cuda(given.rounds, given.steps)
    else:
        rows = run_cpu(given.rounds, given.steps, whole=given.whole)
    print(f"medians of {given.rounds} interleaved rounds of {given.steps} steps")
    show(rows)
    if given.save:
        shape, batch = (CUDA_SHAPE, CUDA_BATCH) if given.device == "cuda" else (SHAPE, BATCH)
        settings = {
            "device": given.device,
            "rounds": given.rounds,
            "steps": given.steps,
            "batch": batch,
            "whole": given.whole,
        }
        libraries = {"transformers": _version("transformers"), "accelerate": _version("accelerate")}
        print(
            "saved", save(rows, {**settings, **libraries, "shape": shape.model_dump(mode="json")})
        )


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
