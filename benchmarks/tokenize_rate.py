"""Tokenizing into shards against ``tokenizers.Tokenizer`` alone, side by side on the same texts.

Run ``python benchmarks/tokenize_rate.py [rounds]``. A byte-level BPE of 4,096 tokens is learned
from a part of the interpreter's library; all then encode another half of it, in turns. Prints the
medians in characters a second and the ratio of ours to ``encode_batch``, which has to be at least
0.9. The bare calls get batches of the same size and keep nothing, not even the tokens as numbers;
``encode_batch_fast``, which leaves out offsets, is shown too since it is what we call. Processor
seconds are printed next to the rates: other work on the machine disturbs them less.
"""

from __future__ import annotations

import itertools
import logging
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from groundup.core.registry import lookup
from groundup.core.values import Document, TokenSequence
from groundup.data.stream.shard_writer import prepare_shards

__all__ = ["main"]


def library_texts() -> list[str]:
    """Return the source files of the standard library, about 11 million characters."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(
        p for p in root.rglob("*.py") if not {"site-packages", "test", "tests"} & set(p.parts)
    )
    return [path.read_text("utf-8", errors="ignore") for path in paths]


def in_batches(texts: Sequence[str]) -> list[list[str]]:
    """Return the texts in batches of a million characters."""
    batches: list[list[str]] = [[]]
    for text in texts:
        batches[-1].append(text)
        if sum(map(len, batches[-1])) >= 1_000_000:
            batches.append([])
    return batches


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return how long a call takes by the clock and of all cores together."""
    begin, processor_begin = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - processor_begin


def main(rounds: int) -> None:
    """Measure and print."""
    logging.getLogger("groundup").setLevel(logging.WARNING)
    library = library_texts()
    texts = library[1::2]
    batches, characters = in_batches(texts), sum(map(len, texts))
    bpe = lookup("processor", "bpe")(vocab_size=4096).fit(lambda: iter(library[::4]))
    end = np.array([bpe.end_id], dtype=np.int32)

    def encode(examples: Sequence[Document]) -> list[TokenSequence]:
        found = bpe.encode_batch([example.text for example in examples])
        return [TokenSequence(np.concatenate((end, tokens, end))) for tokens in found]

    def documents() -> Iterator[Document]:
        return (Document(str(number), text) for number, text in enumerate(texts))

    with tempfile.TemporaryDirectory() as folder:
        bpe.save(Path(folder))
        tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        new_folder = map(str, itertools.count())
        ways: dict[str, Callable[[], object]] = {
            "encode_batch alone": lambda: [len(tokenizer.encode_batch(batch)) for batch in batches],
            "encode_batch_fast alone": lambda: [
                len(tokenizer.encode_batch_fast(batch)) for batch in batches
            ],
            "into shards": lambda: prepare_shards(
                Path(folder, next(new_folder)), documents, encode
            ),
        }
        times = [[seconds(work) for work in ways.values()] for _ in range(rounds + 1)][
            1:
        ]  # the first warms up
    clock, processor_s = (
        {name: statistics.median(turn[n][kind] for turn in times) for n, name in enumerate(ways)}
        for kind in (0, 1)
    )
    print(f"{len(texts)} texts, {characters:,} characters, medians of {rounds} interleaved rounds")
    for name, median in clock.items():
        rate = characters / median / 1e6
        print(f"{name:24} {rate:8.2f} M characters/s {processor_s[name]:8.2f} processor seconds")
    print(f"{'ratio to encode_batch':24} {clock['encode_batch alone'] / clock['into shards']:8.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
