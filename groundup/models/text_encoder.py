"""The text encoder inside a model that makes pictures: what it asks of a caption.

Shape legend: B pictures, T tokens, S = T + 1 states, D their width, E width of the conditions.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.contracts.classifier_models import TokenStates
from groundup.contracts.generators import ReadsCaptions
from groundup.contracts.models import ModelConfig, context_length_of
from groundup.contracts.processors import Processor
from groundup.core import registry
from groundup.core.errors import RecipeError
from groundup.core.settings import validate
from groundup.nn.part_names import HEADS
from groundup.nn.picture_conditions import Told
from groundup.nn.pooling import mean_state, within

__all__ = ["DEFAULT", "TextEncoder", "complete_text", "tell", "text_flops"]

DEFAULT: dict[str, Any] = {"name": "transformer_classifier", "layers": 2, "width": 128, "heads": 4}
"""The encoder where the data has captions and the recipe names none."""

_WHERE = "recipe.model.text"
# What belongs to the heads of such models, which a generator has none of.
_OF_HEADS = ("head", "outputs", "pooling", "pooler", "ngrams", "ngram_width", "ngram_buckets")


def _settings(section: dict[str, Any]) -> ModelConfig:
    """Return the encoder's settings."""
    rest = dict(section)
    if "name" not in rest:
        problem = "is required and missing"
        raise RecipeError(f"{_WHERE}.name", problem, "Write {name: transformer_classifier}")
    name = str(rest.pop("name"))
    made: ModelConfig = validate(registry.lookup("model", name, f"{_WHERE}.name"), rest, _WHERE)
    return made


def complete_text(
    section: dict[str, Any] | None, processor: Processor, owner: str
) -> dict[str, Any] | None:
    """Return the encoder's section with the sizes that the data decides; None where the pictures
    have no captions.

    Args:
        section: As the recipe has it; None: the default, where there are captions.
        processor: The run's.
        owner: The model that has the encoder, for messages.

    Raises:
        RecipeError: If there are no captions to encode, the section is of no encoder of texts, or
            one of its settings is wrong.
    """
    if not isinstance(processor, ReadsCaptions):
        if section is not None:
            raise RecipeError(
                _WHERE,
                f"is given, but the processor reads no captions that {owner} could be asked for",
                "Choose processor: captioned_pictures with task.condition: text, or remove it",
            )
        return None
    given = section or DEFAULT
    for name in _OF_HEADS:
        # "none" is filled in below, and found again in the recipe of a run.
        if given.get(name, "none") != "none":
            problem = f"is of the head of {given.get('name')}, which an encoder has none of"
            raise RecipeError(f"{_WHERE}.{name}", problem, "Remove it")
    # What the recipe leaves to the data is written down, so that the run's recipe builds it alone.
    before = _settings(given)
    after = before.complete_from(processor.captions)
    own = dict(before)
    return dict(given) | {key: value for key, value in after if value != own[key]}


def _build(section: dict[str, Any]) -> TokenStates:
    """Return a built encoder without its head.

    Raises:
        RecipeError: If the model shows no states.
    """
    settings = _settings(section)
    # One output is built and thrown away, where a model cannot be without.
    if "outputs" in dict(settings) and dict(settings).get("head", "labels") != "none":
        settings = settings.model_copy(update={"outputs": 1})
    model = settings.build()
    if not isinstance(model, TokenStates):
        raise RecipeError(
            f"{_WHERE}.name",
            f"is {section['name']}, which shows no states of a text",
            "Choose transformer_classifier, bert or rnn",
        )
    # What has no gradient would be an error of training, and a burden of files.
    for name, _ in list(model.named_children()):
        if f"{name}.".startswith(HEADS):
            delattr(model, name)
    return model


def text_flops(section: dict[str, Any] | None) -> float:
    """Return the FLOPs of encoding one caption, forward and backward, as if it were as long as the
    encoder reads; 0 without one."""
    if section is None:
        return 0.0
    settings = _settings(section)
    # Recurrent models have no longest text; their encoder is next to nothing in the whole.
    longest = context_length_of(settings) or 1
    return longest * settings.flops_per_token(longest)


def tell(
    embed: nn.ModuleDict,
    conditions: tuple[Tensor, Tensor | None, Tensor | None],
    text: Tensor | None,
    lengths: Tensor | None,
) -> Told:
    """Return what all layers of a generator are told.

    Args:
        embed: Its ``conditions``, and its ``text`` where it reads captions.
        conditions: Times, spans and classes, as ``PictureConditions`` takes them.
        text: As ``TextEncoder`` takes it; None: there is none.
        lengths: Likewise.
    """
    vector = embed["conditions"](*conditions)
    if text is None:
        return Told(F.silu(vector))
    asked: Told = embed["text"](text, lengths)
    return asked._replace(vector=F.silu(vector + asked.vector))


class TextEncoder(nn.Module):
    """What is asked for by text: a vector for all layers, and states that attention reads.

    Before the states of the text's tokens comes one that is learned and stands for no token: of an
    empty text, which asks for nothing, it is the only one. So attention always has something to
    read, and guidance has what to go away from.

    Source:
        A vector added to the time's and states next to those of the places: Nichol et al., GLIDE,
        2021 (arXiv:2112.10741), section 3. Departs from it: the vector is of the mean of the
        states, not of the last one.

    Args:
        section: The encoder's, completed.
        width: E.
    """

    def __init__(self, section: dict[str, Any], width: int) -> None:
        super().__init__()
        self.encoder = _build(section)
        self.state_width = self.encoder.state_width
        # As large as normalised states are.
        self.nothing = nn.Parameter(torch.randn(self.state_width))
        self.vector = nn.Linear(self.state_width, width)
        # As large as the vectors of classes are, or what is asked for is hardly heard.
        nn.init.normal_(self.vector.weight, std=self.state_width**-0.5)

    def forward(self, text: Tensor, lengths: Tensor) -> Told:
        """Return what layers are told of texts.

        Args:
            text: (B, T) int64 tokens, or (B, T, F) float32 frames, T at least 1.
            lengths: (B,) int64 of each without padding; 0: nothing is asked for.
        """
        kind = "inputs" if text.is_floating_point() else "tokens"
        # Of nothing one token is read and hidden: encoders read at least one.
        read = {kind: text, "lengths": lengths.clamp(min=1)}
        states = self.encoder.states(**read)
        first = self.nothing.to(states.dtype).expand(len(states), 1, -1)
        states = torch.cat([first, states], 1)
        inside = within(lengths + 1, states)
        pooled = F.layer_norm(mean_state(states, inside), states.shape[-1:])
        # Padding may hold anything, also what is no number.
        states = states.masked_fill(~inside[..., None], 0.0)
        return Told(self.vector(pooled), states, ~inside[:, None, None])
