"""How quickly texts are cleaned and a tokenizer is learned from them, and what a document costs in
memory.

Run ``python benchmarks/cleaning_rate.py``. Documents of about 500 bytes are cut at line ends from
the Python sources of everything that is installed, until there are ``--documents``. Shown are
megabytes a second of processor time, all threads together, and the growth of the process's largest
memory, in all and over the documents; each step is a process of its own. ``--tree`` measures
another checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["main"]

PIECE = 500  # characters
STEPS = ("cleaning", "cleaning and tokenizer")
# Run in a process of its own, and by another checkout too: only what both have is imported.
MEASURE = """
import json, logging, resource, sys, tempfile, time
from pathlib import Path
from groundup.data.sources.text import TextSource
from groundup.processors.text.bpe import BPEConfig

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

path, step = sys.argv[1:]
logging.disable(logging.WARNING)
try:
    import datasketch  # another checkout may use it: its import is no memory of documents
except ImportError:
    pass
source = TextSource(path=path, fraction=0.01)
before = memory()
begin = time.process_time()
with tempfile.TemporaryDirectory() as cache:
    card = source.card(Path(cache))
    if step != "cleaning":
        BPEConfig(vocab_size=4096).fit(
            lambda: (document.text for document in source.examples("train", Path(cache)))
        )
seconds = time.process_time() - begin
cleaning = card["cleaning"]
print(json.dumps({"s": seconds, "bytes": memory() - before, "peak": memory(),
    "removed": cleaning["removed"], "groups": cleaning["near_duplicate_groups"]}))
"""


def pieces() -> Iterator[str]:
    """Yield pieces of the sources that are installed, the same on every machine that has the
    same."""
    roots = (Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib")))
    for path in (path for root in roots for path in sorted(root.rglob("*.py"))):
        piece = ""
        for line in path.read_text("utf-8", errors="ignore").splitlines(keepends=True):
            piece += line
            if len(piece) >= PIECE:
                yield piece
                piece = ""


def write_documents(path: Path, documents: int) -> int:
    """Write a file of JSON lines, and return how many there are."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for piece in pieces():
            file.write(json.dumps({"text": piece}) + "\n")
            count += 1
            if count == documents:
                break
    return count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=120_000)
    parser.add_argument("--tree", default=str(Path(__file__).parents[1]), help="a checkout")
    options = parser.parse_args()
    environment = os.environ | {"PYTHONPATH": options.tree}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        documents = write_documents(path, options.documents)
        megabytes = path.stat().st_size / 1e6
        print(f"{documents:,} documents, {megabytes:.1f} MB")
        for step in STEPS:
            command = [sys.executable, "-c", MEASURE, str(path), step]
            done = subprocess.run(
                command, env=environment, cwd=folder, check=True, capture_output=True, text=True
            )
            found = json.loads(done.stdout)
            print(
                f"{step}: {megabytes / found['s']:.1f} MB a second and core;"
                f" {found['bytes'] / 1e6:.0f} MB more memory, {found['bytes'] / documents:.0f}"
                f" bytes a document; at most {found['peak'] / 1e6:.0f} MB;"
                f" removed {found['removed']}, {found['groups']} groups of near-duplicates"
            )


if __name__ == "__main__":
    main()
