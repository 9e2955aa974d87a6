"""Writing 64 tokens at batch 1: ours against transformers.generate and llama.cpp, with the same
weights and prompts.

Run
``python benchmarks/generate.py FOLDER [--tokens 64] [--rounds 5] [--prompts 3] [--threads 1,2] [--save]``, where FOLDER is the ``model`` folder of a run that started from SmolLM2: Hugging Face layout with our ``processor.json``. Ways
take turns, round by round and prompt by prompt; greedy, no end token, prompts included in the time.
Ways: transformers with its default cache and with its static one, in fp32; ours in fp32, bf16,
    int8 and int4; where ``xllamacpp`` is installed,
llama.cpp by itself with F32 and Q8_0 files that we write, and as our engine
(``--engine llama.cpp``), whose tokens are held to ours before it starts.

A "CPU second" is one of this process, which a busy machine changes less; llama.cpp has its own
process, and its row there means nothing.
"Share" is the bytes of weights that a token needs, times tokens a second, over the rate at which a
sum of 512 MB reads memory, measured before every round. Tokens are compared with those of
transformers; where ours in few bits differs from
fp32, the table says by how much: KL divergence and top-1 agreement over the same continuation.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import importlib.util
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.formats.huggingface_folder import Pretrained, read_config
from groundup.formats.llama_cpp import LlamaServer
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.inference.llama_cpp import LlamaCppEngine, open_llama_cpp
from groundup.inference.precision import WEIGHTS, quick, set_weights
from groundup.machine.devices import describe_machine
from groundup.models.gpt import GPTConfig
from groundup.runs.processor import load_processor
from groundup.weights.gguf import save_gguf
from groundup.weights.load import read_pretrained

__all__ = ["main"]

PROMPTS = (
    "The capital of France is",
    "To sort a list of words in Python, you",
    "The three most important inventions of the last century were",
)
Write = Callable[[list[int], int], list[int]]


@dataclass
class Way:
    """One of the things compared: ``write(prompt, n)`` gives n tokens; ``bytes`` are read for
    each."""

    name: str
    write: Write
    bytes: int
    rates: list[float] = field(default_factory=list)
    cpu_rates: list[float] = field(default_factory=list)
    texts: list[list[int]] = field(default_factory=list)


def read_rate(values: Tensor) -> float:
    """Return the bytes a second at which a sum reads memory."""
    begin = time.perf_counter()
    values.sum()
    return values.nbytes / (time.perf_counter() - begin)


def ours(model: nn.Module, weights: str) -> tuple[Any, Write]:
    """Return our decoder with such weights, and how it writes."""
    model = copy.deepcopy(model)
    set_weights(model, weights, "the benchmark")
    decoder: Any = quick(model)

    def write(prompt: list[int], tokens: int) -> list[int]:
        options = DecodingOptions(temperature=0, max_new_tokens=tokens)
        return generate_batch(decoder, [prompt], options)[0]

    return decoder, write


def transformers_write(folder: Path, cache: str | None) -> Write:
    """Return how ``transformers.generate`` writes."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    more = {} if cache is None else {"cache_implementation": cache, "disable_compile": True}

    def write(prompt: list[int], tokens: int) -> list[int]:
        ids = torch.tensor([prompt])
        out = model.generate(
            **{
                "inputs": ids,
                "attention_mask": torch.ones_like(ids),
                "do_sample": False,
                "eos_token_id": None,
            },
            **{"pad_token_id": 0, "max_new_tokens": tokens, **more},
        )
        return [int(token) for token in out[0, len(prompt) :]]

    return write


