"""Rotary position embedding, and the ways to stretch its wavelengths for longer contexts.

Shape legend: B rows, T positions, H heads, D head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor

from groundup.core.settings import Settings, setting

__all__ = [
    "LongRope",
    "RopeScaling",
    "check_rotary",
    "long_rotary_angles",
    "rotary_angles",
    "rotate",
    "text_outgrown",
]


def check_rotary(positions: str, head_dim: int) -> None:
    """Make sure that the channels of a head can be turned where positions are rotary.

    Raises:
        ValueError: If their number is odd.
    """
    if positions == "rotary" and head_dim % 2:
        raise ValueError(
            f"head_dim {head_dim} is odd, but rotary positions turn channels in pairs."
            f" Use head_dim {head_dim + 1} or positions: learned"
        )


class RopeScaling(Settings):
    """How a model that was trained on short texts was made to read longer ones: by slower rotation.

    Source:
        linear: Chen et al., Position Interpolation, 2023 (arXiv:2306.15595), equation 4. llama3:
            Grattafiori et al.,
        2024 (arXiv:2407.21783), whose code keeps short wavelengths and divides long ones. yarn:
        Peng et al., 2023 (arXiv:2309.00071), sections 3.2 to 3.4. dynamic: NTK-aware scaling by a
        text's length, there in section 3.1 and appendix A.1, as transformers computes it.
    """

    kind: Literal["linear", "dynamic", "llama3", "yarn"] = setting(
        ...,
        "linear slows all channels, llama3 and yarn those whose wavelength is long; dynamic slows"
        " texts beyond the original context, the more the longer they are",
    )
    factor: float = setting(..., "How many times slower", ge=1)
    original_context: int = setting(
        8192,
        "Tokens of the context before it was stretched",
        ge=1,
        applies_when={"kind": ("dynamic", "llama3", "yarn")},
    )
    low_frequency: float = setting(
        1.0,
        "Turns in the original context below which a channel is slowed",
        gt=0,
        applies_when={"kind": ("llama3",)},
    )
    high_frequency: float = setting(
        4.0,
        "Turns in the original context above which one is not",
        gt=0,
        applies_when={"kind": ("llama3",)},
    )
    beta_slow: float = setting(
        1.0,
        "Turns in the original context below which a channel is slowed",
        gt=0,
        applies_when={"kind": ("yarn",)},
    )
    beta_fast: float = setting(
        32.0,
        "Turns in the original context above which one is not",
        gt=0,
        applies_when={"kind": ("yarn",)},
    )
    whole_channels: bool = setting(
        True,
        "Round the limits between slowed and other channels outwards",
        applies_when={"kind": ("yarn",)},
    )
    attention_factor: float | None = setting(
        None,
        "Factor of queries and keys; null: 1 + ln(factor) / 10",
        gt=0,
        applies_when={"kind": ("yarn",)},
    )

    @model_validator(mode="after")
    def _limits_are_in_order(self) -> RopeScaling:
        if self.kind == "llama3" and self.low_frequency >= self.high_frequency:
            raise ValueError("low_frequency is not below high_frequency. Exchange or change them")
        if self.kind == "yarn" and self.beta_slow > self.beta_fast:
            raise ValueError("beta_slow is above beta_fast. Exchange or change them")
        return self

    @property
    def amplitude(self) -> float:
        """By how much queries and keys are scaled."""
        if self.kind != "yarn":
            return 1.0
        return self.attention_factor or 1.0 + 0.1 * math.log(self.factor)

    def theta_at(self, lengths: Tensor, channels: int, theta: float) -> Tensor:
        """Return the base of the wavelengths in texts of these lengths, where it is dynamic."""
        beyond = lengths.clamp(min=self.original_context) / self.original_context
        grown = self.factor * beyond - (self.factor - 1)
        return theta * grown ** (channels / (channels - 2))

    def slowed(self, frequencies: Tensor, head_dim: int, theta: float) -> Tensor:
        """Return the frequencies (D/2,) in radians a position, those that are too slow divided by
        ``factor``."""
        if self.kind == "dynamic":
            return frequencies
        if self.kind == "linear":
            return frequencies / self.factor
        if self.kind == "llama3":
            kept = self._kept_llama3(frequencies)
        else:
            kept = self._kept_yarn(frequencies, head_dim, theta)
        return frequencies / self.factor * (1 - kept) + frequencies * kept

    def _kept_llama3(self, frequencies: Tensor) -> Tensor:
        turns = self.original_context * frequencies / (2 * math.pi)
        kept = (turns - self.low_frequency) / (self.high_frequency - self.low_frequency)
        return kept.clamp(0, 1)

    def _kept_yarn(self, frequencies: Tensor, head_dim: int, theta: float) -> Tensor:
        def channel(turns: float) -> float:
            """Return which pair of channels makes this many turns in the original context."""
            wavelengths = math.log(self.original_context / (turns * 2 * math.pi))
            return head_dim * wavelengths / (2 * math.log(theta))

        low = channel(self.beta_fast)
        high = channel(self.beta_slow)
        if self.whole_channels:
            low = math.floor(low)
            high = math.ceil(high)
        low = max(low, 0)
        # As in the authors' code: head_dim where half of it is meant, and no division by 0.
        high = min(high, head_dim - 1)
        if low == high:
            high += 0.001
        number = torch.arange(len(frequencies), device=frequencies.device).float()
        return 1 - ((number - low) / (high - low)).clamp(0, 1)


def text_outgrown(scaling: RopeScaling | None) -> Callable[[int, int], bool]:
    """Return what tells whether a text that grew from one length to another has to be read again:
    where all its tokens turn otherwise."""
    if scaling is None or scaling.kind != "dynamic":
        return lambda read, length: False
    original = scaling.original_context
    return lambda read, length: length > max(original, read) > 0


class LongRope(Settings):
    """How a model was made to read longer texts: each pair of channels turns slower by a factor of
    its own.

    Texts that fit in the context of before have other factors than longer ones.

    Source:
        Ding et al., LongRoPE, 2024 (arXiv:2402.13753), section 3.3.
    """

    original_context: int = setting(..., "Tokens of the context before it was stretched", ge=1)
    short_factors: tuple[float, ...] = setting(
        ..., "How many times slower each pair turns in texts up to that length"
    )
    long_factors: tuple[float, ...] = setting(..., "How many times slower in longer texts")
    amplitude: float = setting(1.0, "Factor of queries and keys", gt=0)


def rotary_angles(
    positions: Tensor,
    head_dim: int,
    theta: float,
    scaling: RopeScaling | None = None,
    lengths: Tensor | None = None,
    *,
    wide: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines by which ``rotate`` turns each pair of channels.

    Args:
        positions: (..., T) integers.
        head_dim: D, even.
        theta: The longest wavelength is ``2 pi theta`` positions.
        scaling: How wavelengths were stretched, if they were.
        lengths: (..., T or 1) how long the text of each token is, where that stretches them; None:
            within the original context.
        wide: Return float64, for a model in float64.

    Returns:
        Two float32 tensors (..., T, 1, D): the cosines twice, and the sines, negative in the first
        half. They are computed each time, in float32, so that no cast of the model blurs them.

    Source:
        Su et al., RoFormer, 2021 (arXiv:2104.09864), equation 15.
    """
    # Channel pairs turn slower and slower: from once in 2 pi positions to once in 2 pi theta.
    exponents = _exponents(positions, head_dim)
    frequencies = 1.0 / theta**exponents
    if scaling is not None and scaling.kind == "dynamic" and lengths is not None:
        bases = scaling.theta_at(lengths, head_dim, theta)[..., None, None]
        return _turn_by(positions, 1.0 / bases**exponents, 1.0, wide=wide)
    if scaling is None:
        return _turn_by(positions, frequencies, 1.0, wide=wide)
    frequencies = scaling.slowed(frequencies, head_dim, theta)
    return _turn_by(positions, frequencies, scaling.amplitude, wide=wide)


