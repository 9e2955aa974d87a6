"""LoRA fine-tuning of a pretrained model on conversations: ours against TRL's SFTTrainer with PEFT,
side by side.

Run ``python benchmarks/finetune.py MODEL DATA [--rounds 2] [--steps 6] [--save]`` with a folder of
a Llama in Hugging Face layout, such as SmolLM2-135M-Instruct, and a file of instructions in
alpaca's layout. It needs trl and peft.

Every way trains the same adapter (rank 8 next to all linear layers of the blocks) of the same
weights in fp32 with AdamW on the same conversations, tokenized beforehand by our chat template, and
learns the same tokens of them: the answers and what ends them. Conversations longer than
    ``--length`` are left out for all. Each way runs in a process of
its own, and the processes take turns. Ways:

- ours: what a recipe's ``groundup train`` does: rows packed full of whole conversations, which
    attend to themselves;
- TRL as it comes: a batch of conversations padded to the longest, gradient checkpointing on, its
    default;
- TRL, kept: the same with gradient checkpointing off;
- TRL, packed: ``packing=True`` (best-fit decreasing), which on a CPU masks attention over the whole
    batch;
- TRL, padding-free: a batch of conversations end to end, masked alike.

A batch of conversations has as many as fill the packed rows on average. Figures, after steps that
warm up: answer tokens and all tokens but padding, a second by the clock and a second of processor
    time; the peak of resident memory of
the whole process, and how much it lies above that with the model loaded and nothing trained.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import itertools
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["main"]

WAYS: dict[str, dict[str, Any]] = {
    "ours": {},
    "TRL as it comes": {},
    "TRL, kept": {"gradient_checkpointing": False},
    "TRL, packed": {"gradient_checkpointing": False, "packing": True},
    "TRL, packed, checkpointing": {"packing": True},
    "TRL, padding-free": {"gradient_checkpointing": False, "padding_free": True},
}
RANK, ALPHA, LR = 8, 16, 2e-4
WARM_UP = 2
Counts = dict[str, float]


# -------------------------------------------------------------------------------------------------
# inside one process
class Watch:
    """Times steps by the clock and by processor time; what stands between ``begin`` and ``end`` is
    one."""

    def __init__(self) -> None:
        self.loaded = resident()
        self.steps: list[Counts] = []
        self.restart()

    def restart(self) -> None:
        """Begin a step now."""
        self.clock, self.processor = time.perf_counter(), time.process_time()

    def step(self, loss: float) -> None:
        """End a step and begin the next."""
        seconds, processor = time.perf_counter() - self.clock, time.process_time() - self.processor
        self.steps.append({"seconds": seconds, "processor_s": processor, "loss": loss})
        self.restart()

    def report(self, counted: list[Counts]) -> dict[str, Any]:
        """Return everything measured, with what each step's batch held."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        steps = [step | batch for step, batch in zip(self.steps, counted, strict=False)]
        return {"steps": steps, "loaded_bytes": self.loaded, "peak_bytes": peak}


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def train_ours(task: dict[str, Any]) -> dict[str, Any]:
    """Train as ``groundup train`` does, through the trainer's own steps."""
    import groundup

    recipe = {
        "name": "finetune",
        "init": {"pretrained": task["model"]},
        "model": {"context_length": task["length"]},
        "adapter": {"rank": RANK, "alpha": ALPHA},
        "task": "chat",
        "data": {"name": "conversations", "path": task["data"], "fraction": 0.02},
        "optim": {"lr": LR, "weight_decay": 0.0, "schedule": "linear", "warmup_steps": 0},
        "training": {"batch_size": task["rows"], "steps": WARM_UP + task["steps"]},
        "machine": {
            "device": "cpu",
            "precision": "fp32",
            "compile": False,
            "threads": task["threads"],
        },
        **task["settings"],
    }
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GROUNDUP_CACHE"] = f"{folder}/cache"
        trainer = groundup.trainer(recipe, runs=folder)
        counted: list[Counts] = []
        inner = trainer.task.loss

        def loss(outputs: Any, batch: Any) -> Any:
            real = batch["positions"].numel() - _padding(batch)
            trained = int((batch["targets"] >= 0).sum())
            counted.append({"trained": trained, "real": real, "all": batch["tokens"].numel()})
            return inner(outputs, batch)

        object.__setattr__(trainer.task, "loss", loss)
        watch = Watch()
        for report in trainer.steps():
            watch.step(report.loss)
        trainer.close()
    return watch.report(counted)


def _padding(batch: Any) -> int:
    """Return how many tokens end the rows that belong to no conversation: the last piece of each,
    if untrained."""
    width = batch["tokens"].shape[1]
    starts = sorted(set(batch["boundaries"].tolist()))
    pieces = [(a, b) for a, b in itertools.pairwise(starts) if b % width == 0]
    targets = batch["targets"].flatten()
    return sum(b - a for a, b in pieces if not bool((targets[a:b] >= 0).any()))


