"""A transformer that classifies sequences of tokens or frames, from scratch or from the weights of
a GPT.

Shape legend: B sequences, T positions, F numbers in a frame, C channels, O outputs.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.processors import Processor
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.models.sizes_from_data import Elements, elements_of, settle_size
from groundup.nn.activations import initialise_linear
from groundup.nn.attention import AttentionContext, seen_on_average
from groundup.nn.mlp import Activation, default_width, round_up
from groundup.nn.ngrams import NGramBag
from groundup.nn.pooling import AttentionPooling, last_state, mean_state, within
from groundup.nn.rope import RopeScaling, check_rotary, rotary_angles
from groundup.nn.transformer import (
    Bias,
    Block,
    BlockShape,
    Norm,
    check_heads,
    initialise_transformer,
    make_norm,
)

__all__ = ["TransformerClassifier", "TransformerClassifierConfig"]

_WITH_NGRAMS = {"ngrams": tuple(range(1, 9))}


@model("transformer_classifier")
class TransformerClassifierConfig(ModelConfig):
    """The blocks of a GPT that see both ways, then pooling over the sequence and a linear output.

    Settings that a GPT has too are named and mean the same. With ``init.run`` the weights of a GPT
    of the same shape are taken over by name; ``causal: true`` lets them see what they were trained
    to see, and lets the task multitask train ``language_modeling`` next to other tasks, with the
    embedding as the output layer of tokens.
    """

    causal: bool = setting(
        False, "See only what comes before, as a GPT does; false: the whole sequence"
    )
    pooling: Literal["mean", "last", "attention", "class"] = setting(
        "mean",
        "What the output reads: the mean over the sequence, its last state, a learned weighted"
        " mean, or the state of a class token put before it; the last two add weights that a GPT"
        " lacks",
    )
    ngrams: int = setting(
        0,
        "The output reads a bag of n-grams too, of up to this length; its vectors belong to the"
        " head",
        ge=0,
        le=8,
    )
    ngram_width: int = setting(
        16, "Numbers in the vector of an n-gram", ge=1, applies_when=_WITH_NGRAMS
    )
    ngram_buckets: int = setting(
        131072,
        "Vectors for n-grams of two tokens and more, which are hashed to them",
        ge=1,
        applies_when=_WITH_NGRAMS,
    )
    context_length: int = setting(0, "The longest sequence; 0: the task's max_tokens", ge=0)
    layers: int = setting(4, "Transformer blocks", ge=1)
    width: int = setting(128, "Channels of the residual stream", ge=1)
    heads: int = setting(4, "Attention heads", ge=1)
    kv_heads: int | None = setting(
        None, "Key and value heads, shared by groups of heads; null: as many as heads", ge=1
    )
    head_dim: int | None = setting(None, "Channels of a head; null: width / heads", ge=1)
    mlp_width: int | None = setting(
        None,
        "Inner width of the MLP; null: 4 x width, or 8/3 x width rounded up to a multiple of 64 for"
        " swiglu",
        ge=1,
    )
    positions: Literal["rotary", "learned"] = setting("rotary", "How a token knows where it is")
    rope_theta: float = setting(
        10000.0, "Base of the rotary wavelengths", gt=1, applies_when={"positions": ("rotary",)}
    )
    rope_scaling: RopeScaling | None = setting(
        None,
        "How the rotary wavelengths were stretched; null: not",
        applies_when={"positions": ("rotary",)},
    )
    norm: Norm = setting("rmsnorm", "Normalisation; layernorm has a bias")
    norm_eps: float = setting(1e-6, "Added to the variance in every norm", gt=0)
    activation: Activation = setting("swiglu", "Of the MLP; gelu_tanh is GPT-2's approximation")
    qk_norm: bool = setting(False, "RMSNorm on the queries and keys of each head")
    sliding_window: int | None = setting(
        None,
        "How many tokens a token sees, itself included; null: all",
        ge=1,
        applies_when={"causal": (True,)},
    )
    bias: Bias = setting("none", "Linear layers of the blocks that have a bias")
    dropout: float = setting(
        0.0, "Share of embedding and residual activations dropped in training", ge=0, lt=1
    )
    init_std: float = setting(0.02, "Standard deviation of fresh weights", gt=0)
    vocabulary_size: int = setting(0, "Tokens in the vocabulary; 0: as the data has", ge=0)
    vocabulary_multiple: int = setting(
        1, "Pad the embedding to a multiple of this many rows, as the GPT's is", ge=1
    )
    frame_width: int = setting(0, "Numbers in one frame; 0: as the data has", ge=0)
    outputs: int = setting(0, "Outputs; 0: as many as the data has classes or targets", ge=0)

    @model_validator(mode="after")
    def _shape_is_possible(self) -> TransformerClassifierConfig:
        # It comes first, and would see only itself.
        if self.causal and self.pooling == "class":
            raise ValueError(
                "pooling: class has no effect with causal: true, where the class token sees nothing"
                " but itself. Use pooling: last, or causal: false"
            )
        check_heads(self.width, self.heads, self.kv_heads, self.head_dim)
        check_rotary(self.positions, self.dim)
        return self

    @property
    def dim(self) -> int:
        """Channels of a head."""
        return self.head_dim or self.width // self.heads

    def block(self) -> BlockShape:
        """Return the shape of every block: a GPT's, unless it sees both ways."""
        return BlockShape(
            self.width,
            self.heads,
            self.kv_heads or self.heads,
            self.dim,
            self.mlp_width or default_width(self.width, self.activation),
            activation=self.activation,
            norm=self.norm,
            norm_eps=self.norm_eps,
            bias=self.bias,
            qk_norm=self.qk_norm,
            window=self.sliding_window,
            dropout=self.dropout,
            causal=self.causal,
        )

    def complete_from(self, processor: Processor) -> TransformerClassifierConfig:
        """Return the config with the data's sizes where they were 0.

        Raises:
            RecipeError: If the processor makes neither tokens nor frames, or the sizes differ.
        """
        known = Elements(self.vocabulary_size, self.frame_width)
        elements, processor = elements_of("transformer_classifier", processor, known)
        if self.ngrams and elements.frame_width:
            problem = f"is {self.ngrams}, but the data has frames, no tokens"
            raise RecipeError("recipe.model.ngrams", problem, "Use 0")
        longest = processor.max_length
        # Found before a run begins, not at its first long text.
        if elements.vocabulary_size and 0 < self.context_length < longest:
            problem = f"is {self.context_length}, but the task reads up to {longest} tokens"
            remedy = f"Set task.max_tokens: {self.context_length}, or a longer context"
            raise RecipeError("recipe.model.context_length", problem, remedy)
        found = elements._asdict()
        found["outputs"] = settle_size("outputs", self.outputs, processor.outputs)
        found["context_length"] = self.context_length or max(longest, 1)
        return self.model_copy(update=found)

    def build(self) -> TransformerClassifier:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If a size is still unknown.
        """
        sizes = (self.vocabulary_size or self.frame_width, self.outputs, self.context_length)
        if not all(sizes):
            problem = (
                "vocabulary_size and frame_width, outputs or context_length are 0, but no data has"
                " filled them in"
            )
            raise RecipeError("recipe.model", problem, "Give one of the first two and the others")
        return TransformerClassifier(self)

    @property
    def head_width(self) -> int:
        """Numbers that the output layer reads."""
        return self.width + (self.ngram_width if self.ngrams else 0)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one token or frame of a sequence of ``context``, forward and
        backward.

        As of a GPT, with a head that is read once a sequence, and twice the attention where it is
        not causal. A run's rate is figured as if every sequence had ``context_length`` elements:
        shorter ones make it too high.
        """
        context = max(context, 1)
        # A class token goes through all blocks too.
        places = context + (self.pooling == "class")
        seen = seen_on_average(context, self.sliding_window) if self.causal else places
        blocks = self.layers * self.block().flops_per_token(seen) * places / context
        inputs = self.frame_width * self.width
        if self.pooling == "attention":
            inputs += self.width * (self.width + 1)
        # The output is computed once a sequence: spread over its elements.
        once = self.outputs * self.head_width / context
        return 6.0 * (inputs + once) + blocks


