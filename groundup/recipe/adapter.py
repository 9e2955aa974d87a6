"""The section ``adapter`` of a recipe."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from groundup.core.settings import PathText, Settings, setting

__all__ = ["Adapter"]

Count = Annotated[int, Field(gt=0)]
Token = Annotated[int, Field(ge=0)]
Patterns = Annotated[tuple[str, ...], Field(min_length=1)]
Ranks = Annotated[dict[str, Count], Field(min_length=1)]


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
    modules_to_save: tuple[str, ...] = setting(
        (), "Parts that are trained and saved whole: names, or their ends, such as [head, norm]"
    )
    bias: Literal["none", "lora_only", "all"] = setting(
        "none", "Biases that are trained too: those of the adapted layers, or all"
    )
    trainable_token_indices: tuple[Token, ...] = setting(
        (), "Numbers of tokens whose rows of the embedding are trained; no others are"
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
    path: PathText | None = setting(
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
    def quantized(self) -> str:
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
