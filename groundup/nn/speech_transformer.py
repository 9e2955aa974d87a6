"""A transformer that reads the frames of a sound and writes a text: Whisper's shape.

Shape legend: B sounds, L frames, F numbers of a frame, S positions of the encoder (half as many as
    frames), R rows that are written (B, or a multiple of it), T positions of a text, C width, H
    heads, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.core.errors import DataError
from groundup.nn.attention import AttentionContext
from groundup.nn.encoder_decoder_block import EncoderDecoderShape, ReadInput, TwoStackBlock
from groundup.nn.kv_cache import KeyValueCache
from groundup.nn.two_stacks import TwoStackTransformer

__all__ = ["FrameEmbedding", "SpeechTransformer", "TranscriptTokens", "sound_positions"]

# Log-mel frames end 8 decades below their loudest number, and a decade is a quarter here: what
# silence after a sound is in them. In a sound of silence alone, all is at the floor of -10 decades.
_BELOW_LOUDEST = 2.0
_FLOOR = -1.5


@dataclass(frozen=True)
class TranscriptTokens:
    """How the transcripts of a model begin, and what is not written in them.

    Attributes:
        prompt: Between the start token and every transcript.
        suppress: Never written.
        begin_suppress: What no transcript begins with.
        no_speech: The token whose probability at the first place is that nothing is said; None:
            there is none.
        alignment_heads: Blocks of the decoder and their heads by which words are laid next to the
            sound.
    """

    prompt: tuple[int, ...] = ()
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()
    no_speech: int | None = None
    alignment_heads: tuple[tuple[int, int], ...] = ()


class FrameEmbedding(nn.Module):
    """Two convolutions over frames, the second of which leaves out every other place, and the
    places' vectors.

    Args:
        frame_width: F.
        width: C.
        places: The most positions, each of two frames.

    Source:
        Radford et al., Whisper, 2022 (arXiv:2212.04356), section 2.2.
    """

    def __init__(self, frame_width: int, width: int, places: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(frame_width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, stride=2, padding=1)
        # A buffer: published files hold the table, in their own precision, and no step changes it.
        self.positions: Tensor
        self.register_buffer("positions", sound_positions(places, width))

    def forward(self, frames: Tensor) -> Tensor:
        """Return (B, S, C) from frames (B, L, F), L even."""
        # Sounds come in float32, also to a model that computes in float64.
        frames = frames.to(self.first.weight.dtype)
        x = F.gelu(self.first(frames.transpose(1, 2)))
        # All blocks keep the layout of the stream: with channels far apart in memory every sum and
        # every norm of the encoder would gather them again.
        x = F.gelu(self.second(x)).transpose(1, 2).contiguous()
        return x + self.positions[: x.shape[1]].to(x.dtype)


class SpeechTransformer(TwoStackTransformer):
    """An encoder over a window of fixed length, and a decoder of text.

    Shorter sounds are followed by silence, which the encoder sees as any other sound: the window's
    length is a part of what the weights have learned.

    Args:
        config: The settings of the family.
        shape: Of the blocks; ``context_length`` is the text's.
        frame_width: F.
        places: Positions of the encoder that there are vectors for.
        window: Frames of the window, even, at most twice ``places``.
        tokens: How its transcripts begin, and what is not written in them.
        decoder: Returns what writes quickly with the same weights; None: nothing does.

    Source:
        Radford et al., Whisper, 2022 (arXiv:2212.04356), section 2.2.
    """

    def __init__(
        self,
        config: object,
        shape: EncoderDecoderShape,
        *,
        frame_width: int,
        places: int,
        window: int,
        tokens: TranscriptTokens,
        decoder: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        self._frame_width = frame_width
        self._places = places
        self.window = window
        self.tokens = tokens
        super().__init__(config, shape, decoder)
        # Taken out after the draw: a key's bias adds the same to every product of a query, which
        # attention's softmax takes away again.
        for name, layer in self.blocks.named_modules():
            if name.endswith("attention.key"):
                layer.register_parameter("bias", None)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The tokens between the start token and every transcript."""
        return self.tokens.prompt

    @property
    def suppressed(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens that are never written, and those that no transcript begins with."""
        return self.tokens.suppress, self.tokens.begin_suppress

    @property
    def no_speech_id(self) -> int | None:
        """The token whose probability at the first place is that nothing is said, if there is
        one."""
        return self.tokens.no_speech

    def _frames(self) -> nn.Module:
        return FrameEmbedding(self._frame_width, self.shape.block.width, self._places)

    def _positions(self, *, decodes: bool) -> nn.Module | None:
        return super()._positions(decodes=True) if decodes else None

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw all weights again; convolutions as PyTorch does."""
        super().initialise()
        frames = self.embed_frames
        assert isinstance(frames, FrameEmbedding)
        frames.first.reset_parameters()
        frames.second.reset_parameters()

    def forward(
        self,
        tokens: Tensor | None = None,
        positions: Tensor | None = None,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
        states: Tensor | None = None,
        text: Tensor | None = None,
        targets: Tensor | None = None,
        cache: KeyValueCache | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Predict the next token at every position of a text about a sound.

        Args:
            tokens: (R, T) int64, what is written: a start token, and the text. None: ``text``
                moved on by one, with the start token before it.
            positions: (R, T) int64; default 0 .. T-1, or what follows the cache. With a cache, -1
                marks padding on the left.
            inputs: (B, L, F) log-mel frames; None, with no ``states`` either: those that
                ``encode`` read into the cache. R is B with them, and else may be a multiple of it.
            lengths: (B,) int64, frames of each sound. Frames after them that are all 0 are padding,
                and read as silence; default: all are the sound's.
            states: (B, S, C) what ``read_sound`` returned, in place of ``inputs``.
            text: (R, T) int64, in place of ``tokens``: what is predicted at each position.
            targets: (R, T) int64, the tokens that come next, -100 where nothing is trained.
            cache: Keys and values of what was written before; this call adds to it.
            last_only: Return logits of the last position only.

        Returns:
            As ``EncoderDecoderTransformer``: logits (R, T or 1, V), or with targets two sums.

        Raises:
            DataError: If a sound is longer than the window, or a text than its positions.
        """
        embedded = None if inputs is None else self._embed_source(inputs, lengths)
        if tokens is None:
            tokens = self._moved(text)
        if states is not None:
            x, context = self._embed_target(tokens, positions, cache)
            hidden = self._write(x, context, ReadInput(None, states), cache)
        else:
            hidden, _ = self._hidden(tokens, positions, cache, embedded, None)
        return self._outputs(hidden, targets, last_only=last_only)

    def encode(
        self,
        cache: KeyValueCache,
        *,
        inputs: Tensor | None = None,
        lengths: Tensor | None = None,
        states: Tensor | None = None,
        **encoded: Tensor,
    ) -> None:
        """Read sounds (B, L, F), or states (B, S, C) of ``read_sound``, and keep in the cache what
        every block of the decoder attends to.

        Args:
            cache: What to keep it in.
            inputs: As in ``forward``.
            lengths: As in ``forward``.
            states: As in ``forward``.
            **encoded: In place of these what another cache keeps of the same sounds.
        """
        if encoded:
            cache.encoded |= encoded
            return
        if states is None:
            assert inputs is not None, "there are neither frames nor states"
            states = self.read_sound(inputs, lengths)
        self._keep_read(cache, states)

    def read_sound(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the encoder's states (B, S, C) of frames; arguments as in ``forward``."""
        return self._read(*self._embed_source(inputs, lengths))

    def attention_to_sound(
        self, tokens: Tensor, encoded: Mapping[str, Tensor], heads: Sequence[tuple[int, int]] = ()
    ) -> Tensor:
        """Return how much each token attends to each position of the sound, (B, N, T, S), by N
        heads: by which a text is laid next to its sound.

        Args:
            tokens: (B, T) int64, with the start token.
            encoded: What ``encode`` kept in a cache.
            heads: N pairs of a block of the decoder and one of its heads, both counted from 0;
                default: those of the weights.
        """
        chosen = heads or self.tokens.alignment_heads
        x, context = self._embed_target(tokens, None, None)
        found: dict[int, Tensor] = {}
        layers = self.shape.decoder_layers
        keys = tuple((encoded[f"keys {n}"], encoded[f"values {n}"]) for n in range(layers))
        read = ReadInput(None, None, keys)
        for layer, block in enumerate(self.blocks[self.shape.layers :]):
            assert isinstance(block, TwoStackBlock)
            if any(layer == wanted for wanted, _ in chosen):
                found[layer] = block.weights_of_input(x, context, keys[layer][0])
            x = block(x, context, read, layer)
        return torch.stack([found[layer][:, head] for layer, head in chosen], 1)

    def _embed_source(
        self, frames: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, AttentionContext]:
        """Return the embedded window (B, S, C), and what it sees: everything."""
        assert self.embed_frames is not None
        return self.dropout(self.embed_frames(self.in_window(frames, lengths))), AttentionContext()

    def in_window(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the sounds (B, window, F) of ``forward``'s inputs, with silence after each.

        Raises:
            DataError: If one is longer than the window.
        """
        long = frames.shape[1]
        longest = long
        if lengths is not None and len(lengths):
            longest = int(lengths.max())
        if longest > self.window:
            problem = f"a sound has {longest} frames, but the model's window {self.window}"
            raise DataError("inputs", problem, "Cut recordings into windows, or use a longer one")
        if lengths is not None:
            frames = _as_silence(frames, lengths)
        if long >= self.window:
            # What is cut off is silence: every length is within the window.
            return frames[:, : self.window]
        silence = _silence_of(frames).expand(-1, self.window - long, frames.shape[2])
        return torch.cat((frames, silence), 1)


def sound_positions(places: int, width: int) -> Tensor:
    """Return (S, C) float32: sines of falling frequencies, then the cosines, the last of them with
    a wavelength of 10,000 times the first's.

    Source:
        As in the published code of Whisper; Vaswani et al., 2017 (arXiv:1706.03762), section 3.5,
        divide by half the width, and here it is one less.
    """
    half = width // 2
    falls = math.log(10000.0) / max(half - 1, 1)
    rates = torch.exp(-falls * torch.arange(half))
    angles = torch.arange(places)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), 1)


def _as_silence(frames: Tensor, lengths: Tensor) -> Tensor:
    """Return frames (B, L, F) with silence where rows were filled up with zeros."""
    places = torch.arange(frames.shape[1], device=frames.device)
    # A processor that fills up the sound itself leaves no such frames, and they stay as they are:
    # its last ones still hear the sound's end.
    padding = (places >= lengths[:, None]) & (frames == 0).all(-1)
    if not padding.any():
        return frames
    silence = _silence_of(frames.masked_fill(padding[..., None], -torch.inf))
    return torch.where(padding[..., None], silence, frames)


def _silence_of(frames: Tensor) -> Tensor:
    """Return (B, 1, 1) what silence is in the log-mel frames of each sound."""
    loudest = frames.amax((1, 2), keepdim=True)
    return (loudest - _BELOW_LOUDEST).clamp(min=_FLOOR)