class TransformerClassifier(nn.Module):
    """The model of a ``TransformerClassifierConfig``.

    All names but ``head``, ``head_ngrams``, ``pool`` and ``embed_class`` are GPT's.

    Source:
        Vaswani et al., 2017 (arXiv:1706.03762); a class token: Devlin et al., BERT, 2018
        (arXiv:1810.04805); a linear layer on a pretrained decoder: Radford et al., GPT, 2018,
        section 3.2; a deep part and a bag of n-grams that one output reads, learned together: Cheng
        et al., Wide & Deep, 2016 (arXiv:1606.07792), section 3.3.
        Departs from BERT: norms before attention and MLP, as GPT-2 has them.
    """

    def __init__(self, config: TransformerClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.state_width = width = config.width
        self.embed: nn.Embedding | nn.Linear
        if config.vocabulary_size:
            rows = round_up(config.vocabulary_size, config.vocabulary_multiple)
            self.embed = nn.Embedding(rows, width)
        else:
            # Frames are numbers already; they need as many channels as the stream has.
            self.embed = nn.Linear(config.frame_width, width)
        longest = config.context_length
        self.register_parameter("embed_class", None)
        if config.pooling == "class":
            self.embed_class = nn.Parameter(torch.empty(width))
            longest += 1
        self.positions: nn.Embedding | None = None
        if config.positions == "learned":
            self.positions = nn.Embedding(longest, width)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config.block()) for _ in range(config.layers))
        self.norm = make_norm(config.norm, width, config.norm_eps)
        self.head = nn.Linear(config.head_width, config.outputs)
        self._initialise()
        # After the others, so that these begin with the same numbers as without them.
        self.head_ngrams: NGramBag | None = None
        if config.ngrams:
            self.head_ngrams = NGramBag(
                config.vocabulary_size, config.ngram_width, config.ngrams, config.ngram_buckets
            )
        self.pool: AttentionPooling | None = None
        if config.pooling == "attention":
            self.pool = AttentionPooling(width)

    def _initialise(self) -> None:
        """Draw weights as GPT does: normal with ``init_std``; where a layer adds to the residual,
        over sqrt(2 layers).

        The layer that reads frames has Glorot's uniform distribution: its inputs are no one-hot
        vectors.
        """
        std, layers = self.config.init_std, self.config.layers
        initialise_transformer(self, std, layers, vectors=("embed_class",))
        # Its inputs are no one-hot vectors: their size counts.
        if isinstance(self.embed, nn.Linear):
            initialise_linear(self.embed, "sigmoid")

    def features(
        self,
        tokens: Tensor | None = None,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return what the output layer reads, (B, C). Arguments as in ``forward``."""
        state = self._pool(*self._states(tokens, inputs, lengths))
        if self.head_ngrams is None or tokens is None:
            return state
        # Side by side, so that one output layer weighs deep states and n-grams against each other.
        return torch.cat((state, self.head_ngrams(tokens, lengths)), -1)

    def states(self, lengths: Tensor | None = None, **given: Tensor) -> Tensor:
        """Return (B, T, C) of ``tokens`` or ``inputs``, a class token's not; as in ``forward``."""
        x, _ = self._states(given.get("tokens"), given.get("inputs"), lengths)
        return x[:, int(self.embed_class is not None) :]

    def _pool(self, x: Tensor, inside: Tensor) -> Tensor:
        """Return (B, C) of the last block's states (B, T, C)."""
        if self.pool is not None:
            return self.pool(x, inside)  # type: ignore[no-any-return]
        if self.config.pooling == "class":
            return x[:, 0]
        pool = mean_state if self.config.pooling == "mean" else last_state
        return pool(x, inside)

    def token_logits(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return what each position predicts of the token after it, (B, T, V), from the tokens up
        to it.

        The embedding is the output layer, too: of a model that starts from a GPT with tied
        embeddings these are the GPT's logits. A GPT's own output layer, where it has one, is not
        taken over.

        Args:
            tokens: (B, T) int64.
            lengths: (B,) int64, what of each row is no padding; what is in the padding means
                nothing.

        Raises:
            RecipeError: If the model sees the whole sequence, or reads frames.

        Source:
            Tied embeddings: Press and Wolf, 2016 (arXiv:1608.05859), section 3.
        """
        if not self.config.causal:
            problem = "is false: every position sees the tokens after it, which are to be predicted"
            remedy = "Set causal: true, with pooling: last, mean or attention"
            raise RecipeError("recipe.model.causal", problem, remedy)
        if not isinstance(self.embed, nn.Embedding):
            raise RecipeError(
                "recipe.model", "reads frames, and next tokens are predicted", "Choose a tokenizer"
            )
        x, _ = self._states(tokens, None, lengths)
        return F.linear(x, self.embed.weight)[..., : self.config.vocabulary_size]

    def _states(
        self, tokens: Tensor | None, inputs: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the last block's states, normalised (B, T, C), a class token's first, and which
        are no padding."""
        x = self.embed(tokens if inputs is None else inputs)
        inside = within(lengths, x)
        if self.embed_class is not None:
            x = torch.cat((self.embed_class.expand(len(x), 1, -1), x), 1)
            # The class token is never padding.
            inside = torch.cat((torch.ones_like(inside[:, :1]), inside), 1)
        x, context = self._place(x, inside)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, context)
        return self.norm(x), inside

    def _place(self, x: Tensor, inside: Tensor) -> tuple[Tensor, AttentionContext]:
        """Return x (B, T, C) with learned positions, and what its elements attend by.

        Padding is at the end: causal attention never sees it.
        """
        mask = None
        if not self.config.causal:
            mask = inside[:, None, None]
        places = torch.arange(x.shape[1], device=x.device)[None]
        if self.positions is None:
            config = self.config
            lengths = inside.sum(1, keepdim=True)
            turned = (places, config.dim, config.rope_theta, config.rope_scaling, lengths)
            cosines, sines = rotary_angles(*turned)
            # As fine as the model, where it is a reference to compare with.
            if x.dtype == torch.float64:
                cosines, sines = cosines.double(), sines.double()
            return x, AttentionContext((cosines, sines), mask=mask)
        # Otherwise the look-up would fail on the device, without saying where.
        if x.shape[1] > self.positions.num_embeddings:
            problem = (
                f"a sequence of {x.shape[1]}; learned positions end at"
                f" {self.positions.num_embeddings}"
            )
            raise DataError(
                "inputs", problem, "Raise model.context_length, or use positions: rotary"
            )
        return x + self.positions(places), AttentionContext(mask=mask)

    def forward(
        self,
        tokens: Tensor | None = None,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return (B, O).

        Args:
            tokens: (B, T) int64; or
            inputs: (B, T, F) frames.
            lengths: (B,) int64, what of each row is no padding, at least 1; default: all.

        Raises:
            DataError: If a sequence is longer than the learned positions.
        """
        return self.head(self.features(tokens, inputs, lengths))  # type: ignore[no-any-return]
