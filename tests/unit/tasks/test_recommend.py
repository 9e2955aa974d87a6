"""Losses, lists and baselines of recommendation, each compared with a plain computation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recommendations import write_interactions
from safetensors.torch import load_file

from groundup import api
from groundup.contracts.recommendation import Choice, UserHistory
from groundup.core.values import IGNORED, Example
from groundup.export.export_run import export_run
from groundup.metrics.ranking import coverage, interval, mean_popularity, rank_chosen
from groundup.processors.interactions import InteractionsConfig, InteractionsProcessor
from groundup.runs.processor import load_processor
from groundup.tasks.recommend.baselines import Biases, SimpleMethods
from groundup.tasks.recommend.losses import (
    bpr_losses,
    rating_errors,
    sampled_softmax_losses,
    softmax_losses,
)
from groundup.tasks.recommend.rows import (
    draw_items,
    draw_window,
    encode_examples,
    hide_items,
)
from groundup.tasks.recommend.scoring import explain, model_scores, top_items
from groundup.tasks.recommend.task import Recommend
from groundup.tasks.recommend.transitions import Transitions, log_shares

TARGETS = torch.tensor([[2, 1, 3], [4, IGNORED, IGNORED]])
BATCH = {"next_tokens": TARGETS, "trained_items": torch.tensor([4, 4])}


def processor_of(histories: dict[str, str], **settings: Any) -> InteractionsProcessor:
    examples = [
        Example(user, UserHistory(user), Choice(tuple(items), tuple(range(1, len(items) + 1))))
        for user, items in histories.items()
    ]
    found = InteractionsConfig(**settings).fit(lambda: iter(examples))
    return found.with_max_history(4)


# ------------------------------------------------------------------------------------------ losses
def test_the_softmax_is_over_the_items_of_training() -> None:
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 7)
    losses = softmax_losses(scores, BATCH)
    for row, place, item in ((0, 0, 2), (0, 1, 1), (0, 2, 3), (1, 0, 4)):
        plain = F.cross_entropy(scores[row, place, 1:5], torch.tensor(item - 1))
        assert losses[row, place] == pytest.approx(float(plain), rel=1e-5)
    assert (losses[1, 1:] == 0).all()
    alone = softmax_losses(scores[:, 0], BATCH)
    assert alone[0, 1] == pytest.approx(
        float(F.cross_entropy(scores[0, 0, 1:5], torch.tensor(0))), rel=1e-5
    )


def test_further_items_count_less() -> None:
    torch.manual_seed(0)
    scores = torch.randn(1, 3, 5)
    batch = {"next_tokens": TARGETS[:1], "trained_items": torch.tensor([4])}
    log_p = scores[0, :, 1:5].log_softmax(-1)
    found = softmax_losses(scores, batch, 2)[0]
    second = 2**-0.5
    first = -(log_p[0, 1] + second * log_p[0, 0]) / (1 + second)
    assert found[0] == pytest.approx(float(first), rel=1e-5)
    assert found[2] == pytest.approx(float(-log_p[2, 2]), rel=1e-5)


def test_drawn_items_estimate_the_softmax_without_bias() -> None:
    processor = processor_of({"u": "abcab", "v": "aaad"})
    torch.manual_seed(0)
    scores = torch.randn(5)
    rows = 20000
    samples = np.arange(rows)
    drawn = draw_items(processor, samples, 0, 3, 0.7)
    candidates = torch.cat([torch.full((rows, 1), 2), drawn["drawn"]], 1)
    batch = {"next_tokens": torch.full((rows, 1), 2), **drawn}
    losses = sampled_softmax_losses(scores[candidates], batch)
    # exp(loss) is the sum over all items, over what was chosen
    estimate = float((losses + scores[2]).exp().mean())
    assert estimate == pytest.approx(float(scores[1:].exp().sum()), rel=0.02)


def test_draws_depend_on_the_sample_alone() -> None:
    processor = processor_of({"u": "abcd"})
    both = draw_items(processor, np.array([3, 9]), 1, 5, 0.0)["drawn"]
    alone = draw_items(processor, np.array([9]), 1, 5, 0.0)["drawn"]
    assert torch.equal(both[1:], alone)
    assert both.min() >= 1
    assert both.max() <= 4


def test_pairs_pass_over_what_was_chosen_itself() -> None:
    scores = torch.tensor([[1.0, 0.5, 1.0]])
    batch = {"next_tokens": torch.tensor([[3]]), "drawn": torch.tensor([[1, 3]])}
    expected = -F.logsigmoid(torch.tensor(0.5))
    assert bpr_losses(scores, batch)[0, 0] == pytest.approx(float(expected))


def test_errors_of_ratings() -> None:
    batch = {"next_tokens": torch.tensor([[3, IGNORED]]), "ratings": torch.tensor([[0.5, 0.0]])}
    assert rating_errors(torch.tensor([[2.0, 7.0]]), batch).tolist() == [[1.5, 0.0]]
    at_each = torch.tensor([[[2.0, 9.0], [9.0, 7.0]]])
    assert rating_errors(at_each, batch).tolist() == [[1.5, 0.0]]


# -------------------------------------------------------------------------------------------- rows
def test_rows_begin_with_a_start_and_are_cut_to_the_latest() -> None:
    processor = processor_of({"u": "abcdef"})
    short = Example("u", UserHistory("u", ("a",)), Choice(("b", "c")))
    long = Example("u", UserHistory("u", tuple("abcde")), Choice(("f",)))
    batch = encode_examples([short, long], processor, hides=False, rated=False)
    assert batch["tokens"].tolist() == [[0, 1, 2, 0], [2, 3, 4, 5]]
    assert batch["next_tokens"].tolist() == [
        [IGNORED, 2, 3, IGNORED],
        [IGNORED, IGNORED, IGNORED, 6],
    ]
    assert batch["lengths"].tolist() == [3, 4]
    assert "histories are longer than max_history 4" in processor.cut.notes()[0]


def test_older_interactions_count_less() -> None:
    day = 86_400.0
    whole = Example("u", UserHistory("u", (), (0.0, day, 3 * day)), Choice(tuple("abc")))
    processor = InteractionsConfig().fit(lambda: iter([whole])).with_max_history(4)
    assert processor.latest == 3 * day
    later = Example("v", UserHistory("v", ("a", "?"), (0.0, day, 9 * day)), Choice(("b",)))
    batch = encode_examples([whole, later], processor, hides=False, rated=False, half_life=2.0)
    expected = [[2**-1.5, 0.5, 1.0], [2**-1.5, 1.0, 1.0]]
    torch.testing.assert_close(batch["weights"], torch.tensor(expected))
    task = Recommend(half_life=2.0)
    scores = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    term = task.loss(scores, batch).terms["choice"]
    each = softmax_losses(scores, batch)
    there = batch["next_tokens"] != IGNORED
    torch.testing.assert_close(term.total, (each * batch["weights"])[there].sum())
    torch.testing.assert_close(term.count, batch["weights"][there].sum())
    with torch.no_grad():  # as in validation
        assert task.loss(scores, batch).terms["choice"].count == 4


def test_hidden_items_are_predicted_and_drawn_by_the_sample() -> None:
    processor = processor_of({"u": "abcdef"})
    whole = Example("u", UserHistory("u"), Choice(tuple("abc")))
    held_out = Example("u", UserHistory("u", tuple("ab")), Choice(tuple("cd")))
    batch = encode_examples([whole, held_out], processor, hides=True, rated=False)
    assert batch["tokens"].tolist() == [[1, 2, 7, 0], [1, 2, 7, 0]]
    assert batch["next_tokens"][0].tolist() == [IGNORED, IGNORED, 3, IGNORED]
    assert batch["lengths"].tolist() == [3, 3]
    hidden = hide_items(batch, np.array([5, 6]), 0, 0.5, 7)
    for row in range(2):
        places = hidden["tokens"][row] == 7
        assert places.any()
        assert (hidden["next_tokens"][row][places] > 0).all()
        assert (hidden["next_tokens"][row][~places] == IGNORED).all()
    alone = {name: values[1:] for name, values in batch.items()}
    again = hide_items(alone, np.array([6]), 0, 0.5, 7)
    assert torch.equal(again["tokens"][0], hidden["tokens"][1])


def test_windows_shuffle_ties_alone() -> None:
    history = UserHistory("u", (), (1.0, 2.0, 2.0, 2.0, 3.0))
    example = Example("u", history, Choice(tuple("abcde"), (1.0, 2.0, 3.0, 4.0, 5.0)))
    found = {
        draw_window(example, sample, 9, 0, shuffle_ties=True).target.items for sample in range(40)
    }
    assert {items[0] + items[-1] for items in found} == {"ae"}
    assert len(found) == 6
    part = draw_window(example, 3, 2, 0, shuffle_ties=False)
    assert "".join(part.target.items) in "abcde"
    assert len(part.inputs.times) == len(part.target.ratings) == 2


# ----------------------------------------------------------------------------------------- ranking
def test_ranks_against_a_plain_computation() -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 6, (30, 12)).astype(float)
    chosen = [generator.choice(12, 1 + n % 3, replace=False) for n in range(30)]
    found = rank_chosen(scores, chosen, 4)
    for user, items in enumerate(chosen):
        # those chosen come last among equals
        order = sorted(range(12), key=lambda n: (-scores[user, n], n in items))
        places = [place for place, n in enumerate(order, 1) if n in items]
        gain = sum(1 / np.log2(place + 1) for place in places if place <= 4)
        best = sum(1 / np.log2(place + 1) for place in range(1, min(len(items), 4) + 1))
        assert found.ndcg[user] == pytest.approx(gain / best)
        assert found.hit_rate[user] == (places[0] <= 4)
        assert found.recall[user] == pytest.approx(sum(place <= 4 for place in places) / len(items))
        assert found.reciprocal[user] == pytest.approx(1 / places[0])


def test_what_cannot_be_scored_is_never_found() -> None:
    scores = np.array([[-np.inf, 1.0, -np.inf]])
    found = rank_chosen(scores, [np.array([2])], 3)
    assert (found.hit_rate[0], found.reciprocal[0]) == (0.0, 0.0)


def test_coverage_popularity_and_intervals() -> None:
    lists = np.array([[1, 2], [1, 0]])
    assert coverage(lists, 4) == 0.5
    assert mean_popularity(lists, np.array([0, 6, 2, 0, 0])) == pytest.approx((6 + 2 + 6) / 3 / 2)
    low, high = interval(np.array([0.0, 1.0] * 50), 0)
    assert 0.38 < low < 0.45 < 0.55 < high < 0.62


def test_reasons_are_what_is_nearest_of_the_history() -> None:
    processor = processor_of({"u": "abcdef"})
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    asked = UserHistory("new", tuple("adec"))
    found = explain(F.normalize(vectors, dim=-1), [2, 6], asked, processor, 3)
    for number, titles in zip((2, 6), found, strict=True):
        cosines = {
            title: float(F.cosine_similarity(vectors[place], vectors[number], dim=0))
            for place, title in ((1, "a"), (4, "d"), (5, "e"), (3, "c"))
        }
        assert titles == sorted(cosines, key=lambda title: -cosines[title])[:3]
    assert explain(vectors, [2], UserHistory("new"), processor, 3) == [[]]


# --------------------------------------------------------------------------------------- baselines
def test_ease_is_each_items_ridge_regression() -> None:
    """Solved column by column with the diagonal left out, as the paper's equation 3 says."""
    generator = np.random.default_rng(0)
    rows = [np.sort(generator.choice(np.arange(1, 7), 3, replace=False)) for _ in range(40)]
    scores = dict(SimpleMethods(rows, 6).all())["EASE"]([np.array([1, 4])])[0]
    matrix = np.zeros((40, 7))
    for n, row in enumerate(rows):
        matrix[n, row] = 1
    for item in range(1, 7):
        others = [n for n in range(1, 7) if n != item]
        x = matrix[:, others]
        weights = np.linalg.solve(x.T @ x + 500 * np.eye(5), x.T @ matrix[:, item])
        expected = sum(weights[others.index(n)] for n in (1, 4) if n != item)
        assert scores[item] == pytest.approx(expected, abs=1e-6)