def long_rotary_angles(
    positions: Tensor,
    lengths: Tensor | int,
    channels: int,
    theta: float,
    scaling: LongRope,
    *,
    wide: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return what ``rotary_angles`` returns, of ``channels`` channels, for tokens of texts whose
    lengths are known.

    Args:
        positions: (..., T) integers.
        lengths: (..., T or 1) how long the text of each token is, or one number.
        channels: How many channels of a head turn, even.
        theta: The longest wavelength is ``2 pi theta`` positions before it is stretched.
        scaling: The factors, ``channels / 2`` of each kind.
        wide: Return float64, for a model in float64.
    """
    powers = theta ** _exponents(positions, channels)
    short = powers.new_tensor(scaling.short_factors)
    long = powers.new_tensor(scaling.long_factors)
    each = torch.as_tensor(lengths, device=positions.device)[..., None, None]
    frequencies = 1.0 / (torch.where(each > scaling.original_context, long, short) * powers)
    return _turn_by(positions, frequencies, scaling.amplitude, wide=wide)


def _exponents(positions: Tensor, channels: int) -> Tensor:
    return torch.arange(0, channels, 2, device=positions.device).float() / channels


def _turn_by(
    positions: Tensor, frequencies: Tensor, amplitude: float, *, wide: bool
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines as ``rotate`` takes them, of frequencies (D/2,) or (..., T, 1,
    D/2)."""
    angles = positions[..., None, None].float() * frequencies
    cosines = torch.cat([angles.cos()] * 2, -1)
    sines = angles.sin()
    sines = torch.cat((-sines, sines), -1)
    if amplitude != 1.0:
        cosines = cosines * amplitude
        sines = sines * amplitude
    if wide:
        return cosines.double(), sines.double()
    return cosines, sines


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn channel i of x (B, T, H, D) together with channel i + R/2, in x's dtype or float32 if
    that is finer.

    The cosines and sines have R channels; where that is fewer than D, the others stay.

    Departs from the paper: pairs (i, i + D/2) as Llama's published weights have it, not (2i, 2i +
        1).
    """
    if cosines.shape[-1] < x.shape[-1]:
        # Partial rotation, as in Phi-4: the first channels turn, the others carry no position.
        turned = rotate(x[..., : cosines.shape[-1]], cosines, sines)
        return torch.cat((turned, x[..., cosines.shape[-1] :]), -1)
    # One cast: mixed dtypes are slow in every product.
    wide = x.to(torch.promote_types(x.dtype, cosines.dtype))
    return (wide * cosines + wide.roll(x.shape[-1] // 2, -1) * sines).to(x.dtype)
