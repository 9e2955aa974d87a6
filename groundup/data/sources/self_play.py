"""Games that the current weights play against themselves.

Shape legend: N positions, A moves, C planes, H rows, W columns.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor, nn

from groundup.contracts.data import DataContext, DataSource, Stream
from groundup.contracts.experience import ExperienceStream
from groundup.contracts.games import Evaluate, Game, Judged
from groundup.core.errors import DataError
from groundup.core.registry import data
from groundup.core.settings import setting
from groundup.core.values import Batch, Example, Split
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.games.catalogue import find_game
from groundup.games.labelled import labelled_positions
from groundup.games.network import thoughts_of
from groundup.games.remembered import Remembered
from groundup.games.self_play import Experience, PlaySettings, SearchSettings, play_round

__all__ = ["SelfPlay"]

_log = logging.getLogger("groundup")
_PAST = "past/"  # what the names of past selves' tensors begin with
_WRONGLY = 0.05  # share of wrong resignations from which it is said


@data("self_play")
class SelfPlay(DataSource):
    """Positions of games that the model plays against itself, made again and again with the weights
    of then; held out are positions with what is right in them, which nobody learns from."""

    game: str = setting(..., "tic_tac_toe, connect_four, or a game of OpenSpiel by its name")
    games: int = setting(128, "Games of a round, all played at the same time", ge=1, le=100_000)
    every: int = setting(50, "Steps after which a new round is played", ge=1)
    buffer: int = setting(50_000, "Positions that are kept to learn from, the newest", ge=1)
    search: SearchSettings = setting(SearchSettings(), "How each move is searched")
    openings: int = setting(
        0, "A game begins with up to this many random moves, not learned from", ge=0
    )
    fast_share: float = setting(
        0.0, "Share of moves that are searched shortly and not learned from", ge=0, lt=1
    )
    fast_simulations: int = setting(8, "Simulations of these, with fast_share above 0", ge=1)
    search_value: float = setting(
        0.0,
        "Share of the search's value in what is learned; the rest: how games ended",
        ge=0,
        le=1,
    )
    resign_below: float | None = setting(
        None, "Give up where the search expects less, -1 to 0; null: never", ge=-1, le=0
    )
    past_share: float = setting(0.0, "Share of games against a past self", ge=0, le=1)
    past_selves: int = setting(4, "Past selves that are kept, with past_share above 0", ge=1)
    past_every: int = setting(5, "Rounds between them, with past_share above 0", ge=1)
    held_out: int = setting(400, "Positions for validation, and as many to test", ge=1)
    seed: int = setting(0, "Another seed holds other positions out", ge=0)

    @model_validator(mode="after")
    def _shares_have_an_effect(self) -> SelfPlay:
        for share, names in (
            ("fast_share", ("fast_simulations",)),
            ("past_share", ("past_selves", "past_every")),
        ):
            for name in names:
                default = type(self).model_fields[name].default
                if not dict(self)[share] and dict(self)[name] != default:
                    raise ValueError(
                        f"{name} has no effect with {share}: 0. Remove {name} or set {share}"
                    )
        if self.fast_share and self.fast_simulations >= self.search.simulations:
            raise ValueError(
                f"fast_simulations is {self.fast_simulations}, but a full search has"
                f" {self.search.simulations}. Lower it"
            )
        return self

    def splits(self) -> tuple[Split, ...]:
        """Return the splits there are."""
        return ("train", "validation", "test")

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return labelled positions of a held-out split; to train, only the first position.

        Raises:
            MissingExtraError: If the game is OpenSpiel's, which is not installed.
            RecipeError: If there is no such game, or it has chance or hidden information.
        """
        game = find_game(self.game)
        if split == "train":
            # Nothing is learned from it: it tells the processor which game is played.
            alike = np.full(game.moves, 1 / game.moves, np.float32)
            return [Example("start", "", Judged(self.game, alike, 0.0, exact=False))]
        return list(labelled_positions(game, self.held_out, self.seed, int(split == "test"))[0])

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        if context.split == "train":
            return _SelfPlayStream(self, context)
        return open_indexed_stream(self.examples(context.split, context.cache), context)

    def contents(self) -> Mapping[str, Path | str]:
        """Return what the held-out positions follow from."""
        return {"positions": f"{self.game}, {self.held_out}, {self.seed}"}

    def card(self, cache: Path) -> dict[str, Any]:
        """Return what is played, and how many positions are held out."""
        game = find_game(self.game)
        _, words = labelled_positions(game, self.held_out, self.seed, 0)
        held_out = {split: len(self.examples(split, cache)) for split in ("validation", "test")}
        return {
            "source": f"games of {self.game} that the model plays against itself",
            "moves": game.moves,
            "planes": list(game.planes),
            "labels of held-out positions": words,
            **held_out,
        }

    @property
    def play_settings(self) -> PlaySettings:
        """How games are played."""
        return PlaySettings(
            self.search,
            self.openings,
            self.fast_share,
            self.fast_simulations,
            self.resign_below,
            self.past_share,
        )


