"""What one step computes: the sizes of the model, how it is laid out, and how it is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from groundup.contracts.decoder_sizes import HasDecoderSizes
from groundup.core.errors import RecipeError
from groundup.nn.attention import seen_on_average
from groundup.parallel.layout import Layout

__all__ = ["DecoderShape", "Practice", "Workload", "shape_of"]

Recompute = Literal["none", "selective", "full"]
_GATED = ("swiglu", "geglu_tanh")


@dataclass(frozen=True)
class DecoderShape:
    """The sizes of a decoder-only transformer.

    Attributes:
        gated: Whether the MLP has a third matrix.
        vocabulary: Rows of the embedding.
        tied: Whether the embedding is the output layer, too.
        window: How many tokens a token sees; None: all before it.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    vocabulary: int
    gated: bool = True
    tied: bool = False
    window: int | None = None

    @property
    def query_width(self) -> int:
        """Channels of all queries together."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """Channels of all keys together, and of all values."""
        return self.kv_heads * self.head_dim

    @property
    def products(self) -> tuple[int, ...]:
        """The weights of each matrix of a block, in the order in which they are multiplied."""
        into = self.width * self.mlp_width
        attention = (
            self.width * self.query_width,
            self.width * self.key_width,
            self.width * self.key_width,
            self.query_width * self.width,
        )
        return (*attention, *[into] * (3 if self.gated else 2))

    @property
    def block_parameters(self) -> int:
        """Weights in the products of a block."""
        return sum(self.products)

    @property
    def output_parameters(self) -> int:
        """Weights of the output layer, and of the embedding."""
        return self.width * self.vocabulary

    @property
    def parameters(self) -> int:
        """All weights: products, embeddings and the scales of norms."""
        norms = (2 * self.layers + 1) * self.width
        tables = 1 if self.tied else 2
        return self.layers * self.block_parameters + norms + tables * self.output_parameters

    def seen(self, length: int) -> float:
        """Return how many tokens a token sees, on average over a text of ``length``."""
        return seen_on_average(length, self.window)

    def flops_per_token(self, length: int) -> float:
        """Return the FLOPs of forward and backward for a token, recomputation left out: 6 a weight,
        and 12 a channel and token that is seen."""
        attention = 12.0 * self.query_width * self.seen(length)
        return (
            self.layers * (6.0 * self.block_parameters + attention) + 6.0 * self.output_parameters
        )


@dataclass(frozen=True)
class Practice:
    """How a step is computed. The defaults are what groundup does.

    Attributes:
        recompute: What of the forward pass is computed again in the backward pass: nothing, every
            second product, or each block as a whole.
        fused: Whether elementwise operations are compiled into few kernels.
        stages: Stages of the pipeline on each device, taken in turn.
        whole_copies: Whether devices that share weights gather them once a step, not for each
            micro-batch; what a pipeline does.
        overlap_gradients: Whether gradients travel during the backward pass.
        overlap_tensor: Whether the exchanges of the tensor axis travel in parts, during products.
        divided_stream: Whether processes of the tensor axis also share the tokens between two
            products, in place of each having all of them.
        balance_context: Whether processes that share a text see as much of it as each other: early
            and late parts are then dealt out in pairs.
        kernel: Of attention.
        residual_bytes: Of a number in the residual stream.
        loss_bytes: Bytes of each logit that are held at once; 0: logits are computed in chunks.
    """

    recompute: Recompute = "none"
    fused: bool = False
    stages: int = 1
    whole_copies: bool = False
    overlap_gradients: bool = False
    overlap_tensor: bool = False
    divided_stream: bool = False
    balance_context: bool = False
    kernel: str = "flash2"
    residual_bytes: int = 4
    loss_bytes: int = 0


@dataclass(frozen=True)
class Workload:
    """One step of training.

    Attributes:
        shape: Of the model.
        layout: The axes.
        batch: Texts in a step, all devices together.
        length: Tokens of a text.
        micro: Texts of a forward pass on each part of the data.
        practice: How it is computed.
    """

    shape: DecoderShape
    layout: Layout
    batch: int
    length: int
    micro: int = 1
    practice: Practice = field(default_factory=Practice)

    @property
    def micro_batches(self) -> int:
        """Forward passes of each part of the data in a step."""
        return self.batch // (self.layout.data_size * self.micro)

    @property
    def tokens(self) -> float:
        """Tokens of a micro-batch on one device."""
        return self.micro * self.length / self.layout.context

    @property
    def stream_parts(self) -> int:
        """Into how many parts what is between two products is divided."""
        return self.layout.tensor if self.practice.divided_stream else 1

    @property
    def layers_here(self) -> int:
        """Blocks on the device that has most of them."""
        return math.ceil(self.shape.layers / self.layout.pipeline)

    @property
    def busiest(self) -> float:
        """Blocks that the busiest device computes, the output layer not among them: it goes to a
        stage that has fewer of them."""
        pipeline = self.layout.pipeline
        output = self.shape.output_parameters / self.shape.block_parameters
        return max(self.layers_here - output / pipeline, self.shape.layers / pipeline)

    @property
    def parameters_here(self) -> float:
        """Weights that a device would have if none of the ``shard`` axis were shared: of the stage
        that has most of them."""
        shape = self.shape
        blocks = self.layers_here * (shape.block_parameters + 2 * shape.width)
        tables = shape.output_parameters
        # The first stage has the embedding and the last the output layer.
        if self.layout.pipeline == 1 and not shape.tied:
            tables *= 2
        return (blocks + tables) / self.layout.tensor

    @property
    def bubble(self) -> float:
        """Share of a step in which a stage waits for the first or the last micro-batch.

        Source:
            Narayanan et al., Megatron-LM, 2021 (arXiv:2104.04473), section 2.2: (p - 1) / (v m) of
            the time that is used.
        """
        waiting = (self.layout.pipeline - 1) / self.practice.stages
        return waiting / (self.micro_batches + waiting)


def shape_of(config: object, vocabulary: int = 0) -> DecoderShape:
    """Return the sizes of a model from its settings alone.

    Args:
        config: The recipe's section.
        vocabulary: Tokens, where the settings leave them to the processor; 0: not known.

    Raises:
        RecipeError: If it is no decoder-only transformer, or its vocabulary is not known.
    """
    if not isinstance(config, HasDecoderSizes):
        raise RecipeError(
            "recipe.model",
            "is no decoder-only language model, but only of these costs are worked out on paper",
            "Use gpt, gemma or phi3, or look at groundup train --dry-run",
        )
    values = config.completed()
    vocabulary = values["vocabulary_size"] or vocabulary
    if not vocabulary:
        raise RecipeError(
            "recipe.model.vocabulary_size",
            "is 0, which takes the processor's, but nothing is prepared on paper",
            "Set it, such as vocabulary_size: 32768",
        )
    return DecoderShape(
        values["layers"],
        values["width"],
        values["heads"],
        values["kv_heads"],
        values["head_dim"],
        values["mlp_width"],
        vocabulary,
        # Families of one activation do not say which.
        values.get("activation", _GATED[0]) in _GATED,
        values.get("tied_embeddings", True),
        values.get("sliding_window"),
    )
