"""Names and other spans of words, as labels of their words say: B- begins one, I- goes on, O is
outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["Span", "are_spans", "span_measures", "spans_of"]

Span = tuple[str, int, int]  # kind, first word, the word after the last


def are_spans(labels: Sequence[str]) -> bool:
    """Whether labels are of spans: each is O, or begins with B- or I-, and some begin with B-."""
    return all(label == "O" or label[:2] in ("B-", "I-") for label in labels) and any(
        label.startswith("B-") for label in labels
    )


def spans_of(labels: Sequence[str]) -> list[Span]:
    """Return the spans of a sentence; an I- that goes on with nothing, or with another kind, begins
    one.

    Source:
        Ramshaw and Marcus, 1995 (arXiv:cmp-lg/9505040), section 4, with B- at every beginning. What
        begins where labels
        contradict each other: as the CoNLL-2000 shared task counts (Tjong Kim Sang and Buchholz,
            2000, section 4).
    """
    found: list[Span] = []
    kind = ""
    start = 0
    for place, label in enumerate([*labels, "O"]):  # the added O ends what is open at the end
        own = label[2:] if label != "O" else ""
        if kind and (label == "O" or label.startswith("B-") or own != kind):
            found.append((kind, start, place))
            kind = ""
        if own and not kind:
            kind = own
            start = place
    return found


def span_measures(
    true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> tuple[dict[str, float], dict[str, tuple[float, float, float, int]]]:
    """Return precision, recall and F1 of spans, right where kind and both ends are; and each kind's
    with its count."""
    right: Counter[str] = Counter()
    wanted: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for one, other in zip(true, predicted, strict=True):
        own, guessed = set(spans_of(one)), set(spans_of(other))
        for counts, spans in ((wanted, own), (given, guessed), (right, own & guessed)):
            counts.update(kind for kind, _, _ in spans)
    precision, recall, f1 = _scores(right.total(), given.total(), wanted.total())
    kinds = {
        kind: (*_scores(right[kind], given[kind], wanted[kind]), wanted[kind])
        for kind in sorted(wanted | given)
    }
    return {"span_precision": precision, "span_recall": recall, "span_f1": f1}, kinds


def _scores(right: int, given: int, wanted: int) -> tuple[float, float, float]:
    # By counts, F1 needs no case for precision and recall of 0.
    return right / max(given, 1), right / max(wanted, 1), 2 * right / max(given + wanted, 1)
