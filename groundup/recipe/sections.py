"""Sections of a recipe: the start, training, evaluation, saving, the machine, adapters, tuning."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from groundup.core.settings import Settings, setting

__all__ = [
    "Adapter",
    "Checkpoints",
    "Dimension",
    "Distill",
    "Evaluation",
    "Init",
    "Logging",
    "Machine",
    "Optim",
    "Samples",
    "Training",
    "Tune",
]

Auto = Literal["auto"]
Count = Annotated[int, Field(gt=0)]
Steps = Count | Literal["epoch"]
Share = Annotated[float, Field(gt=0, lt=1)]
Patterns = Annotated[tuple[str, ...], Field(min_length=1)]
Ranks = Annotated[dict[str, Count], Field(min_length=1)]
_WITH_MOMENTS = {"name": ("adamw", "adam", "muon")}


class Dimension(Settings):
    """The values of one setting: a range from ``low`` to ``high``, or ``choices``."""

    low: int | float | None = setting(
        None, "Smallest value; whole numbers where low and high are whole"
    )
    high: int | float | None = setting(None, "Largest value")
    log: bool = setting(False, "Draw evenly by order of magnitude, as for a learning rate")
    step: int | float | None = setting(None, "Distance between values", gt=0)
    choices: tuple[Any, ...] | None = setting(
        None, "The values themselves: numbers, words, lists", min_length=1
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("takes low and high, or choices. Give one of the two")
        if self.choices is not None:
            given = [name for name, value in self if name != "choices" and value]
            if given:
                raise ValueError(f"{given[0]} has no effect next to choices. Remove it")
            return self
        assert self.low is not None
        assert self.high is not None
        if self.low >= self.high:
            raise ValueError(
                f"low {self.low} is not below high {self.high}. Exchange or change them"
            )
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0 and no step. Change low, log or step")
        return self


class Tune(Settings):
    """What ``groundup tune`` tries. It changes nothing in what ``groundup train`` does."""

    metric: str | None = setting(
        None, "Metric of the validation by which trials are compared; null: checkpoints.best_metric"
    )
    trials: int = setting(20, "Trials in all, those of earlier starts included", gt=0)
    seed: int = setting(0, "Decides which values are tried", ge=0)
    prune: bool = setting(
        True, "End a trial whose validation is worse than the median of earlier trials at its step"
    )
    timeout_s: float | None = setting(
        None, "Begin no trial after N seconds; null for no limit", gt=0
    )
    keep: Literal["best", "all"] = setting(
        "best", "Trials whose checkpoints stay on the disk; recipe and metrics of every trial stay"
    )
    space: dict[str, Dimension] = setting(
        ..., "Dotted keys of the recipe, such as optim.lr, and their values", min_length=1
    )


class Init(Settings):
    """Where the weights come from, when not from random numbers."""

    run: str | None = setting(None, "A run folder; its model, processor and best weights are taken")
    checkpoint: Literal["best", "last"] = setting("last", "Which checkpoint of that run")
    pretrained: str | None = setting(
        None,
        "A folder in Hugging Face layout, a name of its hub or a GGUF file: its model, tokenizer"
        " and weights",
        min_length=1,
    )
    revision: str | None = setting(
        None, "Branch, tag or commit of the hub's; null for the newest", min_length=1
    )
    train_layers: int | None = setting(
        None, "Train only the last N blocks and the head; null trains all", ge=0
    )
    unfreeze_every: Count | Share | None = setting(
        None, "Begin with the head, add a block each N steps or share of run"
    )

    @model_validator(mode="after")
    def _one_start(self) -> Init:
        if self.run is not None and self.pretrained is not None:
            raise ValueError(
                "run and pretrained are given, and a run starts from one. Remove one of the two"
            )
        if self.revision is not None and self.pretrained is None:
            raise ValueError(
                "revision has no effect without pretrained. Remove it, or set pretrained"
            )
        if self.pretrained is not None and self.checkpoint != "last":
            raise ValueError("checkpoint has no effect with pretrained. Remove it")
        return self


class Optim(Settings):
    """The optimizer and its schedule. Every value is a pure function of the step."""

    name: Literal["adamw", "adam", "sgd", "muon"] = setting("adamw", "PyTorch's own optimizers")
    lr: float = setting(1e-3, "Peak learning rate", gt=0)
    # 0.95 instead of PyTorch's 0.999, and weight decay and clipping below, are what GPT-3 was
    # trained with (Brown et al., 2020, arXiv:2005.14165, appendix B).
    betas: tuple[float, float] = setting(
        (0.9, 0.95), "Decay of the two moments", applies_when=_WITH_MOMENTS
    )
    eps: float = setting(
        1e-8, "Added to the root of the second moment", gt=0, applies_when=_WITH_MOMENTS
    )
    momentum: float = setting(
        0.0, "Momentum of SGD (Muon uses its own 0.95)", ge=0, lt=1, applies_when={"name": ("sgd",)}
    )
    nesterov: bool = setting(False, "Nesterov's momentum", applies_when={"name": ("sgd",)})
    layer_decay: float = setting(
        1.0, "Learning rate of each block over that of the one above it", gt=0, le=1
    )
    # Tasks with small data leave out this and the clipping: see their default_settings.
    weight_decay: float = setting(
        0.1, "Decay of matrices; vectors and scalars are never decayed", ge=0
    )
    clip_norm: float | None = setting(1.0, "Largest gradient norm; null turns clipping off", gt=0)
    schedule: Literal["constant", "linear", "cosine", "wsd"] = setting(
        "cosine", "Shape after the warm-up"
    )
    warmup_steps: int = setting(0, "Steps of linear warm-up from 0", ge=0)
    # A tenth, as GPT-3's cosine ended.
    final_lr_fraction: float = setting(
        0.1,
        "Last learning rate over the peak",
        ge=0,
        le=1,
        applies_when={"schedule": ("linear", "cosine", "wsd")},
    )
    decay_fraction: float = setting(
        0.2,
        "Share of the steps that WSD spends decaying",
        gt=0,
        le=1,
        applies_when={"schedule": ("wsd",)},
    )

    # The average is what checkpoints are chosen by and what predicts; training goes on from the
    # weights themselves.
    average: Literal["none", "ema", "swa"] = setting(
        "none", "Average of the weights that is kept and validated"
    )
    ema_decay: float = setting(
        0.999, "Share of the average kept an update", gt=0, lt=1, applies_when={"average": ("ema",)}
    )
    average_from: float = setting(
        0.75, "Share of steps before SWA begins", ge=0, lt=1, applies_when={"average": ("swa",)}
    )

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Optim:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov has no effect with momentum 0. Set momentum, such as 0.9")
        return self


class Training(Settings):
    """How long to train: give exactly one of steps, epochs or samples."""

    batch_size: int = setting(
        16, "Samples (rows, images) an optimizer step, over all ranks and micro-batches", gt=0
    )
    steps: int | None = setting(None, "Optimizer steps", gt=0)
    epochs: float | None = setting(None, "Passes over the training split", gt=0)
    samples: int | None = setting(None, "Samples to train on", gt=0)
    patience: int | None = setting(
        None, "Stop after N evaluations without improvement; null never stops", gt=0
    )
    min_improvement: float = setting(
        0.0, "What counts as one, in checkpoints.best_metric; needs patience", ge=0
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Training:
        lengths = {"steps": self.steps, "epochs": self.epochs, "samples": self.samples}
        given = [key for key, length in lengths.items() if length is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of steps, epochs and samples is allowed, got {given or 'none'}."
                " Give one"
            )
        if self.min_improvement and self.patience is None:
            raise ValueError(
                "min_improvement has no effect without patience. Set patience, for example 5"
            )
        return self


class Logging(Settings):
    """How often a line of metrics is written; the last step always is."""

    every: int = setting(10, "Steps between lines of metrics.jsonl", gt=0)


class Evaluation(Settings):
    """When and on how much to evaluate; after the last step always."""

    every: Steps = setting(
        200, "Steps between evaluations, or epoch: after each pass over the training split"
    )
    # Enough to see a trend while training; groundup evaluate reads all of the split.
    batches: int | None = setting(
        20, "Evaluate on at most N micro-batches of the validation split; null for all", gt=0
    )
    test: bool = setting(False, "Evaluate the data's test split after the last step, once")


class Checkpoints(Settings):
    """When to save; the last step always is."""

    every: Steps = setting(200, "Steps between checkpoints, or epoch")
    # Two, because the newest may be the one that a crash or a full disk has damaged.
    keep: int = setting(2, "Checkpoints to keep in addition to the best", gt=0)
    best_metric: str = setting(
        "loss", "Metric of the validation by which a checkpoint is the best; it is saved at once"
    )


class Samples(Settings):
    """Text that the model writes while it is trained."""

    every: int | None = setting(None, "Steps between samples of text; null for none", gt=0)
    prompts: tuple[str, ...] = setting((), "Prompts to sample from")


class Machine(Settings):
    """What the machine decides. Each 'auto' is measured at the first start and then frozen in the
    run's recipe."""

    device: Literal["auto", "cpu", "cuda"] = setting("auto", "Where to compute")
    precision: Literal["auto", "fp32", "bf16", "fp64"] = setting(
        "auto", "Of matrix multiplications; weights stay fp32"
    )
    # Compiling takes up to minutes, which only a long run wins back.
    compile: bool | Auto = setting(
        "auto",
        "Compile the model's layers; auto compiles long runs where a C++ compiler is at hand",
    )
    # In a tiny step threads wait longer for each other than they compute.
    threads: Count | Auto = setting(
        "auto", "CPU threads; auto takes all cores, or one where a step is tiny"
    )
    micro_batch_size: Count | Auto = setting(
        "auto", "Samples a forward pass; auto takes the whole batch"
    )
    workers: int = setting(0, "Processes that prepare batches; 0 prepares them inline", ge=0)
    non_finite: Literal["stop", "skip"] = setting(
        "stop", "What to do when loss or gradient is not a number"
    )
    deterministic: bool = setting(True, "Use deterministic algorithms where PyTorch offers both")

    @property
    def settled_micro_batch_size(self) -> int:
        """Samples a forward pass, of a recipe whose automatic choices are frozen."""
        assert self.micro_batch_size != "auto"
        return self.micro_batch_size


