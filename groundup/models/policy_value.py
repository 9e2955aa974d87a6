"""A network for games: a logit of each move, and what the player to move can expect, over the
layers of another model.

Shape legend: B positions, C planes or channels, H rows, W columns, A moves.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.classifier_models import DenseLayers, FeatureMaps
from groundup.contracts.games import GameProcessor
from groundup.contracts.models import ModelConfig, blocks_of
from groundup.contracts.processors import Processor
from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.core.settings import setting, validate
from groundup.models.sizes_from_data import settle_size
from groundup.models.trunk import trunk_settings
from groundup.nn.activations import initialise_linear
from groundup.nn.convolution import Convolution
from groundup.nn.norm import keep_frozen_statistics

__all__ = ["PolicyValue", "PolicyValueConfig"]

_WHERE = "recipe.model.backbone"
# Of which a policy or a value is made at each place of the board, before all places are taken
# together.
_VALUE_CHANNELS = 8


@registry.model("policy_value")
class PolicyValueConfig(ModelConfig):
    """The layers of a model of pictures or of numbers, and two heads."""

    backbone: dict[str, Any] = setting(
        {"name": "resnet", "layers": [4], "width": 64, "stem": "small"},
        "A model with feature maps, such as resnet, or mlp, with its settings",
    )
    policy_channels: int = setting(
        32, "Channels of the last map before the moves; a backbone without maps has none", ge=1
    )
    value_width: int = setting(64, "Width of the hidden layer before the value", ge=1)
    input_shape: tuple[int, int, int] | None = setting(
        None, "Planes, rows and columns; null: as the game has"
    )
    outputs: int = setting(0, "Moves; 0: as many as the game has", ge=0)

    @model_validator(mode="after")
    def _backbone_is_known(self) -> PolicyValueConfig:
        trunk = self.body()
        # A setting that nothing reads would be passed over in silence.
        dense = not isinstance(trunk, FeatureMaps)
        if dense and self.policy_channels != type(self).model_fields["policy_channels"].default:
            raise ValueError(
                "policy_channels has no effect with a backbone without feature maps. Remove it"
            )
        return self

    def body(self) -> Any:
        """Return the settings of the layers below the heads, for positions of the game's shape.

        Raises:
            RecipeError: If they are of no such model.
        """
        section = dict(self.backbone)
        name = str(section.get("name", ""))
        found = registry.lookup("model", name, f"{_WHERE}.name") if name else None
        if found is None or not isinstance(found, type) or not issubclass(found, DenseLayers):
            return trunk_settings(section, self.input_shape, "policy_value model")
        del section["name"]
        for key in ("inputs", "outputs", "category_sizes"):
            if key in section:
                raise RecipeError(f"{_WHERE}.{key}", "is the policy_value model's", "Remove it")
        if section.get("hidden") == []:
            raise RecipeError(f"{_WHERE}.hidden", "is empty, so nothing is learned", "Write [128]")
        kind: Any = found
        dense: Any = validate(kind, section, _WHERE)
        return dense.model_copy(update={"inputs": math.prod(self.input_shape or ()), "outputs": 1})

    @property
    def loss_is_sum(self) -> bool:
        """Batch norm ties the examples of a micro-batch together."""
        trunk = self.body()
        return bool(trunk.loss_is_sum) and not isinstance(trunk, FeatureMaps)

    def complete_from(self, processor: Processor) -> PolicyValueConfig:
        """Return the config with the sizes of the game.

        Raises:
            RecipeError: If the processor reads no positions of a game, or sizes differ from those
                given.
        """
        if not isinstance(processor, GameProcessor):
            raise RecipeError(
                "recipe.processor", "reads no games, which model policy_value plays", "Choose game"
            )
        game = processor.game
        if self.input_shape not in (None, game.planes):
            raise RecipeError(
                "recipe.model.input_shape",
                f"is {list(self.input_shape or ())}, but the game has {list(game.planes)}",
                "Use null",
            )
        outputs = settle_size("outputs", self.outputs, game.moves)
        return self.model_copy(update={"input_shape": game.planes, "outputs": outputs})

    def build(self) -> PolicyValue:
        """Return the model with freshly initialised weights.

        Raises:
            RecipeError: If a size is still unknown.
        """
        if self.input_shape is None or not self.outputs:
            raise RecipeError(
                "recipe.model",
                "input_shape is null or outputs is 0, but no game has filled it in",
                "Give both",
            )
        return PolicyValue(self)

    def flops_per_token(self, context: int) -> float:
        """Return the FLOPs of one position, forward and backward: 6 a weight and place."""
        assert self.input_shape is not None
        trunk = self.body()
        if not isinstance(trunk, FeatureMaps):
            widths: tuple[int, ...] = trunk.layer_widths()
            body = sum(a * b for a, b in pairwise(widths))
            heads = widths[-1] * (self.outputs + self.value_width) + self.value_width
            return 6.0 * (body + heads)
        last = trunk.map_sizes()[-1]
        places = math.prod(-(-side // last.stride) for side in self.input_shape[1:])
        channels = self.policy_channels + _VALUE_CHANNELS
        heads = places * (
            channels * last.width
            + self.policy_channels * self.outputs
            + _VALUE_CHANNELS * self.value_width
        )
        settings: Any = trunk
        own: float = 6.0 * (heads + self.value_width)
        return own + float(settings.flops_per_token(context))


class PolicyValue(nn.Module):
    """The model of a ``PolicyValueConfig``; ``embed`` and ``blocks`` are the backbone's.

    Source:
        Silver et al., 2018, "A general reinforcement learning algorithm that masters chess, shogi,
        and Go through self-play": one network, two heads of 1x1 convolutions.
        Departs from it: the heads have more channels, since boards are small.
    """

    def __init__(self, config: PolicyValueConfig) -> None:
        super().__init__()
        self.config = config
        trunk = config.body()
        # Its own output is left behind.
        classifier = trunk.build()
        self.blocks = classifier.blocks
        self._read_maps = None
        assert config.input_shape is not None
        if isinstance(trunk, FeatureMaps):
            self.embed = classifier.embed
            self._read_maps = trunk.read_maps
            last = trunk.map_sizes()[-1]
            sides = [-(-side // last.stride) for side in config.input_shape[1:]]
            places = math.prod(sides)
            # Places keep apart until here: where to play is a question of places.
            policy = [*_mixed(last.width, config.policy_channels), nn.Flatten()]
            value = [*_mixed(last.width, _VALUE_CHANNELS), nn.Flatten()]
            widths = (config.policy_channels * places, _VALUE_CHANNELS * places)
        else:
            policy = []
            value = []
            last_width = trunk.layer_widths()[-1]
            widths = (last_width, last_width)
        self.policy = nn.Sequential(*policy, nn.Linear(widths[0], config.outputs))
        hidden = nn.Linear(widths[1], config.value_width)
        self.value = nn.Sequential(*value, hidden, nn.ReLU(), nn.Linear(config.value_width, 1))
        for layer in (*self.policy, *self.value):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                initialise_linear(layer, "sigmoid")
        # oneDNN's convolutions are quicker where the channels of a place are next to each other.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> PolicyValue:
        """Set the mode; batch norms that are frozen keep their statistics."""
        super().train(mode)
        keep_frozen_statistics(self)
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (B, A + 1) of planes (B, C, H, W): the logits of all moves, legal or not, and
        last what the player to move can expect, between -1 and 1."""
        if self._read_maps is not None:
            x = self._read_maps(self, inputs)[-1]
        else:
            x = inputs.flatten(1)
            for block in blocks_of(self):
                x = block(x)
        return torch.cat([self.policy(x), self.value(x).tanh()], 1)


def _mixed(inputs: int, outputs: int) -> list[nn.Module]:
    return [Convolution(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