def llama_write(path: Path, threads: int) -> Write:
    """Return how llama.cpp writes with its own defaults, a text in one request, in a process of its
    own."""
    server = LlamaServer(path, 512, threads, "Leave it out with --ways", exact=False)

    def write(prompt: list[int], tokens: int) -> list[int]:
        asked = {
            "prompt": prompt,
            "n_predict": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        answer = server.complete({**asked, "return_tokens": True, "verbose": True})
        text = answer.get("__verbose", answer).get("tokens", [])
        if len(text) != tokens:
            raise SystemExit(
                f"llama.cpp wrote {len(text)} tokens instead of {tokens}: {str(answer)[:200]}"
            )
        return [int(token) for token in text]

    return write


def engine_write(engine: LlamaCppEngine) -> Write:
    """Return how llama.cpp writes behind our own interface."""

    def write(prompt: list[int], tokens: int) -> list[int]:
        return generate_batch(
            engine, [prompt], DecodingOptions(temperature=0, max_new_tokens=tokens)
        )[0]

    return write


def weight_bytes(weights: dict[str, Tensor], block_bits: float, output_bits: float) -> int:
    """Return the bytes of weights that one token needs: everything but an embedding that is no
    output layer."""
    untied = any(name.startswith("head.") for name in weights)
    needed = {
        n: w
        for n, w in weights.items()
        if not (n.startswith("positions.") or (untied and n == "embed.weight"))
    }
    bits = {
        name: output_bits if name.startswith(("embed.", "head.")) else block_bits for name in needed
    }
    return int(sum(w.numel() * (bits[n] / 8 if w.ndim == 2 else 4) for n, w in needed.items()))


@torch.no_grad()
def agreement(one: Any, other: Any, texts: list[list[int]]) -> dict[str, float]:
    """Return the mean KL divergence in nats and how often the best token is the same, read token by
    token."""
    kl, same, count = 0.0, 0, 0
    for text in texts:
        caches = [each.new_cache(1, len(text)) for each in (one, other)]
        for place, token in enumerate(text):
            read, where = torch.tensor([[token]]), torch.tensor([[place]])
            p, q = (
                each(read, where, cache=cache, last_only=True)[0, 0].float().log_softmax(-1)
                for each, cache in zip((one, other), caches, strict=True)
            )
            kl += float((p.exp() * (p - q)).sum())
            same += int(p.argmax() == q.argmax())
            count += 1
    return {"kl_nats": kl / count, "top1_agreement": same / count, "tokens": count}


def ways_of(
    given: argparse.Namespace, threads: int, folder: Path
) -> tuple[list[Way], dict[str, Any], Any]:
    """Return the ways to compare, our decoders by precision, and the tokenizer."""
    config = GPTConfig(**GPTConfig.from_huggingface(read_config(given.folder)))
    weights = read_pretrained(Pretrained(str(given.folder), given.folder), config)
    processor, model = load_processor(given.folder), config.build()
    model.load_state_dict(weights)
    bits = {
        "int4": weight_bytes(weights, 5, 8),
        **{
            name: weight_bytes(weights, size, size)
            for name, size in (("fp32", 32), ("bf16", 16), ("int8", 8), ("q8", 8.5))
        },
    }
    ways = [
        Way("transformers, fp32", transformers_write(given.folder, None), bits["fp32"]),
        Way(
            "transformers, fp32, static cache",
            transformers_write(given.folder, "static"),
            bits["fp32"],
        ),
    ]
    decoders: dict[str, Any] = {}
    for precision in WEIGHTS:
        decoders[precision], write = ours(model, precision)
        ways.append(Way(f"ours, {precision}", write, bits[precision]))
    if importlib.util.find_spec("xllamacpp") is not None:
        for kind, size in (("F32", "fp32"), ("Q8_0", "q8")):
            if not re.search(given.ways, f"llama.cpp, {kind}"):
                continue
            path = folder / f"{kind}.gguf"
            if not path.is_file():
                save_gguf(path, config, weights, processor, kind)
            ways.append(Way(f"llama.cpp, {kind}", llama_write(path, threads), bits[size]))
        for precision, size in (("fp32", "fp32"), ("int8", "q8")):
            if not re.search(given.ways, f"llama.cpp engine, {precision}"):
                continue
            engine = open_llama_cpp(config, weights, processor, precision, folder)
            ways.append(Way(f"llama.cpp engine, {precision}", engine_write(engine), bits[size]))
    return (
        [ways[0], *(way for way in ways[1:] if re.search(given.ways, way.name))],
        decoders,
        processor,
    )


def measure(given: argparse.Namespace, threads: int, folder: Path) -> dict[str, Any]:
    """Return a row for each way with so many threads."""
    torch.set_num_threads(threads)
    ways, decoders, processor = ways_of(given, threads, folder)
    prompts = [tokens.tolist() for tokens in processor.encode_batch(list(PROMPTS[: given.prompts]))]
    values, memory = torch.ones(128 * 2**20), []
    for way in ways:
        way.write(prompts[0], 4)
    for turn in range(given.rounds):
        for prompt in prompts:
            memory.append(max(read_rate(values) for _ in range(3)))
            for way in ways:
                begin, cpu_begin = time.perf_counter(), time.process_time()
                text = way.write(prompt, given.tokens)
                way.cpu_rates.append(given.tokens / (time.process_time() - cpu_begin))
                way.rates.append(given.tokens / (time.perf_counter() - begin))
                if turn == 0:
                    way.texts.append(text)
        print(
            threads,
            turn,
            {way.name: round(way.rates[-1], 1) for way in ways},
            file=sys.stderr,
            flush=True,
        )
    whole = [[*prompt, *text] for prompt, text in zip(prompts, ways[0].texts, strict=True)]
    return {
        "threads": threads,
        "read_bytes_per_s": statistics.median(memory),
        "ways": [_row(way, ways[0], statistics.median(memory)) for way in ways],
        "against_fp32": {
            kind: agreement(decoders["fp32"], decoders[kind], whole) for kind in WEIGHTS[1:]
        },
    }


def _row(way: Way, first: Way, memory: float) -> dict[str, Any]:
    rate = statistics.median(way.rates)
    ratio = statistics.median(
        one / other for one, other in zip(way.rates, first.rates, strict=True)
    )
    pairs = list(zip(way.texts, first.texts, strict=True))
    alike = [_common(one, other) for one, other in pairs]
    row = {
        "name": way.name,
        "tokens_per_s": rate,
        "tokens_per_cpu_s": statistics.median(way.cpu_rates),
        "ratio": ratio,
        "megabytes_per_token": way.bytes / 1e6,
    }
    return {
        **row,
        "share": way.bytes * rate / memory,
        "same_texts": sum(a == b for a, b in pairs),
        "same": alike,
    }


def _common(one: list[int], other: list[int]) -> int:
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )


