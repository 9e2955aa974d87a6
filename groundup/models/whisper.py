"""Whisper: a transformer that reads the log-mel frames of a sound and writes what is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import model_validator
from torch import Tensor

from groundup.contracts.models import FromHuggingFace
from groundup.contracts.processors import Processor
from groundup.contracts.speech import ReadsSpeech
from groundup.core.errors import RecipeError
from groundup.core.registry import model
from groundup.core.settings import setting
from groundup.generation.speech_decoder import SpeechDecoder
from groundup.machine.meta_device import without_content
from groundup.models.names.huggingface import whisper
from groundup.models.names.table import unknown_keys
from groundup.models.sizes_from_data import fit_vocabulary, require_vocabulary, settle_size
from groundup.nn.attention import seen_on_average
from groundup.nn.encoder_decoder_block import EncoderDecoderShape
from groundup.nn.speech_transformer import SpeechTransformer, TranscriptTokens
from groundup.nn.transformer import BlockShape, check_heads

__all__ = ["WhisperConfig"]


@model("whisper")
class WhisperConfig(FromHuggingFace):
    """The shape of an encoder of sounds and a decoder of text, in Whisper's blocks: pre-norm with
    LayerNorm, GELU, and biases everywhere but in keys."""

    huggingface_model_types: ClassVar[tuple[str, ...]] = ("whisper",)
    free_settings: ClassVar[tuple[str, ...]] = (
        *FromHuggingFace.free_settings,
        "window_frames",
        "prompt_ids",
        "suppress_tokens",
        "begin_suppress_tokens",
        "alignment_heads",
    )
    pretrained_processor: ClassVar[str] = "speech"
    tokenizer_setting: ClassVar[str] = "tokenizer"
    decided_by_data: ClassVar[tuple[str, ...]] = (
        "vocabulary_size",
        "mel_bands",
        "padding_id",
        "start_id",
    )

    vocabulary_size: int = setting(0, "Tokens in the vocabulary; 0 takes the processor's", ge=0)
    mel_bands: int = setting(0, "Numbers of a frame; 0 takes the processor's", ge=0)
    context_length: int = setting(448, "The longest text, in tokens", ge=1)
    source_positions: int = setting(
        1500, "Positions of the encoder, each of two frames; 1500 are 30 seconds", ge=1
    )
    window_frames: int | None = setting(
        None,
        "Frames that the encoder reads, the rest of a shorter sound being silence; null: 2 x"
        " source_positions. A shorter window takes less time, and changes what pretrained weights"
        " compute",
        ge=2,
        multiple_of=2,
    )
    layers: int = setting(4, "Blocks of the encoder", ge=1)
    decoder_layers: int | None = setting(
        None, "Blocks of the decoder; null: as many as the encoder has", ge=1
    )
    width: int = setting(384, "Channels of the residual stream", ge=4, multiple_of=2)
    heads: int = setting(6, "Attention heads", ge=1)
    mlp_width: int | None = setting(None, "Inner width of the MLP; null: 4 x width", ge=1)
    start_id: int | None = setting(
        None, "The token before every text; null: the tokenizer's start token, or its end", ge=0
    )
    padding_id: int | None = setting(
        None, "A token whose embedding is not trained as an input; null: none", ge=0
    )
    prompt_ids: tuple[int, ...] = setting(
        (),
        "Tokens between start_id and every transcript, which are given and not learned: language,"
        " task, and that there are no times",
    )
    suppress_tokens: tuple[int, ...] = setting((), "Tokens that are never written")
    begin_suppress_tokens: tuple[int, ...] = setting((), "Tokens that no text begins with")
    no_timestamps_id: int | None = setting(
        None,
        "The token that says there are no times; the one before it says that nothing is said, and"
        " those after it are times. Null: there are none of these",
        ge=1,
    )
    alignment_heads: tuple[tuple[int, int], ...] = setting(
        (),
        "Blocks of the decoder and their heads, both from 0, by which words are laid next to the"
        " sound; none: all heads of the upper half",
    )
    dropout: float = setting(
        0.0, "Share of embeddings and residual activations dropped in training", ge=0, lt=1
    )
    init_std: float = setting(0.02, "Standard deviation of fresh weights", gt=0)

    @model_validator(mode="after")
    def _shape_is_possible(self) -> WhisperConfig:
        # Found when the recipe is read, not at the first matrix that does not fit.
        check_heads(self.width, self.heads)
        if self.window > 2 * self.source_positions:
            raise ValueError(
                f"window_frames {self.window_frames} is more than the encoder has positions for."
                f" Use at most {2 * self.source_positions}"
            )
        named = [("start_id", self.start_id), ("padding_id", self.padding_id)]
        named += [("no_timestamps_id", self.no_timestamps_id)]
        named += [("prompt_ids", token) for token in self.prompt_ids]
        for name, token in named:
            if token is not None and 0 < self.vocabulary_size <= token:
                raise ValueError(
                    f"{name} {token} is no token of a vocabulary of {self.vocabulary_size}."
                    f" Use at most {self.vocabulary_size - 1}"
                )
        for block, head in self.alignment_heads:
            if not (0 <= block < self.written_layers and 0 <= head < self.heads):
                raise ValueError(
                    f"alignment_heads names head {head} of block {block}, but the decoder has"
                    f" {self.written_layers} blocks of {self.heads} heads. Count both from 0"
                )
        return self

    @property
    def written_layers(self) -> int:
        """Blocks of the decoder."""
        return self.decoder_layers or self.layers

    @property
    def window(self) -> int:
        """Frames that the encoder reads."""
        return self.window_frames or 2 * self.source_positions

    @property
    def first_token(self) -> int:
        """The token before every text."""
        return self.start_id or 0

    def block(self) -> BlockShape:
        """Return the shape of every block."""
        return BlockShape(
            self.width,
            self.heads,
            self.heads,
            self.width // self.heads,
            self.mlp_width or 4 * self.width,
            activation="gelu",
            norm="layernorm",
            # Fixed in the published code.
            norm_eps=1e-5,
            bias="all",
            dropout=self.dropout,
        )

    def shape(self) -> EncoderDecoderShape:
        """Return what the settings come to."""
        return EncoderDecoderShape(
            self.block(),
            self.layers,
            self.written_layers,
            self.vocabulary_size,
            self.context_length,
            "learned",
            start_id=self.first_token,
            padding_id=self.padding_id,
            init_std=self.init_std,
        )

    def complete_from(self, processor: Processor) -> WhisperConfig:
        """Return the config with the sizes that only the processor knows.

        Raises:
            RecipeError: If the processor reads no speech, or makes other frames or more tokens.
        """
        if not isinstance(processor, ReadsSpeech):
            problem = "makes no frames of sounds with transcripts, which model whisper reads"
            raise RecipeError("recipe.processor", problem, "Set processor: speech")
        found: dict[str, Any] = {
            "vocabulary_size": fit_vocabulary("whisper", processor.tokenizer, self.vocabulary_size),
            "mel_bands": settle_size("mel_bands", self.mel_bands, processor.input_shape[1]),
        }
        # Without it a decoder would begin with token 0, which is a word in many tokenizers.
        if self.start_id is None:
            found["start_id"] = processor.tokenizer.begin_id
        return self.model_copy(update=found)

    def build(self) -> SpeechTransformer:
        """Return the model with freshly initialised weights.

        Source:
            Radford et al., Whisper, 2022 (arXiv:2212.04356), section 2.2. Departs from it: no
            dropout of attention weights or inside the MLP.

        Raises:
            RecipeError: If the vocabulary's size is still unknown, or that of the frames.
        """
        require_vocabulary(self.vocabulary_size)
        if not self.mel_bands:
            problem = "is 0, but no processor has filled it in"
            raise RecipeError("recipe.model.mel_bands", problem, "Give the number")
        return SpeechTransformer(
            self,
            self.shape(),
            frame_width=self.mel_bands,
            places=self.source_positions,
            window=self.window,
            tokens=self.transcript_tokens(),
            decoder=SpeechDecoder,
        )

    def transcript_tokens(self) -> TranscriptTokens:
        """Return the tokens that transcripts begin with, and those that are not written."""
        heads = self.alignment_heads
        if not heads:
            # As the published code does for weights of which nobody has said which heads follow.
            upper = range(self.written_layers // 2, self.written_layers)
            heads = tuple((block, head) for block in upper for head in range(self.heads))
        return TranscriptTokens(
            self.prompt_ids,
            self.suppress_tokens,
            self.begin_suppress_tokens,
            None if self.no_timestamps_id is None else self.no_timestamps_id - 1,
            heads,
        )

    @property
    def rows_vary(self) -> bool:
        """Transcripts are as long as what is said."""
        return True

    def flops_per_token(self, context: int) -> float:
        """Return forward + backward FLOPs of a sound and a text of ``context`` tokens, a token:
        most of them are the encoder's, and of the whole window."""
        return self.trained_flops_per_token(context, None)

    def trained_flops_per_token(self, context: int, layers: int | None) -> float:
        """Return these where only the last ``layers`` blocks are trained: what comes before is
        computed forwards alone, a third of its work, and the embedding that is the output layer
        passes a gradient on, and gets none."""
        if not context:
            return 0.0
        block = self.block()
        frames = self.window
        places = frames // 2
        stem = 6.0 * 3 * self.width * (frames * self.mel_bands + places * self.width)
        encoder = places * block.flops_per_token(places)
        # Attention to the sound: queries and the output of each token, keys and values of each
        # place, and the products of all tokens with all places.
        across = 12.0 * self.width * (self.width * (context + places) + context * places)
        decoder = context * block.flops_per_token(seen_on_average(context, None)) + across
        output = 6.0 * context * self.width * self.vocabulary_size
        if layers is None:
            return (stem + self.layers * encoder + self.written_layers * decoder + output) / context
        # The decoder's blocks are the last ones.
        written = min(layers, self.written_layers)
        read = min(layers - written, self.layers)
        still = stem + (self.layers - read) * encoder + (self.written_layers - written) * decoder
        return (still / 3 + read * encoder + written * decoder + output * 2 / 3) / context

    def completed(self) -> dict[str, Any]:
        """Return all settings as plain values, those that follow from others filled in."""
        follows = {
            "mlp_width": self.mlp_width or 4 * self.width,
            "decoder_layers": self.written_layers,
            "start_id": self.first_token,
        }
        return self.model_dump() | follows

    def to_huggingface(
        self, weights: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return config.json's contents and the tensors as Hugging Face's Whisper names them, which
        reads as many frames as it has positions for."""
        values = self.completed() | {"source_positions": self.window // 2}
        tensors = whisper.to_huggingface(self.kept_by_huggingface(weights), values)
        return whisper.config_to_huggingface(values), tensors

    def kept_by_huggingface(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights without the positions beyond the window."""
        kept = {name: weights[name][: self.window // 2] for name in (_PLACES,) if name in weights}
        return dict(weights) | kept

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the contents of config.json mean.

        Raises:
            CheckpointError: If it has a part that is not built here.
        """
        return whisper.config_to_groundup(config)

    @classmethod
    def from_generation_config(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what generation_config.json says of how transcripts begin and are written.

        Raises:
            CheckpointError: If it is of several languages, and does not number them.
        """
        return whisper.generation_to_groundup(values)

    def to_generation_config(self) -> dict[str, Any]:
        """Return the keys of generation_config.json that say the same."""
        return whisper.generation_to_huggingface(self.completed())

    @classmethod
    def processor_from_huggingface(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of processor ``speech`` that preprocessor_config.json stands for.

        Raises:
            CheckpointError: If frames are made in another way.
        """
        return whisper.processor_to_groundup(config)

    def unknown_keys(self, config: Mapping[str, Any]) -> list[str]:
        """Return the keys of config.json that nothing here reads."""
        return unknown_keys(config, whisper.KEYS)

    def weights_from_huggingface(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return this model's tensors from Hugging Face's; each is used once and none is left over.

        Raises:
            CheckpointError: If one is missing, has no place, or has another shape.
        """
        # Only names and shapes are compared, for which no memory is needed.
        with without_content():
            own = self.build().state_dict()
        return whisper.to_groundup(tensors, self.completed(), own)

    @classmethod
    def sizes(cls) -> Mapping[str, WhisperConfig]:
        """Return the named sizes.

        Source:
            Radford et al., 2022, table 1; the tokens are those of the published weights for several
            languages. The first is not published: it is for small data.
        """
        small = {"nano": cls(layers=2, width=64, heads=2, source_positions=500)}
        tokens: dict[str, Any] = {"vocabulary_size": 51865, "start_id": 50258, "padding_id": 50257}
        return small | {
            f"whisper-{name}": cls(layers=layers, width=width, heads=heads, mel_bands=80, **tokens)
            for name, (layers, width, heads) in _SIZES.items()
        }


_PLACES = "embed_frames.positions"
_SIZES = {
    "tiny": (4, 384, 6),
    "base": (6, 512, 8),
    "small": (12, 768, 12),
    "medium": (24, 1024, 16),
    "large": (32, 1280, 20),
}
