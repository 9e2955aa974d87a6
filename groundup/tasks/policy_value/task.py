"""Learn what a search thought of positions, and how the games went on.

Shape legend: B positions, A moves, C planes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from groundup.contracts.data import Partners
from groundup.contracts.games import Found, GameProcessor, Judged, Player
from groundup.contracts.tasks import PREDICTION, EvaluationContext, Task
from groundup.core.errors import DataError, RecipeError
from groundup.core.registry import task
from groundup.core.seeding import uniforms
from groundup.core.settings import setting
from groundup.core.values import Batch, Evaluation, Example, Loss, Term
from groundup.games.network import thoughts_of
from groundup.games.players import Searcher
from groundup.games.remembered import Remembered
from groundup.tasks.policy_value.evaluation import evaluate_player

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PolicyValueTask"]

_EQUAL = 1e-6  # shares of moves that are equally good


@task("policy_value")
class PolicyValueTask(Task):
    """Cross-entropy of the moves, and the squared error of the value.

    Source:
        Silver et al., 2018, "A general reinforcement learning algorithm that masters chess, shogi,
        and Go through self-play", equation 1.
        Departs from it: illegal moves have no share in the cross-entropy, as they have none in a
        search; the weights' size is the optimizer's matter.
    """

    unit: ClassVar[str] = "positions"
    # The loss is against all best moves alike, which a player that is sure of one of them misses.
    default_settings: ClassVar[Mapping[str, Any]] = {"checkpoints.best_metric": "move_accuracy"}
    value_weight: float = setting(1.0, "Weight of the value's squared error", ge=0)
    symmetries: bool = setting(
        True, "Learn from a random one of the views of a board that are alike"
    )
    simulations: int = setting(
        100, "Simulations of a move when it plays, predicts and is evaluated", ge=0, le=100_000
    )
    algorithm: Literal["gumbel", "puct"] = setting("gumbel", "The search it plays with")
    value_scale: float = setting(
        1.0,
        "Weight of what moves bring next to what the network thinks of them, as of data self_play",
        gt=0,
        applies_when={"algorithm": ("gumbel",)},
    )
    exploration: float = setting(
        1.5, "Weight of moves seldom tried", gt=0, applies_when={"algorithm": ("puct",)}
    )
    opponents: tuple[int, ...] = setting(
        (100, 1000), "Random games a move of the searchers without a network that evaluation plays"
    )
    match_games: int = setting(200, "Games against each opponent", ge=2, multiple_of=2)
    rated: int = setting(
        4, "Checkpoints of the run that evaluation lets play each other, besides the last", ge=0
    )

    @property
    def batch_spec(self) -> dict[str, str]:
        """What ``inputs`` and ``loss`` read."""
        return {
            "inputs": "float32 (B, C, H, W)",
            "policy": "float32 (B, A)",
            "legal": "bool (B, A)",
            "value": "float32 (B,)",
        }

    def encode(self, examples: Sequence[Example], processor: Any) -> Batch:
        """Return positions with what somebody thinks of them.

        Raises:
            DataError: If an example has no such target.
            RecipeError: If the processor reads no games.
        """
        game = _reads(processor).game
        targets = [_judged(example) for example in examples]
        states = np.concatenate([game.read(str(example.inputs)) for example in examples])
        return {
            "inputs": torch.from_numpy(game.encode(states)),
            "policy": torch.from_numpy(np.stack([target.policy for target in targets])),
            "legal": torch.from_numpy(game.legal(states)),
            "value": torch.tensor([target.value for target in targets], dtype=torch.float32),
        }

    @property
    def augments(self) -> bool:
        return self.symmetries

    def augment(
        self,
        batch: Batch,
        samples: NDArray[np.int64],
        partners: Partners,
        processor: Any,
        seed: int,
    ) -> Batch:
        """Return each position in one of its views."""
        views = _reads(processor).game.symmetries()
        chosen = (uniforms(seed, "symmetry", samples)[0] * len(views)).astype(np.int64)
        places = torch.from_numpy(np.stack([view.places for view in views])[chosen])
        moves = torch.from_numpy(np.stack([view.moves for view in views])[chosen])
        planes = batch["inputs"].flatten(2)
        # By places, not by turning pictures: the moves follow by the same table.
        turned = planes.gather(2, places[:, None].expand_as(planes))
        return batch | {
            "inputs": turned.view_as(batch["inputs"]),
            "policy": batch["policy"].gather(1, moves),
            "legal": batch["legal"].gather(1, moves),
        }

    def inputs(self, batch: Batch) -> dict[str, Any]:
        return {"inputs": batch["inputs"]}

    def loss(self, outputs: Tensor, batch: Batch) -> Loss:
        """Return the cross-entropy of legal moves and the squared error of the value."""
        logits = outputs[:, :-1].float()
        logits = logits.masked_fill(~batch["legal"], -torch.inf)
        # Where a move is illegal, -inf times no share would be no number.
        likely = logits.log_softmax(1).masked_fill(~batch["legal"], 0.0)
        crossed = -(batch["policy"] * likely).sum()
        errors = (outputs[:, -1].float() - batch["value"]).square().sum()
        count = torch.tensor(float(len(logits)), device=logits.device)
        chosen = batch["policy"].gather(1, logits.argmax(1, keepdim=True))[:, 0]
        # Several moves may be equally good: any of them is right.
        best = (chosen >= batch["policy"].amax(1) - _EQUAL).sum()
        terms = {"policy": Term(crossed, count), "value": Term(errors, count, self.value_weight)}
        return Loss(terms, {"best": best, "positions": count})

    def summarise(self, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
        """Return the losses, and how often the likeliest move is one of the best."""
        policy = sums["policy"][0] / sums["policy"][1]
        value = sums["value"][0] / sums["value"][1]
        return {
            "loss": policy + self.value_weight * value,
            "policy_loss": policy,
            "value_mse": value,
            "move_accuracy": sums["best"][0] / sums["positions"][0],
        }

    def player(self, model: nn.Module, processor: GameProcessor, simulations: int) -> Player:
        """Return the model as a player."""
        game = processor.game
        return Searcher(
            game,
            Remembered(game, thoughts_of(model, game)),
            simulations,
            self.algorithm,
            self.value_scale,
            self.exploration,
        )

    def predict(self, model: nn.Module, inputs: Any, processor: Any, **options: Any) -> Any:
        """Return the move to play after moves given by name, such as ``"4 4 3"``; of a list of such
        texts, one each.

        Raises:
            DataError: If a move is illegal, or a game is over.
        """
        several = isinstance(inputs, list)
        texts = inputs if several else [inputs]
        found = [row[PREDICTION] for row in self.tabulate(model, texts, processor)]
        return found if several else found[0]

    def tabulate(
        self, model: nn.Module, inputs: Sequence[Any], processor: Any, **options: Any
    ) -> list[dict[str, Any]]:
        """Return the move to play in each position, what can be expected, and how often a search
        tried the moves."""
        reader = _reads(processor)
        game = reader.game
        states = np.concatenate([game.read(str(text)) for text in inputs])
        for text, over in zip(inputs, game.outcome(states).over, strict=True):
            if over:
                raise DataError(
                    f"the position after {text}", "is the end of a game", "Leave it out"
                )
        found = self.player(model, reader, self.simulations)(
            states, np.zeros(len(states), np.int64)
        )
        return [_row(game, states[n], found, n) for n in range(len(states))]

    def evaluate(self, context: EvaluationContext) -> Evaluation:
        """Let the model play, and look at its moves where the best ones are known."""
        return evaluate_player(self, context)


def _row(game: Any, state: NDArray[Any], found: Found, place: int) -> dict[str, Any]:
    legal = np.flatnonzero(game.legal(state[None])[0])
    shares = {game.move_name(state, int(move)): float(found.policy[place, move]) for move in legal}
    best = game.move_name(state, int(found.moves[place]))
    return {PREDICTION: best, "value": float(found.values[place]), "moves": shares}


def _reads(processor: Any) -> GameProcessor:
    if not isinstance(processor, GameProcessor):
        raise RecipeError(
            "recipe.processor", "reads no games, which task policy_value plays", "Choose game"
        )
    return processor


def _judged(example: Example) -> Judged:
    if not isinstance(example.target, Judged):
        raise DataError(
            example.origin or example.name,
            f"the target is {type(example.target).__name__}; allowed: what to do in a position",
            "Use data: self_play",
        )
    return example.target
