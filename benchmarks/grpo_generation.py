"""Tokens a second of answers as GRPO draws them: groundup's batched decoding next to transformers'
generate, called as TRL calls it, on the same weights, prompts and thread, in one run; then which
share of the recipe's first step generation is.

    python benchmarks/grpo_generation.py SmolLM2-135M-Instruct.Q4_1.gguf [prompts] [group] [tokens]

Both draw at temperature 1, in float32, and write exactly so many tokens: an end that is drawn ends
no text here, so that neither writes more than the other. CPU seconds, medians of rounds in turn. It
needs transformers, whose generate TRL gives each prompt once for every answer of its group.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from groundup import api
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.nn.lora.switched_off import merged, without_adapters
from groundup.training.components import refill

RECIPE = Path(__file__).parents[1] / "recipes" / "text" / "smollm2_sums.yaml"
ROUNDS = 3


def seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def as_transformers(trainer: Any) -> Any:
    """Return the starting weights as transformers' model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with without_adapters(trainer.model):
        values, tensors = trainer.recipe.model.to_huggingface(trainer.model.state_dict())
    model = LlamaForCausalLM(LlamaConfig(**values)).eval()
    missing, odd = model.load_state_dict(tensors, strict=False)
    assert not odd, odd
    assert set(missing) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model


def main() -> None:
    weights, *numbers = sys.argv[1:]
    prompts, group, tokens = (*map(int, numbers), *(8, 8, 16)[len(numbers) :])
    torch.set_num_threads(1)
    changes: dict[str, Any] = {
        "init.pretrained": weights,
        "machine.precision": "fp32",
        "training.batch_size": prompts,
        "training.steps": 3,
        "optim.warmup_steps": 0,
        "task.group_size": group,
    }
    with tempfile.TemporaryDirectory() as runs:
        trainer = api.trainer(RECIPE, changes, runs=runs)
        template = trainer.task.chat_template(trainer.parts.processor)
        asked = list(trainer.parts.source.examples("train", Path(runs)))[:prompts]
        given = [template.prompt(each.messages).tolist() for each in asked for _ in range(group)]
        options = DecodingOptions(max_new_tokens=tokens, temperature=1.0, overflow="stop")
        width = max(map(len, given))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in given])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in given])
        other = as_transformers(trainer)

        def own() -> None:
            with merged(trainer.model):
                generate_batch(trainer.model, given, options)

        def theirs() -> None:
            with torch.no_grad():
                other.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=tokens,
                    min_new_tokens=tokens,
                    do_sample=True,
                    top_k=0,
                    pad_token_id=0,
                )

        trainer.model.eval()
        spent: dict[str, list[float]] = {"groundup": [], "transformers": []}
        for _ in range(ROUNDS):  # in turn: what else the machine does meets both
            spent["groundup"].append(seconds(own))
            spent["transformers"].append(seconds(theirs))
            print(*(f"{name} {each[-1]:.2f} s" for name, each in spent.items()), flush=True)
        written = len(given) * tokens
        rates = {name: written / statistics.median(each) for name, each in spent.items()}
        for name, rate in rates.items():
            print(f"{name:13} {rate:7.1f} tokens/s of CPU time, {len(given)} answers of {tokens}")
        print(f"groundup / transformers: {rates['groundup'] / rates['transformers']:.2f}")
        # What the first weights find: later answers are shorter, and more groups teach nothing.
        machine = trainer.recipe.machine
        writing = seconds(lambda: refill(trainer.stream, trainer.model, 0, machine))
        steps = trainer.steps()
        learning = seconds(lambda: next(steps))  # the answers of step 0 are there
        print(f"a step: {writing:.1f} s writes and scores, {learning:.1f} s learns,")
        print(f"of which generation is {writing / (writing + learning):.0%}")
        trainer.close()


if __name__ == "__main__":
    main()