def tokenized(
    model: str, data: str, length: int
) -> Iterator[tuple[dict[str, Any], list[int], list[int]]]:
    """Yield each row of the file whose conversation fits, with its tokens and which of them are
    trained on."""
    from groundup.core.values import Message
    from groundup.data.schemas.chat_formats import recognise, to_messages
    from groundup.processors.chat.template import ChatTemplate, find_template
    from groundup.runs.processor import load_processor

    processor: Any = load_processor(Path(model))
    template = ChatTemplate(find_template(None, processor), processor)
    for number, row in enumerate(json.loads(Path(data).read_text(encoding="utf-8"))):
        messages: tuple[Message, ...] = to_messages(
            row, recognise(list(row)) or "auto", f"row {number}"
        )
        sequence = template.encode(messages)
        if len(sequence.tokens) <= length and sequence.trained is not None:
            yield row, sequence.tokens.tolist(), sequence.trained.astype(int).tolist()


def train_theirs(task: dict[str, Any]) -> dict[str, Any]:
    """Train with TRL and PEFT on tokens that the parent wrote."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(task["threads"])
    torch.set_flush_denormal(True)
    rows = Dataset.from_list(json.loads(Path(task["tokens"]).read_text(encoding="utf-8")))
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=torch.float32)
    watch, counted = Watch(), list[Counts]()

    class Steps(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch.restart()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                watch.step(logs["loss"])

    packed, free = (
        task["settings"].get("packing", False),
        task["settings"].get("padding_free", False),
    )
    adapter = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            folder,
            per_device_train_batch_size=task["rows"] if packed else task["examples"],
            max_length=None if free else task["length"],
            **{
                "max_steps": WARM_UP + task["steps"],
                "learning_rate": LR,
                "bf16": False,
                "use_cpu": True,
            },
            **{
                "completion_only_loss": True,
                "logging_steps": 1,
                "report_to": "none",
                "save_strategy": "no",
            },
            **{"dataloader_pin_memory": False, "disable_tqdm": True, "seed": 0, **task["settings"]},
        )
        tokenizer = AutoTokenizer.from_pretrained(task["model"])
        options: dict[str, Any] = {
            "processing_class": tokenizer,
            "peft_config": adapter,
            "callbacks": [Steps()],
        }
        trainer = SFTTrainer(model, args=arguments, train_dataset=rows, **options)
        collate: Callable[[Any], dict[str, Any]] = trainer.data_collator

        def counting(examples: Any) -> dict[str, Any]:
            batch = collate(examples)
            real = sum(len(example["input_ids"]) for example in examples)
            trained = int((batch["labels"] != -100).sum())
            counted.append({"trained": trained, "real": real, "all": batch["input_ids"].numel()})
            return batch

        trainer.data_collator = counting
        trainer.train()
    return watch.report(counted)


def one_process(task: dict[str, Any]) -> None:
    """Run one way and write what was measured to the file that the parent named."""
    train = train_ours if task["way"].startswith("ours") else train_theirs
    Path(task["answer"]).write_text(json.dumps(train(task)), encoding="utf-8")


# --------------------------------------------------------------------------------------- the parent
def measure(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one way in a process of its own."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(task["threads"]), "HF_HUB_OFFLINE": "1"}
    given = json.dumps({**task, "answer": str(answer)})
    finished = subprocess.run(
        [sys.executable, __file__, "--one", given], env=environment, capture_output=True
    )
    if finished.returncode:
        message = finished.stderr.decode(errors="replace").strip().splitlines()
        return {"error": message[-1] if message else f"exit status {finished.returncode}"}
    said = [
        line
        for line in finished.stderr.decode(errors="replace").splitlines()
        if "attn" in line or "flash" in line
    ]
    return {**json.loads(answer.read_text(encoding="utf-8")), "said": said[:3]}


def _tell(way: str, turn: dict[str, Any]) -> None:
    """Say on standard error how a turn went."""
    rates = [f"{step['trained'] / step['processor_s']:.1f}" for step in turn.get("steps", [])]
    loaded, peak = (turn.get(key, 0) / 1e6 for key in ("loaded_bytes", "peak_bytes"))
    found = (
        turn.get("error")
        or f"{' '.join(rates)} answer tokens a CPU second, {loaded:.0f} MB loaded, {peak:.0f} peak"
    )
    print(f"{way}: {found}", file=sys.stderr, flush=True)


def summarise(way: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rates over all measured steps of all turns, and medians of the memory."""
    errors = [turn["error"] for turn in turns if "error" in turn]
    if errors:
        return {"way": way, "error": errors[0]}
    steps = [step for turn in turns for step in turn["steps"][WARM_UP:]]
    total = {
        key: sum(step[key] for step in steps)
        for key in ("seconds", "processor_s", "trained", "real", "all")
    }
    memory = {
        key: statistics.median(turn[key] for turn in turns)
        for key in ("loaded_bytes", "peak_bytes")
    }
    return {
        **{"way": way, "trained_per_s": total["trained"] / total["seconds"]},
        **{"trained_per_processor_s": total["trained"] / total["processor_s"]},
        **{
            "real_per_s": total["real"] / total["seconds"],
            "real_per_processor_s": total["real"] / total["processor_s"],
        },
        **{"padding": 1 - total["real"] / total["all"], **memory, "turns": turns},
    }


