"""Write on from a prompt with a trained run, piece by piece.

python examples/generate.py RUN_FOLDER [PROMPT]
"""

from __future__ import annotations

import sys

import groundup


def main() -> None:
    """Stream one answer to the terminal."""
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} RUN_FOLDER [PROMPT]")
    prompt = sys.argv[2] if len(sys.argv) > 2 else "The "
    predictor = groundup.load(sys.argv[1])
    print(prompt, end="")
    for piece in predictor.stream(prompt, max_new_tokens=60, temperature=0.8, top_p=0.95, seed=1):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
