"""Train a small GPT from Python, with a loop of your own.

    python examples/train_from_python.py [TEXT_FILE_OR_FOLDER]

Without a file it learns from the language reference that comes with the interpreter.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import groundup


def language_reference() -> Path:
    """Write the first topics of the language reference to a .jsonl file, a topic a line, and return
    its path."""
    from pydoc_data.topics import topics

    path = Path("runs/language_reference.jsonl")
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"text": text}) for _, text in sorted(topics.items())[:30]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def main() -> None:
    """Train for 40 updates, then write a little."""
    path = sys.argv[1] if len(sys.argv) > 1 else str(language_reference())
    recipe = {
        "name": "from-python",
        "model": {"name": "gpt", "layers": 2, "width": 64, "heads": 2, "context_length": 64},
        "task": "language_modeling",
        "processor": "bytes",
        "data": {"name": "text", "path": path},
        "optim": {"lr": 3e-3, "warmup_steps": 5},
        "training": {"batch_size": 8, "steps": 40},
        "machine": {"precision": "fp32", "compile": False, "threads": 1},
    }
    trainer = groundup.trainer(recipe)
    try:
        for report in trainer.steps():
            if report.step % 10 == 0:
                print(
                    f"step {report.step}: loss {report.loss:.3f} nats a token, gradient norm"
                    f" {report.gradient_norm:.2f}"
                )
        print("validation:", trainer.evaluate(batches=5))
        trainer.save()
    finally:
        trainer.close()
    print(groundup.predict(trainer.run.folder, "The ", max_new_tokens=40))


if __name__ == "__main__":
    main()
