"""How well a model plays: by what is known of positions, and against other players.

Shape legend: N positions, A moves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import nn

from groundup.contracts.games import Game, GameProcessor, Judged, Player
from groundup.core.values import Evaluation, Figure, Table
from groundup.games.exhaustive import worst_results
from groundup.games.labelled import solved_game
from groundup.games.players import Match, RandomPlayer, Rollouts, play_match
from groundup.games.ratings import elo_ratings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from groundup.contracts.tasks import EvaluationContext

__all__ = ["evaluate_player"]

_EQUAL = 1e-6
_OPENINGS = 4  # moves drawn at the beginning of games between checkpoints
_SHOWN = 8  # positions of a game in the report


class _Settings(Protocol):
    @property
    def simulations(self) -> int: ...
    @property
    def opponents(self) -> tuple[int, ...]: ...
    @property
    def match_games(self) -> int: ...
    @property
    def rated(self) -> int: ...

    def player(self, model: nn.Module, processor: GameProcessor, simulations: int) -> Player: ...


def evaluate_player(settings: _Settings, context: EvaluationContext) -> Evaluation:
    """Return how a model plays.

    Held-out positions; every position of a small game; games against random moves, against searches
    without a network, and between checkpoints of the run.
    """
    game: Game = context.processor.game
    searcher = settings.player(context.model, context.processor, settings.simulations)
    alone = settings.player(context.model, context.processor, 0)
    metrics: dict[str, float] = {}
    tables = [_positions(game, {"alone": alone, "": searcher}, context, metrics)]
    if solved_game(game.name) is not None:
        tables.append(_every_position(game, alone, searcher, metrics))
    players: dict[str, Player] = {"random moves": RandomPlayer(game, context.seed)}
    for playouts in settings.opponents:
        players[f"{playouts:,} random games a move"] = Rollouts(game, playouts, context.seed)
    matches = {}
    for name, other in players.items():
        context.progress(f"{settings.match_games} games against {name}")
        matches[name] = play_match(game, searcher, other, settings.match_games, seed=context.seed)
    tables.append(_matches(matches, settings.simulations, metrics))
    if settings.rated:
        tables.append(_ratings(settings, context, searcher, players))
    last = list(matches)[-1]
    figures = [_game_shown(game, searcher, matches[last], f"against {last}")]
    return Evaluation(metrics, tables, figures)


def _share(count: float, total: int) -> str:
    """Return a share with its 95% interval, Wilson's."""
    if not total:
        return "none"
    share = count / total
    z = 1.96
    # Not the usual one, which of 0 errors would say that there can be none.
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    half /= 1 + z * z / total
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return f"{share:.1%} ({low:.1%} to {high:.1%})"


def _positions(
    game: Game, players: dict[str, Player], context: EvaluationContext, metrics: dict[str, float]
) -> Table:
    examples = list(context.examples(context.held_out))
    targets: list[Judged] = [example.target for example in examples]
    states = np.concatenate([game.read(str(example.inputs)) for example in examples])
    policy = np.stack([target.policy for target in targets])
    values = np.array([target.value for target in targets], np.float32)
    # Who is about to win is found by a search of any kind: the others tell players apart.
    quiet = ~_is_won_at_once(game, states)
    rows: list[tuple[str | float | int | None, ...]] = []
    for name, player in players.items():
        found = player(states, np.arange(len(states)))
        chosen = np.take_along_axis(policy, found.moves[:, None], 1)[:, 0]
        errs = chosen < policy.max(1) - _EQUAL
        prefix = f"{name}_" if name else ""
        metrics[f"{prefix}move_errors"] = float(errs.mean())
        if quiet.any():
            metrics[f"{prefix}quiet_move_errors"] = float(errs[quiet].mean())
        metrics[f"{prefix}value_mae"] = float(np.abs(found.values - values).mean())
        rows.append(
            (
                name or "with search",
                _share(int(errs.sum()), len(states)),
                _share(int(errs[quiet].sum()), int(quiet.sum())),
                metrics[f"{prefix}value_mae"],
            )
        )
    known = "known exactly" if targets[0].exact else "as a search with random games finds them"
    note = (
        f"{len(states):,} positions of random games, in which one move at least is worse than"
        f" another; the best moves are {known}. In {int(quiet.sum()):,} of them no move wins at"
        " once. In brackets: 95% intervals."
    )
    columns = ("player", "errs", "errs where no move wins at once", "value is off by")
    return Table("Moves in positions with a known answer", columns, rows, note)


