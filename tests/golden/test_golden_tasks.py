"""Twenty steps of every registered model, and of every task, give the losses they always gave.

After a change that is meant to change them: GROUNDUP_REWRITE_GOLDEN=1 python -m pytest tests/golden
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_runs import caption_run, from_captions_run
from rewarded import rewarded_run
from tiny_runs import (
    AUGMENTATION,
    MODELS,
    encoder_run,
    preference_run,
    tiny_run,
    without_chance,
    write_several_targets,
)

from groundup import api
from groundup.core.registry import BUILTINS, names
from groundup.data.sources.arrays import Arrays

FILE = Path(__file__).parent / "tasks.json"
REWRITE = os.environ.get("GROUNDUP_REWRITE_GOLDEN") == "1"
STEPS = 20
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "classify": ("pictures", {}),
    "classify smoothed": ("pictures", {"label_smoothing": 0.1}),
    "classify balanced": ("rare", {"class_weights": "balanced"}),
    "classify effective": ("rare", {"class_weights": "effective", "effective_beta": 0.9}),
    "classify several": ("tags", {"labels": "multi_label"}),
    "classify mixed": ("pictures", {"augmentation": {"mixup": 0.4, "cutmix": 1.0}}),
    "classify augmented": ("pictures", {"augmentation": AUGMENTATION["pictures"]}),
    "masked_language_modeling": ("documents", {}),
    "masked_language_modeling words": ("documents", {"whole_words": True}),
    "sentence_embedding": ("encoder", {}),
    "sentence_embedding symmetric": ("encoder", {"symmetric": True, "pooling": "first"}),
    "token_classification": ("encoder", {}),
    "extractive_qa": ("encoder", {}),
    "text_to_text": ("pairs", {}),
    "text_to_text smoothed": ("pairs", {"label_smoothing": 0.1}),
    "transcribe": ("spoken", {}),
    "transcribe augmented": ("spoken", {"augmentation": AUGMENTATION["spoken"]}),
    "generate_images": ("drawings", {}),
    "generate_images mean_flow": ("drawings", {"mean_flow": True}),
    "generate_images text": ("captions to draw", {"name": "unet"}),
    "generate_images text mean_flow": ("captions to draw", {"name": "dit", "mean_flow": True}),
    "policy_value": ("games", {}),
    "detect": ("scenes", {}),
    "detect augmented": ("scenes", {"augmentation": AUGMENTATION["scenes"]}),
    "text_and_pictures": ("captioned", {}),
    "text_and_pictures to_caption": ("captioned", {"directions": "to_caption"}),
    "recommend": ("interactions", {"horizon": 3, "windows": "random", "shuffle_ties": True}),
    "recommend sampled": ("interactions", {"objective": "sampled_softmax", "drawn_items": 8}),
    "recommend bpr": ("interactions", {"objective": "bpr", "drawn_items": 4}),
    "autoencode": ("redrawn", {}),
    "autoencode mae": ("redrawn", {"objective": "mae"}),
    "autoencode augmented": ("redrawn", {"augmentation": AUGMENTATION["redrawn"]}),
    "regression": ("numbers", {}),
    "regression mae": ("numbers", {"objective": "mae"}),
    "regression huber": ("numbers", {"objective": "huber"}),
    "multitask fixed": ("several", {"weights": {"ink": 0.5}}),
    "multitask uncertainty": ("several", {"weighting": "uncertainty"}),
    "multitask gradnorm": ("several", {"weighting": "gradnorm"}),
    **{
        f"preference {name}": ("preferences", {"objective": name})
        for name in ("dpo", "ipo", "orpo", "simpo", "kto")
    },
    # With a mean over answers the first losses would be 0 but for rounding.
    "grpo tokens": ("rewarded", {"average": "tokens", "updates": 2, "kl_weight": 0.5}),
}
OWN_MODELS = {
    "pairs": "encoder_decoder",
    "spoken": "ctc",
    "redrawn": "fsq_autoencoder",
    "drawings": "unet",
    "scenes": "detector",
    "games": "policy_value",
    "interactions": "sequence_recommender",
}
ELSEWHERE = {"language_modeling", "chat"}  # in test_golden.py
# In float32 their last steps differ by more than 1e-5 between processors: rounding decides to what
# a detector assigns a box.
IN_FLOAT64 = {"sentence_embedding symmetric", "detect augmented", "detr"}
SEVERAL = {"digit": "classify", "ink": "regression", "loop": "classify"}


def precise(recipe: dict[str, Any], case: str) -> dict[str, Any]:
    """Return a recipe, in float64 where rounding would be seen."""
    if case not in IN_FLOAT64:
        return recipe
    return recipe | {"machine": {**recipe["machine"], "precision": "fp64"}}


def compare(case: str, recipe: dict[str, Any], runs: Path) -> None:
    """Hold the losses of a run to those on file; with REWRITE, write them there."""
    trainer = api.trainer(without_chance(recipe), {"training.steps": STEPS}, runs=runs)
    found = [report.loss for report in trainer.steps()]
    trainer.close()
    golden: dict[str, list[float]] = (
        json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    )
    if REWRITE:
        golden[case] = [round(loss, 8) for loss in found]
        lines = (
            f" {json.dumps(name)}: {json.dumps(losses)}" for name, losses in sorted(golden.items())
        )
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    assert case in golden, f"no losses of {case!r}: see how to write them at the top of this file"
    assert len(found) == STEPS
    assert found == pytest.approx(golden[case], rel=1e-5)


def recipe_of(task: str, folder: Path) -> dict[str, Any]:
    reads, settings = TASKS[task]
    if reads == "preferences":
        return preference_run(folder, **settings)
    if reads == "rewarded":
        return rewarded_run(folder, **settings)
    if reads == "captioned":
        return caption_run(folder, **settings)
    if reads == "captions to draw":
        return from_captions_run(folder, **settings)
    if reads == "encoder":
        return encoder_run(task.split()[0], folder, **settings)
    if reads in OWN_MODELS:
        recipe = tiny_run(OWN_MODELS[reads], folder)
        return recipe | {"task": {**recipe["task"], **settings}}
    if reads == "documents":
        recipe = tiny_run("bert", folder, {"context_length": 24}, reads=reads)
        processor = {"name": "bpe", "vocab_size": 300, "encoder": True}
        return recipe | {"task": {"name": task.split()[0], **settings}, "processor": processor}
    recipe = tiny_run("mlp", folder, reads="numbers" if reads == "numbers" else "pictures")
    settings = {"name": task.split()[0], **settings}
    if reads == "several":
        return recipe | {
            "task": {**settings, "tasks": SEVERAL},
            "data": write_several_targets(folder),
        }
    if reads in ("rare", "tags"):
        digits = [
            e
            for e in Arrays().examples("train", folder)[:600]
            if reads == "tags" or e.target < 3 or e.target == 8
        ]
        kept = [
            e
            for number, e in enumerate(digits)
            if reads == "tags" or e.target != 8 or number % 5 == 0
        ]
        tags = [
            "|".join(t for t, has in (("even", e.target % 2 == 0), ("large", e.target > 4)) if has)
            for e in kept
        ]
        labels = np.array(tags) if reads == "tags" else np.array([e.target for e in kept])
        np.savez(folder / "digits.npz", x=np.stack([e.inputs for e in kept]), y=labels)
        recipe["data"] = {"name": "arrays", "path": str(folder / "digits.npz")}
    return recipe | {"task": settings}


def test_every_model_and_task_is_here() -> None:
    missing = set(BUILTINS["model"]) - set(MODELS)
    assert not missing, f"give them a tiny run in tests/support/tiny_runs.py: {sorted(missing)}"
    missing = set(BUILTINS["task"]) - {task.split()[0] for task in TASKS} - ELSEWHERE
    assert not missing, f"give them a case in TASKS: {sorted(missing)}"


@pytest.mark.slow
@pytest.mark.parametrize("name", names("model"))
def test_models(name: str, tmp_path: Path) -> None:
    recipe = precise(tiny_run(name, tmp_path), name)
    compare(f"model {name}", recipe, tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reads"), [("rnn", "texts"), ("transformer_classifier", "frames")]
)
def test_models_of_both_tokens_and_frames(name: str, reads: str, tmp_path: Path) -> None:
    compare(f"model {name} of {reads}", tiny_run(name, tmp_path, reads=reads), tmp_path / "runs")


@pytest.mark.slow
def test_language_modelling_beside_a_classifier(tmp_path: Path) -> None:
    recipe = tiny_run("transformer_classifier", tmp_path, {"causal": True, "pooling": "last"})
    digits = np.load(tmp_path / "texts.npz")
    np.savez(tmp_path / "texts.npz", x=digits["x"], digit=digits["y"])
    recipe["data"] |= {"labels_keys": {"digit": "digit"}}
    tasks = {"digit": {"name": "classify", "max_tokens": 80}, "text": "language_modeling"}
    compare(
        "task multitask text",
        recipe | {"task": {"name": "multitask", "tasks": tasks}},
        tmp_path / "runs",
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_tasks(task: str, tmp_path: Path) -> None:
    recipe = recipe_of(task, tmp_path)
    compare(f"task {task}", precise(recipe, task), tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "divergence"), [("mlp", "forward"), ("gpt", "reverse")])
def test_students(name: str, divergence: str, tmp_path: Path) -> None:
    recipe = tiny_run(name, tmp_path)
    teacher = api.train(
        without_chance(recipe) | {"name": "teacher"}, {"training.steps": 5}, runs=tmp_path
    ).folder
    distill = {"teacher": str(teacher), "divergence": divergence, "temperature": 2.0, "weight": 0.7}
    student = {key: value for key, value in recipe.items() if key != "processor"}
    compare(
        f"student {name}", {**student, "name": "student", "seed": 1, "distill": distill}, tmp_path
    )
