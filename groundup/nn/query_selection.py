"""Where queries begin: at the places of feature maps that look most like something.

Shape legend: B pictures, S places of all maps, C width, Q queries, K classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from groundup.nn.box_head import LayersMLP, first_boxes
from groundup.nn.deformable_attention import MapPlaces

__all__ = ["QuerySelection"]


class QuerySelection(nn.Module):
    """Chooses the places where something is most likely, with the box that each of them says.

    Args:
        width: C.
        queries: Q.
    """

    def __init__(self, width: int, queries: int) -> None:
        super().__init__()
        self._queries = queries
        self.output = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.box = LayersMLP(width, width, width, 4)
        nn.init.xavier_uniform_(self.output[0].weight)  # type: ignore[arg-type]

    def forward(self, places: MapPlaces, score: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Return the states of the queries (B, Q, C), without a gradient to what they are made of,
        and the logits (B, Q, K) and boxes in shares (B, Q, 4) of their places; ``score`` is what
        makes logits of states."""
        anchors, inside = first_boxes(places.sizes, places.states.device)
        # A place without a part says the same whatever is there, and its box is infinitely large.
        states = self.output(places.states * inside.to(places.states.dtype))
        logits = score(states)
        boxes = self.box(states).float() + anchors
        # By the surest class: which one it is does not matter yet.
        best = logits.amax(-1).topk(self._queries, 1).indices[..., None]  # (B, Q, 1)
        chosen = [x.gather(1, best.expand(-1, -1, x.shape[2])) for x in (states, logits, boxes)]
        # The decoder does not teach the encoder by way of the states: that is the loss's affair.
        return chosen[0].detach(), chosen[1], chosen[2].sigmoid()
