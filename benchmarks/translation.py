"""Translation with the same Marian shape in groundup and in transformers: target tokens a second in
training against ``Seq2SeqTrainer``, what each has learned after as many steps, and inputs a second
in writing against ``transformers.generate`` with the same weights.

Make the pairs with ``benchmarks/libreoffice_help.py``, then

    python benchmarks/translation.py PAIRS.jsonl OUT --steps 300

Both train on the same pairs in the same tokens, in batches of as many pairs, with the same
optimizer and schedule; ours as ``groundup train`` does it. They take turns, a stretch of steps
each, and every rate is of processor time (``--wall``: of time that passed), so that other work on
the machine counts as little as it can. ``--group-by-length`` lets the library sort its batches by
length, which the order of its samples then follows. Then the model that we trained is written to a
folder that the library opens, and both write about held-out inputs in turns.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sacrebleu
import torch
import transformers
from torch.utils.data import Dataset

from groundup import api
from groundup.generation.beam_search import beam_search
from groundup.generation.decoding import generate_batch
from groundup.generation.options import DecodingOptions
from groundup.inference.precision import quick
from groundup.tasks.text_to_text.rows import pad_source

__all__ = ["main"]

CONTEXT = 128
MARIAN: dict[str, Any] = {
    "context_length": CONTEXT,
    "positions": "sinusoidal",
    "norm": "layernorm",
    "norm_eps": 1e-5,
    "norm_placement": "post",
    "activation": "silu",
    "bias": "all",
    "embedding_scale": True,
    "output_bias": True,
    "dropout": 0.1,
}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=300, help="of each")
    parser.add_argument("--stretch", type=int, default=20, help="steps before the other's turn")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--layers", type=int, default=3, help="of each stack")
    parser.add_argument("--width", type=int, default=256, help="64 a head; the MLP's is four times")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="of writing")
    parser.add_argument("--written", type=int, default=CONTEXT - 1, help="the most tokens")
    parser.add_argument("--scored", type=int, default=200, help="held-out pairs for BLEU; 0: none")
    parser.add_argument("--group-by-length", action="store_true")
    parser.add_argument("--wall", action="store_true")
    given = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(given.threads)
    clock = time.perf_counter if given.wall else time.process_time
    found = {"settings": {k: str(v) for k, v in vars(given).items()}}
    trainer = our_trainer(given)
    found["training"] = train(given, trainer, clock)
    found["writing"] = write(given, trainer, open_theirs(trainer.model), clock)
    print(json.dumps(found, indent=1))


# ---------------------------------------------------------------------------------------- training
def our_model(given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of our model, of Marian's shape."""
    sizes = {"layers": given.layers, "width": given.width, "heads": given.width // 64}
    return {**MARIAN, **sizes, "mlp_width": 4 * given.width}


def our_trainer(given: argparse.Namespace) -> Any:
    """Return the trainer of a run with the pairs."""
    recipe = {
        "name": "translation",
        "model": {"name": "encoder_decoder", **our_model(given)},
        "task": {
            "name": "text_to_text",
            "max_source_tokens": CONTEXT,
            "max_target_tokens": CONTEXT,
            "metrics": ["bleu"],
            "measured": 0,
        },
        "data": {"name": "parallel_text", "path": str(given.pairs), "group_column": "page"},
        "processor": {"name": "bpe", "vocab_size": 8000},
        # As the library has them, which falls to 0.
        "optim": {
            "lr": given.lr,
            "betas": [0.9, 0.999],
            "warmup_steps": 100,
            "weight_decay": 0.0,
            "final_lr_fraction": 0.0,
        },
        "training": {"batch_size": given.batch, "steps": given.steps},
        "evaluation": {"every": given.steps, "batches": 4},
        "machine": {"threads": given.threads, "precision": "fp32", "device": "cpu"},
    }
    return api.trainer(recipe, {}, runs=given.out)


class Pairs(Dataset[dict[str, list[int]]]):
    """The training pairs in tokens, as ``DataCollatorForSeq2Seq`` takes them."""

    def __init__(self, source: list[list[int]], target: list[list[int]]) -> None:
        self.rows = [
            {"input_ids": one, "labels": two} for one, two in zip(source, target, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        return self.rows[number]


class Turns(transformers.TrainerCallback):
    """Lets our trainer take its turn between stretches of the library's steps."""

    def __init__(self, stretch: int, turn: Callable[[], None], clock: Callable[[], float]) -> None:
        self.stretch = stretch
        self.turn = turn
        self.clock = clock
        self.seconds: list[float] = []
        self._begin = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step % self.stretch == 0:
            self._begin = self.clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step % self.stretch == 0:
            self.seconds.append(self.clock() - self._begin)
            self.turn()


def train(given: argparse.Namespace, trainer: Any, clock: Callable[[], float]) -> dict[str, Any]:
    """Train both in turns, and return their rates and what held-out pairs cost them."""
    task = trainer.recipe.task
    processor = trainer.parts.processor
    examples = list(trainer.recipe.data.examples("train", given.out))
    held = list(trainer.recipe.data.examples("validation", given.out))[: given.scored]
    source, target = encode(task, examples, processor)
    steps: Iterator[Any] = iter(trainer.steps())
    seconds: list[float] = []
    tokens: list[float] = []

    def turn() -> None:
        begin = clock()
        counted = 0.0
        for _ in range(given.stretch):
            counted += next(steps).count
        seconds.append(clock() - begin)
        tokens.append(counted)

    model = their_model(our_model(given), processor)
    turns = Turns(given.stretch, turn, clock)
    arguments = transformers.Seq2SeqTrainingArguments(
        output_dir=str(given.out / "theirs"),
        per_device_train_batch_size=given.batch,
        max_steps=given.steps,
        learning_rate=given.lr,
        warmup_steps=100,
        lr_scheduler_type=their_schedule(trainer.recipe),
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **({"train_sampling_strategy": "group_by_length"} if given.group_by_length else {}),
    )
    counts: list[int] = []
    pad = processor.end_id

    def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        counts.append(sum(len(row["labels"]) for row in rows))
        widest = max(len(row["input_ids"]) for row in rows)
        longest = max(len(row["labels"]) for row in rows)
        return {
            "input_ids": torch.tensor(
                [row["input_ids"] + [pad] * (widest - len(row["input_ids"])) for row in rows]
            ),
            "attention_mask": torch.tensor(
                [
                    [1] * len(row["input_ids"]) + [0] * (widest - len(row["input_ids"]))
                    for row in rows
                ]
            ),
            "labels": torch.tensor(
                [row["labels"] + [-100] * (longest - len(row["labels"])) for row in rows]
            ),
        }

    library = transformers.Seq2SeqTrainer(
        model, arguments, train_dataset=Pairs(source, target), data_collator=collate
    )
    library.add_callback(turns)
    library.train()
    trainer.close()
    model.eval()
    trainer.model.eval()
    per = given.batch * given.stretch
    theirs = [
        sum(counts[n * given.stretch : (n + 1) * given.stretch]) / s
        for n, s in enumerate(turns.seconds)
    ]
    ours = [count / s for count, s in zip(tokens, seconds, strict=True)]
    found: dict[str, Any] = {
        "pairs": len(examples),
        "pairs_a_turn": per,
        "target_tokens_per_s": {
            "groundup": statistics.median(ours),
            "transformers": statistics.median(theirs),
        },
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "of_all": (sum(tokens) / sum(seconds)) / (sum(counts[: given.steps]) / sum(turns.seconds)),
    }
    if not held:
        return found
    texts = {
        "groundup": our_texts(trainer, held),
        "transformers": their_texts(model, task, held, processor),
    }
    found["held_out"] = {name: scores(held, own) for name, own in texts.items()}
    return found


def encode(task: Any, examples: list[Any], processor: Any) -> tuple[list[Any], list[Any]]:
    """Return the tokens of both sides of each pair, as the task has them."""
    from groundup.contracts.ragged import ragged_rows

    batch = task.encode(examples, processor)
    source, target = (
        [row.tolist() for row in ragged_rows(batch, side)] for side in ("source", "target")
    )
    return source, target


def their_schedule(recipe: Any) -> str:
    """Return the library's name of our schedule after the warm-up."""
    return {"cosine": "cosine", "linear": "linear"}.get(
        str(recipe.optim.schedule), "constant_with_warmup"
    )


def their_model(sizes: dict[str, Any], processor: Any) -> Any:
    """Return the library's model of the same shape with its own fresh weights."""
    torch.manual_seed(0)
    end = processor.end_id
    return transformers.MarianMTModel(
        transformers.MarianConfig(
            vocab_size=processor.vocabulary_size,
            d_model=sizes["width"],
            encoder_layers=sizes["layers"],
            decoder_layers=sizes["layers"],
            encoder_attention_heads=sizes["heads"],
            decoder_attention_heads=sizes["heads"],
            encoder_ffn_dim=sizes["mlp_width"],
            decoder_ffn_dim=sizes["mlp_width"],
            max_position_embeddings=CONTEXT,
            activation_function="swish",
            scale_embedding=True,
            dropout=sizes["dropout"],
            attention_dropout=0.0,
            activation_dropout=0.0,
            pad_token_id=processor.vocabulary_size - 1,
            decoder_start_token_id=processor.begin_id,
            eos_token_id=end,
            forced_eos_token_id=None,
        )
    )


def our_texts(trainer: Any, held: list[Any]) -> list[str]:
    """Return what our model writes, greedily."""
    decoder = quick(trainer.model.eval())
    inputs = [each.inputs for each in held]
    return list(trainer.task.predict(decoder, inputs, trainer.parts.processor, beams=1))


def their_texts(model: Any, task: Any, held: list[Any], processor: Any) -> list[str]:
    """Return what the library's model writes, greedily."""
    source, _ = encode(task, held, processor)
    found = []
    for first in range(0, len(source), 32):
        rows = [torch.tensor(row) for row in source[first : first + 32]]
        given = pad_source(rows)
        out = model.generate(
            input_ids=given["source"],
            attention_mask=given["source_mask"].long(),
            max_new_tokens=CONTEXT - 1,
            do_sample=False,
            num_beams=1,
        )
        found += [processor.decode(until_end(row, processor.end_id)) for row in out[:, 1:].tolist()]
    return found


def until_end(row: list[int], end: int) -> list[int]:
    """Return the tokens before the first end."""
    return row[: row.index(end)] if end in row else row


def scores(held: list[Any], texts: list[str]) -> dict[str, float]:
    """Return BLEU and chrF of texts against the references."""
    references = [[str(each.target) for each in held]]
    return {
        "bleu": float(sacrebleu.corpus_bleu(texts, references).score),
        "chrf": float(sacrebleu.corpus_chrf(texts, references).score),
    }


# ----------------------------------------------------------------------------------------- writing
def open_theirs(model: Any) -> Any:
    """Return the library's model with our weights."""
    values, tensors = model.config.to_huggingface(model.state_dict())
    config = transformers.MarianConfig(**values)
    config.eos_token_id = None
    theirs = transformers.MarianMTModel(config).eval()
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    # Copies of the one embedding, and tables of sinusoids.
    assert not unexpected
    assert all("embed" in name or name == "lm_head.weight" for name in missing), missing
    return theirs


def write(
    given: argparse.Namespace, trainer: Any, theirs: Any, clock: Callable[[], float]
) -> list[dict[str, Any]]:
    """Write about held-out inputs in turns, and return rates, ratios, and how many are the same."""
    task = trainer.task
    processor = trainer.parts.processor
    held = list(trainer.recipe.data.examples("validation", given.out))[:128]
    source, _ = encode(task, held, processor)
    end = processor.end_id
    decoder: Any = quick(trainer.model.eval())

    def ours(rows: list[Any], beams: int) -> list[list[int]]:
        options = DecodingOptions(temperature=0, max_new_tokens=given.written, beams=beams)
        prompts = [[decoder.start_id]] * len(rows)
        if beams == 1:
            return generate_batch(decoder, prompts, options, {end}, None, pad_source(rows))
        texts = beam_search(decoder, prompts, options, {end}, pad_source(rows))
        return [each[0].tokens for each in texts]

    def library(rows: list[Any], beams: int) -> list[list[int]]:
        read = pad_source(rows)
        out = theirs.generate(
            input_ids=read["source"],
            attention_mask=read["source_mask"].long(),
            max_new_tokens=given.written,
            do_sample=False,
            num_beams=beams,
            decoder_start_token_id=decoder.start_id,
            eos_token_id=end,
        )
        return [until_end(row, end) for row in out[:, 1:].tolist()]

    found = []
    for batch in (1, 16):
        for beams in (1, 5):
            number = 12 if batch == 1 else 4
            batches = [
                [torch.tensor(row) for row in source[n * batch : (n + 1) * batch]]
                for n in range(number if beams == 1 else max(number // 3, 1))
            ]
            same = total = 0
            seconds: dict[str, list[float]] = {"groundup": [], "transformers": []}
            for turn in range(given.rounds):
                for rows in batches:
                    texts = {}
                    for name, run in (("groundup", ours), ("transformers", library)):
                        begin = clock()
                        texts[name] = run(rows, beams)
                        seconds[name].append(clock() - begin)
                    if turn == 0:
                        pairs = zip(texts["groundup"], texts["transformers"], strict=True)
                        same += sum(one == two for one, two in pairs)
                        total += len(rows)
            pairs = zip(seconds["transformers"], seconds["groundup"], strict=True)
            found.append(
                {
                    "batch": batch,
                    "beams": beams,
                    "seconds": {name: statistics.median(v) for name, v in seconds.items()},
                    "ratio": statistics.median(a / b for a, b in pairs),
                    "of_all": sum(seconds["transformers"]) / sum(seconds["groundup"]),
                    "same_texts": f"{same} of {total}",
                }
            )
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