def show(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Print the table, and return and print ours over each other way."""
    width = max(len(row["way"]) for row in rows)
    print(
        f"{'':{width}} {'answer/s':>9} {'tokens/s':>9} {'answer/CPU s':>13} {'padding':>8}"
        f" {'peak MB':>8} {'growth':>7}"
    )
    done = [row for row in rows if "error" not in row]
    for row in done:
        rates = (
            f"{row['trained_per_s']:9.1f} {row['real_per_s']:9.1f}"
            f" {row['trained_per_processor_s']:13.1f}"
        )
        peak, growth = row["peak_bytes"] / 1e6, (row["peak_bytes"] - row["loaded_bytes"]) / 1e6
        print(f"{row['way']:{width}} {rates} {row['padding']:8.1%} {peak:8.0f} {growth:7.0f}")
    for row in rows:
        if "error" in row:
            print(f"{row['way']:{width}} failed: {row['error']}")
    ratios = {}
    for one in (row for row in done if row["way"].startswith("ours")):
        for other in (row for row in done if not row["way"].startswith("ours")):
            names = (
                "trained_per_s",
                "trained_per_processor_s",
                "real_per_processor_s",
                "peak_bytes",
            )
            ratio = ratios[f"{one['way']} / {other['way']}"] = {
                name: one[name] / other[name] for name in names
            }
            speed = (
                f"{ratio['trained_per_s']:.2f} times the answer tokens/s"
                f" ({ratio['trained_per_processor_s']:.2f} by"
            )
            print(
                f"{one['way']} against {other['way']}: {speed} processor time),"
                f" {ratio['peak_bytes']:.2f} of the peak"
            )
    return ratios


def save(rows: list[dict[str, Any]], ratios: dict[str, Any], settings: dict[str, Any]) -> Path:
    """Write everything measured to ``results/<date>-finetune.json`` next to this file, and return
    its path."""
    from groundup.machine import devices

    today = datetime.date.today().isoformat()
    path = Path(__file__).resolve().parent / "results" / f"{today}-finetune.json"
    path.parent.mkdir(exist_ok=True)
    versions = {
        name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl", "peft")
    }
    content = {
        "date": today,
        "machine": devices.describe_machine(),
        "settings": settings,
        "versions": versions,
    }
    path.write_text(
        json.dumps({**content, "ways": rows, "ratios": ratios}, indent=1) + "\n", encoding="utf-8"
    )
    return path


def main() -> None:
    """Read the command line, measure, print and perhaps save."""
    if sys.argv[1:2] == ["--one"]:
        one_process(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(
        description="LoRA fine-tuning: ours against TRL with PEFT, side by side."
    )
    parser.add_argument("model", help="a folder in Hugging Face layout")
    parser.add_argument("data", help="a .json file of instructions")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each way")
    parser.add_argument(
        "--steps", type=int, default=6, help=f"measured steps a turn, after {WARM_UP} that are not"
    )
    parser.add_argument(
        "--length", type=int, default=512, help="tokens of a row, and of the longest conversation"
    )
    parser.add_argument("--rows", type=int, default=4, help="packed rows a step")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--ways", default=".", help="only those whose name fits this regular expression"
    )
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/<date>-finetune.json"
    )
    given = parser.parse_args()
    settings = {
        key: getattr(given, key) for key in ("rounds", "steps", "length", "rows", "threads")
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = list(tokenized(given.model, given.data, given.length))
        tokens = [{"input_ids": ids, "completion_mask": mask} for _, ids, mask in kept]
        mean = statistics.fmean(len(ids) for _, ids, _ in kept)
        settings |= {
            "conversations": len(kept),
            "examples": max(1, round(given.rows * given.length / mean)),
        }
        (folder / "data.json").write_text(json.dumps([row for row, _, _ in kept]), encoding="utf-8")
        (folder / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
        files = {
            "model": str(Path(given.model).resolve()),
            "data": f"{name}/data.json",
            "tokens": f"{name}/tokens.json",
        }
        turns: dict[str, list[dict[str, Any]]] = {
            way: [] for way in WAYS if re.search(given.ways, way)
        }
        for _ in range(given.rounds):
            for way, done in turns.items():
                done.append(
                    measure({**settings, **files, "way": way, "settings": WAYS[way]}, folder)
                )
                _tell(way, done[-1])
    print(f"{given.rounds} rounds of {given.steps} steps; {settings}")
    rows = [summarise(way, done) for way, done in turns.items()]
    ratios = show(rows)
    if given.save:
        print("saved", save(rows, ratios, settings))


if __name__ == "__main__":
    main()
