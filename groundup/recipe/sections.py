"""Sections of a recipe: the start, training, evaluation, saving, the machine, tuning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from groundup.core.settings import PathText, Settings, setting

__all__ = [
    "Checkpoints",
    "Dimension",
    "Distill",
    "Evaluation",
    "Init",
    "Logging",
    "Machine",
    "Optim",
    "Parallel",
    "Samples",
    "Training",
    "Tune",
]

Auto = Literal["auto"]
Count = Annotated[int, Field(gt=0)]
Steps = Count | Literal["epoch"]
Share = Annotated[float, Field(gt=0, lt=1)]
Words = tuple[Annotated[str, Field(min_length=1)], ...]
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
    storage: PathText | None = setting(
        None,
        "Where the study is kept that several machines share: a file on a disk they all see, or the"
        " URL of a database; null: in the study's folder",
        min_length=1,
    )
    space: dict[str, Dimension] = setting(
        ..., "Dotted keys of the recipe, such as optim.lr, and their values", min_length=1
    )


class Init(Settings):
    """Where the weights come from, when not from random numbers."""

    run: PathText | None = setting(
        None,
        "A run folder; its model, processor and best weights are taken",
        min_length=1,
    )
    checkpoint: Literal["best", "last"] = setting("last", "Which checkpoint of that run")
    pretrained: PathText | None = setting(
        None,
        "A folder in Hugging Face layout, a name of its hub or a GGUF file: its model, tokenizer"
        " and weights",
        min_length=1,
    )
    revision: str | None = setting(
        None, "Branch, tag or commit of the hub's; null for the newest", min_length=1
    )
    add_tokens: Words = setting(
        (), "Words that the tokenizer is given a token each for; the model gets rows for them"
    )
    add_special_tokens: Words = setting(
        (), "Tokens that stand for no text, such as a chat template's; the model gets rows for them"
    )
    ignore_config_keys: Words = setting(
        (), "Keys of config.json that are not known here, and change nothing in what it computes"
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
        if self.pretrained is None and self.ignore_config_keys:
            raise ValueError("ignore_config_keys has no effect without pretrained. Remove it")
        if self.pretrained is not None and self.checkpoint != "last":
            raise ValueError("checkpoint has no effect with pretrained. Remove it")
        return self

    @model_validator(mode="after")
    def _tokens_are_added_once(self) -> Init:
        added = (*self.add_tokens, *self.add_special_tokens)
        if added and self.run is None and self.pretrained is None:
            raise ValueError(
                "add_tokens and add_special_tokens add to the tokenizer of weights, but the run"
                " starts from random ones. Remove them, or set run or pretrained"
            )
        twice = next((word for word in added if added.count(word) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} is added twice. Name it once")
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
    baselines: tuple[Literal["linear", "boosting"], ...] = setting(
        (),
        "groundup evaluate compares with these of scikit-learn, fitted to the same training split",
    )


class Checkpoints(Settings):
    """When to save; the last step always is."""

    every: Steps = setting(200, "Steps between checkpoints, or epoch")
    # Two, because the newest may be the one that a crash or a full disk has damaged.
    keep: int = setting(2, "Checkpoints to keep in addition to the best", gt=0)
    asynchronous: bool | Auto = setting(
        "auto",
        "Write while training goes on, from a copy in memory; auto: where a GPU computes",
    )
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


class Parallel(Settings):
    """How several processes share the work of a run; ``groundup launch`` starts them. What is here
    may be another when a run goes on."""

    replicate: Count | Auto = setting(
        "auto",
        "Copies of the model, each of which computes a part of every batch; auto: as many as the"
        " other axes leave processes for",
    )
    shard: Count = setting(
        1, "Processes that share a copy: each holds a part of every parameter and its state"
    )
    offload: bool = setting(
        False, "Keep those parts in the CPU's memory, and update them there; on a GPU, with shard"
    )
    tensor: Count = setting(1, "Processes that share the matrices of each layer")
    pipeline: Count = setting(1, "Processes that share the layers, each with a stage of them")
    interleave: Count = setting(
        1,
        "Stages of each process along pipeline; with more it waits less at both ends of a step, and"
        " exchanges more",
    )
    context: Count = setting(1, "Processes that share the tokens of each text")
    exact: bool = setting(
        False,
        "Add gradients up in the order of the samples, so that the weights are the same bit for bit"
        " on any number of processes; needs machine.micro_batch_size",
    )
    timeout_s: float = setting(
        600.0, "Seconds without an answer after which a process is named and the run ends", gt=0
    )


class Distill(Settings):
    """A teacher: a run whose predictions this one learns, in addition to the data.

    Source:
        Hinton, Vinyals and Dean, 2015 (arXiv:1503.02531).
    """

    teacher: PathText = setting(
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