def test_counts_by_hand() -> None:
    rows = [np.array([1, 2, 3]), np.array([1, 2])]
    methods = dict(SimpleMethods(rows, 3).all())
    assert methods["popularity"]([np.array([3])])[0].tolist() == [0, 2, 2, 1]
    markov = methods["Markov counts"]([np.array([1])])[0]
    near, far = 2.0, 2**-0.5
    assert markov[2] == pytest.approx(near / (near + far + 10), rel=1e-4)
    assert markov[3] == pytest.approx(far / (near + far + 10), rel=1e-4)
    knn = methods["item-kNN"]([np.array([1])])[0]
    assert knn[2] == pytest.approx(2 / (2 + 10))
    assert knn[3] == pytest.approx(1 / (2**0.5 + 10))


def test_what_followed_what_by_hand() -> None:
    processor = processor_of({"u": "abc", "v": "ab"})
    rows = (np.array([1, 2, 3]), np.array([1, 2]))
    far = 2**-0.5
    shares = Transitions(rows, 3, within=10, before=0.5).shares
    assert shares[1, 2] == pytest.approx(2 / (2 + far + 10))
    # b came after a twice, and c after b once: half as much the other way round
    assert shares[2, 1] == pytest.approx(1 / (1 + 1 + 10))
    logs = log_shares([np.array([1]), np.zeros(0, np.int64)], processor.with_rows(rows))
    usual = (2 + 0.5) / (5 + 4 * 0.5)  # b was chosen twice of five times
    found = Transitions(rows, 3, 10, 0.5, 30.0).follow([np.array([1])])[0]
    share = found[2] / found.sum()
    assert logs[0, 2] == pytest.approx(np.log((share + 0.3 * usual) / 1.3), rel=1e-5)
    assert logs[1, 2] == pytest.approx(np.log(usual), rel=1e-5), "nothing is known of what follows"
    np.testing.assert_allclose(np.exp(logs).sum(1), 1.0, rtol=1e-5)