def table(found: list[dict[str, Any]]) -> str:
    """Return what was measured, in Markdown."""
    lines = [
        (
            "| threads | way | tokens/s | tokens/CPU s | against transformers | MB a token | share of read rate |"
            " first tokens alike |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        for row in one["ways"]:
            figures = (
                f"{row['tokens_per_s']:.1f} | {row['tokens_per_cpu_s']:.1f} | {row['ratio']:.2f}x |"
                f" {row['megabytes_per_token']:.0f}"
            )
            lines.append(
                f"| {one['threads']} | {row['name']} | {figures} | {row['share']:.0%} |"
                f" {row['same']} |"
            )
        lines.append(
            f"\n{one['threads']} threads read {one['read_bytes_per_s'] / 1e9:.1f} GB/s;"
            f" {one['against_fp32']}\n"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and perhaps save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument(
        "--ways",
        default=".",
        help="next to transformers, only those whose name fits this expression",
    )
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/<date>-generate.json"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(given, int(threads), Path(folder)) for threads in given.threads.split(",")]
    print(table(found))
    if given.save:
        path = Path(__file__).parent / "results" / f"{datetime.date.today()}-generate.json"
        settings = {"tokens": given.tokens, "rounds": given.rounds, "prompts": given.prompts}
        content = {"machine": describe_machine(), "settings": settings, "found": found}
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