def _no_partners(which: int = 0) -> Batch:
    raise DataError("data self_play", "mixes no positions", "Use task: policy_value")


class _SelfPlayStream(ExperienceStream):
    """Rounds of games, in the order of their numbers."""

    def __init__(self, source: SelfPlay, context: DataContext) -> None:
        super().__init__(context, source.every, source.buffer)
        self._source = source
        self._context = context
        self._past: Batch = {}  # weights of past selves, by place and name
        self._game: Game = find_game(source.game)

    @property
    def samples_per_epoch(self) -> int:
        """As many samples as the buffer holds positions."""
        return self._source.buffer

    def make(self, model: nn.Module, step: int) -> Batch:
        """Return the positions of a round of games."""
        source = self._source
        evaluate = Remembered(self._game, thoughts_of(model, self._game))
        past = self._past_selves(model)
        first = int(self.cursor.get("games", 0))
        found: Experience | None = None
        # Of few games all moves may be openings or searched shortly.
        while found is None or not len(found.states):
            numbers = np.arange(first, first + source.games)
            found = play_round(self._game, source.play_settings, evaluate, past, self.seed, numbers)
            first += source.games
        self.cursor["games"] = first
        self._report(found, step)
        # How a game ended says much about its last moves and little about its first.
        values = (1 - source.search_value) * found.ended + source.search_value * found.searched
        return {
            "inputs": torch.from_numpy(self._game.encode(found.states)),
            "policy": torch.from_numpy(found.policy),
            "legal": torch.from_numpy(self._game.legal(found.states)),
            "value": torch.from_numpy(values.astype(np.float32)),
        }

    def __next__(self) -> Batch:
        context = self._context
        first = self.state_dict()["samples"] + context.rank * context.micro_batch_size
        batch = super().__next__()
        if context.augment is None:
            return batch
        return context.augment(batch, first + np.arange(len(batch["value"])), _no_partners)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._past = {}

    def buffer(self) -> Batch:
        """Return the positions, and the weights of past selves."""
        return super().buffer() | self._past

    def load_buffer(self, tensors: Batch) -> None:
        """Go on with what was saved."""
        self._past = {name: x for name, x in tensors.items() if name.startswith(_PAST)}
        super().load_buffer({name: x for name, x in tensors.items() if name not in self._past})

    def _past_selves(self, model: nn.Module) -> list[Evaluate]:
        """Return the past selves to play against; now and then the model becomes one."""
        source = self._source
        if not source.past_share:
            return []
        rounds = int(self.cursor.get("rounds", 0))
        self.cursor["rounds"] = rounds + 1
        if rounds % source.past_every == 0:
            place = rounds // source.past_every % source.past_selves
            # Copied: the optimizer changes the weights in place.
            for name, values in model.state_dict().items():
                self._past[f"{_PAST}{place}.{name}"] = values.detach().cpu().clone()
        places = sorted({name.split(".")[0].removeprefix(_PAST) for name in self._past}, key=int)
        selves = [thoughts_of(model, self._game, self._weights(place)) for place in places]
        return [Remembered(self._game, thoughts) for thoughts in selves]

    def _weights(self, place: str) -> dict[str, Tensor]:
        start = f"{_PAST}{place}."
        return {
            name.removeprefix(start): values
            for name, values in self._past.items()
            if name.startswith(start)
        }

    def _report(self, found: Experience, step: int) -> None:
        won, drawn, lost = found.results
        games = won + drawn + lost
        _log.debug(
            "step %d: %d games of self-play, %d positions; the beginner won %d, drew %d, lost %d",
            step,
            games,
            len(found.states),
            won,
            drawn,
            lost,
        )
        watched, wrong = found.unresigned
        before = self.cursor.get("unresigned", [0, 0])
        self.cursor["unresigned"] = [before[0] + watched, before[1] + wrong]
        if wrong and wrong > _WRONGLY * watched:
            _log.warning(
                "data.resign_below: of %d games that were played on to see, %d would have been"
                " given up wrongly",
                watched,
                wrong,
            )