def test_biases_solve_the_ridge_regression() -> None:
    generator = np.random.default_rng(1)
    users, items = generator.integers(1, 5, 60), generator.integers(1, 6, 60)
    ratings = generator.integers(1, 6, 60).astype(float)
    found = Biases(users, items, ratings, damping=5.0, turns=200)
    design = np.zeros((60, 9))
    design[np.arange(60), users - 1] = 1
    design[np.arange(60), items + 3] = 1
    ridge = design.T @ design + 5 * np.eye(9)
    exact = np.linalg.solve(ridge, design.T @ (ratings - ratings.mean()))
    np.testing.assert_allclose(found.user[1:], exact[:4], atol=1e-6)
    np.testing.assert_allclose(found.item[1:], exact[4:], atol=1e-6)
    assert found.predict(np.array([0, 99]), np.array([0, 99])).tolist() == [ratings.mean()] * 2


# ------------------------------------------------------------------------------------ in a run
@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recommend")
    recipe = {
        "name": "tiny",
        "model": {"name": "two_tower", "width": 8, "hidden": 0},
        "task": {"name": "recommend", "k": 5},
        "data": write_interactions(folder, 30),
        "processor": "interactions",
        "training": {"batch_size": 8, "steps": 12},
        "machine": {"device": "cpu", "threads": 1},
    }
    return api.train(recipe, runs=folder).folder