def _is_won_at_once(game: Game, states: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (N,) whether a move of positions wins at once."""
    found = np.zeros(len(states), np.bool_)
    players = game.player(states)
    legal = game.legal(states)
    for move in range(game.moves):
        rows = np.flatnonzero(legal[:, move] & ~found)
        if len(rows):
            after = game.play(states[rows], np.full(len(rows), move))
            over, values = game.outcome(after)
            # Of a game that is over some rules name the first player, whose turn it would not be.
            same = game.player(after) == players[rows]
            found[rows] = over & (np.where(same, values, -values) > 0)
    return found


def _every_position(
    game: Game, alone: Player, searcher: Player, metrics: dict[str, float]
) -> Table:
    solved = solved_game(game.name)
    assert solved is not None
    rows: list[tuple[str | float | int | None, ...]] = []
    for name, player in (("alone", alone), ("", searcher)):
        found, perfect, second = worst_results(solved, partial(_moves_of, player))
        lost = int(((found < 0) & (perfect >= 0)).sum())
        given_away = int((found < perfect).sum()) - lost
        prefix = f"{name}_" if name else ""
        metrics[f"{prefix}lost_positions_errors"] = lost
        words = {1: "wins", 0: "draws", -1: "loses"}
        ends = f"{words[int(found[-1])]}, {words[int(second)]}"
        rows.append((name or "with search", lost, given_away, ends))
    note = (
        f"Against every way to play, from each of {len(perfect):,} positions with a move to choose"
        " that anybody can reach."
    )
    columns = ("player", "loses without need", "wins less than possible", "begins, follows")
    return Table("Exhaustive play", columns, rows, note)


def _moves_of(player: Player, states: NDArray[Any]) -> NDArray[np.int64]:
    return player(states, np.zeros(len(states), np.int64)).moves


def _matches(matches: dict[str, Match], simulations: int, metrics: dict[str, float]) -> Table:
    rows: list[tuple[str | float | int | None, ...]] = []
    for name, match in matches.items():
        games = len(match.results)
        won = match.count(1)
        key = "random" if name == "random moves" else "rollouts_" + name.split()[0].replace(",", "")
        metrics[f"win_rate_{key}"] = won / games
        as_first = f"{match.count(1, began=True)} of {games // 2}"
        as_second = f"{match.count(1, began=False)} of {games // 2}"
        rows.append(
            (name, _share(won, games), match.count(0), match.count(-1), as_first, as_second)
        )
    columns = ("opponent", "won", "drawn", "lost", "won when it began", "won when it followed")
    note = f"The model searches {simulations} simulations a move. In brackets: 95% intervals."
    return Table("Games against other players", columns, rows, note)


def _ratings(
    settings: _Settings, context: EvaluationContext, last: Player, players: dict[str, Player]
) -> Table:
    """Let checkpoints of the run and the other players play each other."""
    game: Game = context.processor.game
    everyone = dict(players)
    for step, model in _some(list(context.checkpoints), settings.rated):
        everyone[f"step {step:,}"] = settings.player(
            model(), context.processor, settings.simulations
        )
    everyone["the model evaluated"] = last
    names = list(everyone)
    count = len(names)
    scores = np.zeros((count, count))
    games = np.zeros((count, count))
    # Half as many games a pair: there are many pairs.
    each = max(2, settings.match_games // 4 * 2)
    for a, b in itertools.combinations(range(count), 2):
        # Searchers without a network take long, and are measured above.
        if names[a] in players and names[b] in players and {a, b} != {0, 1}:
            continue
        context.progress(f"{each} games of {names[a]} against {names[b]}")
        match = play_match(
            game,
            everyone[names[a]],
            everyone[names[b]],
            each,
            openings=min(_OPENINGS, game.longest // 3),
            seed=context.seed,
        )
        scores[a, b] = match.score * each
        scores[b, a] = (1 - match.score) * each
        games[a, b] = games[b, a] = each
    elo = elo_ratings(scores, games)
    rows: list[tuple[str | float | int | None, ...]] = [
        (
            names[n],
            round(float(elo[n])),
            f"{scores[n].sum():g} of {games[n].sum():g}",
        )
        for n in np.argsort(-elo).tolist()
    ]
    note = (
        f"Elo by Bradley and Terry's model, random moves being 0; {each} games a pair, which begin"
        f" with {min(_OPENINGS, game.longest // 3)} random moves, both ways round."
    )
    return Table("Ratings of the run's checkpoints", ("player", "Elo", "points"), rows, note)


def _some(checkpoints: list[Any], count: int) -> Iterator[Any]:
    """Yield so many of the checkpoints, evenly spread."""
    # The first and the last are always among them.
    places = np.linspace(0, len(checkpoints) - 1, min(count, len(checkpoints)))
    for place in sorted(set(places.round().astype(int).tolist())):
        yield checkpoints[place]


def _game_shown(game: Game, player: Player, match: Match, against: str) -> Figure:
    """Return positions of a game in which the model is to move, with what it thinks of them."""
    number = 0
    states = game.start(1)
    # The opponent thinks otherwise: only the model has a network to show.
    turns: list[tuple[NDArray[Any], int]] = []
    for move in match.moves[number]:
        if game.player(states)[0] == number % 2:
            turns.append((states, move))
        states = game.play(states, np.array([move]))
    items = []
    for place in _some(list(range(len(turns))), _SHOWN):
        position, move = turns[place]
        found = player(position, np.zeros(1, np.int64))
        legal = np.flatnonzero(game.legal(position)[0])
        items.append(
            {
                "rows": game.board(position[0]),
                "played": game.move_name(position[0], move),
                "value": float(found.values[0]),
                "moves": [
                    {
                        "name": game.move_name(position[0], int(each)),
                        "prior": float(found.priors[0, each]),
                        "share": float(found.policy[0, each]),
                        "gain": float(found.gains[0, each]),
                        "visits": float(found.visits[0, each]),
                    }
                    for each in legal[np.argsort(-found.policy[0, legal], kind="stable")]
                ],
            }
        )
    ends = {1: "won", 0: "drawn", -1: "lost"}[int(np.sign(match.results[number]))]
    note = (
        "Of each move: how often the network alone would play it, how often after the search, what"
        " it brings, and how often it was tried. x began: the model."
    )
    return Figure("boards", f"A game {against}, {ends}", {"items": items}, note)
