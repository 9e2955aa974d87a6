"""How the tokens of a text are chosen."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from groundup.core.settings import Settings, setting

__all__ = ["FILTERS", "DecodingOptions"]

FILTERS = ("top_k", "top_p", "min_p")
"""Options that leave out tokens before one is drawn."""


class DecodingOptions(Settings):
    """How the next token is chosen. Applied in this order: what may not be written, penalty,
    temperature, top_k, top_p, min_p.

    With several beams no token is drawn: the texts with the best scores are searched for.
    """

    max_new_tokens: int = setting(128, "The most tokens to write", ge=1)
    temperature: float = setting(
        0.8, "Flattens (> 1) or sharpens (< 1) the choice; 0 takes the likeliest token", ge=0
    )
    top_k: int | None = setting(None, "Choose among this many likeliest tokens", ge=1)
    top_p: float | None = setting(
        None, "Choose among the likeliest tokens that hold this probability", gt=0, le=1
    )
    min_p: float | None = setting(
        None, "Drop tokens below this share of the likeliest one's probability", ge=0, le=1
    )
    repetition_penalty: float = setting(
        1.0, "Divides the scores of tokens already in the text", gt=0
    )
    seed: int = setting(
        0, "Each row draws from its own generator, a function of the seed and its number", ge=0
    )
    stop: tuple[str, ...] = setting((), "Texts that end the answer; they are cut off")
    overflow: Literal["roll", "stop"] = setting(
        "roll",
        "When the context is full: roll drops the older half of it and reads the rest again; stop"
        " ends the text",
    )

    min_new_tokens: int = setting(0, "No text ends before it has this many tokens", ge=0)
    no_repeat_ngram: int | None = setting(
        None, "No sequence of this many tokens is written twice; null: any may be", ge=1
    )
    suppress_tokens: tuple[int, ...] = setting((), "Tokens that are never written")
    begin_suppress_tokens: tuple[int, ...] = setting((), "Tokens that no text begins with")
    first_token: int | None = setting(
        None, "Token that every text begins with, whatever its probability; it counts as written"
    )
    beams: int = setting(
        1, "Texts that are written at once, of which the best is taken; needs temperature 0", ge=1
    )
    length_penalty: float = setting(
        1.0,
        "Of beams: a text's score is its log-probability divided by its length to the power of"
        " this; higher prefers longer texts",
    )
    early_stopping: bool = setting(
        False, "Of beams: stop as soon as there are as many whole texts as beams"
    )
    n_best: int = setting(1, "Return this many of the best texts, at most as many as beams", ge=1)

    @model_validator(mode="after")
    def _beams_search(self) -> DecodingOptions:
        if self.beams > 1 and self.temperature > 0:
            raise ValueError(
                f"beams {self.beams} search for the likeliest text, but temperature"
                f" {self.temperature:g} draws. Use temperature 0, or beams 1"
            )
        if self.n_best > self.beams:
            raise ValueError(
                f"n_best {self.n_best} is more than beams {self.beams}. Use as many beams"
            )
        # A setting without effect is an error, as everywhere in a recipe.
        if self.beams == 1 and (self.length_penalty != 1.0 or self.early_stopping):
            name = "early_stopping" if self.early_stopping else "length_penalty"
            raise ValueError(f"{name} has no effect with one beam. Remove it, or use more beams")
        if self.beams > 1 and self.repetition_penalty != 1.0:
            raise ValueError(
                "repetition_penalty is not built for several beams. Use no_repeat_ngram, or beams 1"
            )
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens {self.min_new_tokens} is more than max_new_tokens"
                f" {self.max_new_tokens}. Use less"
            )
        return self

    @model_validator(mode="after")
    def _sampling_samples(self) -> DecodingOptions:
        for name in FILTERS:
            if self.temperature == 0 and dict(self)[name] is not None:
                raise ValueError(
                    f"{name} has no effect with temperature 0, which takes the likeliest token."
                    f" Remove {name} or raise temperature"
                )
        # Every text contains the empty one.
        if "" in self.stop:
            raise ValueError(
                "stop holds an empty text, which would end every answer at once. Remove it"
            )
        return self