@pytest.mark.slow
def test_what_was_seen_is_left_out_and_reasons_are_of_the_history(run: Path) -> None:
    predictor = api.load(run)
    processor = predictor.processor
    found = predictor("u3", k=4)
    seen = set(processor.about.seen["u3"])
    assert len(found) == 4
    assert not {each["item"] for each in found} & seen
    titles = {processor.about.titles[item] for item in seen}
    assert all(set(each["because"]) <= titles for each in found)
    assert found[0]["title"].startswith("row ")
    new = predictor({"user": "new", "digit": "digit 3", "third": 1})
    assert len(new) == 5
    assert new[0]["because"] == []


@pytest.mark.slow
def test_top_items_are_exact_in_chunks(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = api.load(run)
    processor = predictor.processor
    asked = [processor.as_history(user) for user in processor.users]
    whole = top_items(predictor.model, asked, processor, 6)
    monkeypatch.setattr("groundup.tasks.recommend.scoring.AT_ONCE", 7)
    parts = top_items(predictor.model, asked, processor, 6)
    np.testing.assert_array_equal(whole[0], parts[0])
    assert (np.diff(whole[1], axis=1) <= 0).all()


@pytest.mark.slow
def test_what_followed_is_added_to_the_scores(run: Path, tmp_path: Path) -> None:
    predictor = api.load(run)
    rows = [np.arange(1, 9), np.arange(3, 7)]
    processor = predictor.processor.with_rows(rows)
    processor.save(tmp_path)
    again: Any = load_processor(tmp_path)
    asked = [processor.as_history(user) for user in processor.users[:5]]
    alone = torch.cat(list(model_scores(predictor.model, asked, processor)))
    both = torch.cat(list(model_scores(predictor.model, asked, again, 0.3)))
    counted = log_shares([processor.item_numbers(each.items) for each in asked], processor)
    expected = 0.7 * alone.log_softmax(-1) + 0.3 * torch.from_numpy(counted)
    assert not both.isnan().any(), "what is left out stays at minus infinity"
    torch.testing.assert_close(both, expected)


@pytest.mark.slow
def test_the_processor_comes_back_from_its_files(run: Path, tmp_path: Path) -> None:
    processor: Any = load_processor(run / "processor")
    processor.save(tmp_path)
    again: Any = load_processor(tmp_path)
    assert again.sizes == processor.sizes
    assert again.about.seen == processor.about.seen
    columns, others = processor.item_columns(), again.item_columns()
    assert all(torch.equal(columns[name], others[name]) for name in columns)


@pytest.mark.slow
def test_every_table_says_whether_seen_items_are_ranked(run: Path) -> None:
    found = api.evaluate(run)["runs"][0]["evaluation"]
    metrics = found["metrics"]
    assert {
        "hr_at_5",
        "ndcg_at_5_unmasked",
        "baseline_ease_ndcg_at_5",
        "baseline_markov_counts_hr_at_5",
    } <= set(metrics)
    for table in found["tables"]:
        assert "what was seen" in table["title"]
    methods = [row[0] for row in found["tables"][0]["rows"]]
    assert methods == ["this run", "popularity", "item-kNN", "EASE", "Markov counts"]


@pytest.mark.slow
def test_vectors_go_out_as_files(run: Path) -> None:
    folder = export_run(run, "vectors")
    vectors = load_file(folder / "vectors.safetensors")
    lines = (folder / "items.jsonl").read_text(encoding="utf-8").splitlines()
    predictor = api.load(run)
    number = predictor.processor.user_number("u3")
    scores = vectors["items"] @ vectors["users"][number - 1] + vectors["item_biases"]
    seen = set(predictor.processor.about.seen["u3"])
    ids = [json.loads(line)["item"] for line in lines]
    best = max((n for n, item in enumerate(ids) if item not in seen), key=lambda n: scores[n])
    assert ids[best] == predictor("u3")[0]["item"]
