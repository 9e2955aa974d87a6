"""What is said of a data set of speech: how much there is, what is left out, what looks like a
mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from groundup.data.reading.sound_facts import SoundFacts
from groundup.data.reading.utterances import Transcripts, Utterance, shown
from groundup.data.splitting.held_out import lengths_of, warn_of_other_labels

__all__ = [
    "count_left_out",
    "describe_sounds",
    "describe_unknown",
    "left_out_of",
    "notes_of",
    "warn_of_unknown",
]

_SHOWN = 20  # names and characters in a data card


def left_out_of(
    transcripts: Transcripts, facts: Mapping[str, SoundFacts], max_seconds: float | None
) -> dict[str, list[str]]:
    """Return the names of what cannot be used, by the reason."""
    named = dict(transcripts.left_out())
    if bad := sorted(name for name, each in facts.items() if each.problem):
        named["sounds that cannot be read"] = [f"{n} ({facts[n].problem})" for n in bad]
    if max_seconds is not None and (
        long := [
            f"{name} ({each.seconds:,.1f} s)"
            for name, each in sorted(facts.items())
            if each.seconds > max_seconds
        ]
    ):
        named[f"sounds longer than max_seconds {max_seconds:g}"] = long
    return named


def notes_of(
    transcripts: Transcripts,
    facts: Mapping[str, SoundFacts],
    max_seconds: float | None,
    texts: Mapping[str, str],
) -> list[str]:
    """Return a line for each reason why something is left out, or may be a mistake.

    Args:
        transcripts: What was read.
        facts: Of the sounds, by their names.
        max_seconds: Longer ones are left out.
        texts: The transcripts by the same names.
    """
    notes = [
        f"{len(names):,} {reason} are left out: {shown(names)}"
        for reason, names in left_out_of(transcripts, facts, max_seconds).items()
    ]
    digests = {name: each.digest for name, each in facts.items() if not each.problem}
    if warning := warn_of_other_labels(digests, texts, "sounds"):
        notes.append(warning.replace("label", "transcript"))
    return [*transcripts.warnings, *notes]


def count_left_out(named: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return how many are left out by the reason, with the first names, for a data card."""
    return {
        reason: {"count": len(names), "first": list(names[:_SHOWN])}
        for reason, names in named.items()
    }


def describe_sounds(own: Sequence[Utterance], facts: Mapping[str, SoundFacts]) -> dict[str, Any]:
    """Return how many sounds there are, and how long they and their transcripts are."""
    seconds = [facts[each.name].seconds for each in own]
    about: dict[str, Any] = {
        "sounds": len(own),
        "minutes": round(sum(seconds) / 60, 2),
        "words": sum(len(each.text.split()) for each in own),
        "different_transcripts": len({each.text for each in own}),
    }
    if speakers := {each.speaker for each in own if each.speaker}:
        about["speakers"] = len(speakers)
    about |= lengths_of(seconds, "seconds")
    about["transcripts"] = lengths_of([len(each.text) for each in own], "characters")
    rates = [len(e.text) / s for e, s in zip(own, seconds, strict=True) if s]
    return about | {"characters_a_second": lengths_of(rates, "characters")}


def describe_unknown(own: Sequence[Utterance], train: Sequence[Utterance]) -> dict[str, Any]:
    """Return what of held-out transcripts is not in those of training: characters, which no model
    can have learned; and how many are."""
    known = {character for each in train for character in each.text}
    texts = {each.text for each in train}
    other = Counter(c for each in own for c in each.text if c not in known)
    return {
        "characters_not_in_training": dict(other.most_common(_SHOWN)),
        "same_transcript_in_training": sum(each.text in texts for each in own),
    }


def warn_of_unknown(split: str, about: Mapping[str, Any]) -> list[str]:
    """Return a warning of characters that only held-out transcripts have, or none.

    Args:
        split: The split.
        about: What ``describe_unknown`` returned.
    """
    other = about["characters_not_in_training"]
    if not other:
        return []
    named = ", ".join(f"{character!r} {count:,}" for character, count in other.items())
    return [f"characters of {split} transcripts that are in no training transcript: {named}"]