class Adapter(Settings):
    """Small matrices that are trained next to a base run's linear layers, whose own weights stay as
    they are.

    Source:
        LoRA: Hu et al., 2021 (arXiv:2106.09685). DoRA: Liu et al., 2024 (arXiv:2402.09353).
        rsLoRA: Kalajdzievski, 2023 (arXiv:2312.03732). LoRA+: Hayou et al., 2024
        (arXiv:2402.12354). QLoRA: Dettmers et al., 2023 (arXiv:2305.14314).
    """

    name: Literal["lora", "dora"] = setting(
        "lora", "LoRA; or DoRA, which learns each row's length apart"
    )
    rank: int = setting(8, "Rank of the change of a layer's weight", gt=0)
    # Twice the rank, as most published adapters have it: the change then begins at a useful size.
    alpha: float = setting(16.0, "The change is multiplied by alpha / rank", gt=0)
    rank_stabilized: bool = setting(False, "Multiply by alpha / sqrt(rank) instead (rsLoRA)")
    dropout: float = setting(0.0, "Share of an adapter's inputs dropped in training", ge=0, lt=1)
    targets: Patterns | Ranks | None = setting(
        None,
        "Linear layers: names, or their ends, with * for anything; or a rank for each; null: all of"
        " the blocks",
    )
    base: Literal["fp32", "int8", "nf4"] = setting(
        "fp32",
        "How the linear layers of the blocks keep their frozen weights; nf4 is QLoRA's 4 bits",
    )
    double_quantization: bool = setting(
        True,
        "Keep nf4's own constants in 8 bits: 4.13 instead of 4.5 bits a weight",
        applies_when={"base": ("nf4",)},
    )
    lora_plus_ratio: float = setting(
        1.0, "Learning rate of B over that of A (LoRA+ suggests 16)", gt=0
    )
    path: str | None = setting(
        None, "A folder with an adapter in PEFT's layout to go on from; null starts from scratch"
    )

    @model_validator(mode="after")
    def _one_rank_each(self) -> Adapter:
        if isinstance(self.targets, dict) and self.rank != type(self).model_fields["rank"].default:
            raise ValueError(
                "rank has no effect where targets gives each its own. Remove rank, or list the"
                " targets"
            )
        return self

    def scale(self, rank: int) -> float:
        """Return what the change of a layer is multiplied with."""
        if self.rank_stabilized:
            return self.alpha / math.sqrt(rank)
        return self.alpha / rank

    @property
    def quantised(self) -> str:
        """How the base is kept, in words; empty if in float32."""
        # Adapters that are saved name their base in these words, so they stay as they are.
        if self.base == "nf4" and self.double_quantization:
            return "nf4, doubly quantised"
        return self.base.removeprefix("fp32")

    def patterns(self) -> list[tuple[str, int]]:
        """Return the patterns of names with their ranks, in order."""
        if isinstance(self.targets, dict):
            return list(self.targets.items())
        return [(pattern, self.rank) for pattern in self.targets or ("blocks.*",)]

    def check_beside(self, base: str | None, *, layers_chosen: bool) -> None:
        """Raise a ValueError where the recipe has no base to adapt, or says otherwise which layers
        to train."""
        if base is None:
            raise ValueError(
                "adapter has nothing to adapt. Set init.run or init.pretrained to the weights it is"
                " to change"
            )
        if layers_chosen:
            raise ValueError(
                "init.train_layers and init.unfreeze_every have no effect with adapter, which"
                " trains no layer of the base. Remove them, or choose layers with adapter.targets"
            )


class Distill(Settings):
    """A teacher: a run whose predictions this one learns, in addition to the data.

    Source:
        Hinton, Vinyals and Dean, 2015 (arXiv:1503.02531).
    """

    teacher: str = setting(
        ..., "A run folder; its model predicts next to this one in training", min_length=1
    )
    checkpoint: Literal["best", "last"] = setting("best", "Which checkpoint of that run")
    temperature: float = setting(
        2.0, "Divides both models' outputs: higher tells more of what is unlikely", gt=0
    )
    weight: float = setting(
        0.5, "Share of the loss that is the teacher's; 1 learns nothing from the data", gt=0, le=1
    )
    divergence: Literal["forward", "reverse"] = setting(
        "forward",
        "KL(teacher || student), or reverse, which lets the student leave out what it cannot learn",
    )
