"""The settings of the task text_to_text, and which of them contradict each other."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import model_validator

from groundup.contracts.tasks import Task
from groundup.core.settings import setting
from groundup.generation.options import DecodingOptions
from groundup.metrics.generated_text import BleuTokenizer, TextMetric
from groundup.metrics.text_baselines import BASELINES, TextBaseline
from groundup.tasks.shared.text_generation import decoding_options

__all__ = ["TextToTextSettings"]


class TextToTextSettings(Task):
    """How texts are read, learned, written and compared."""

    unit: ClassVar[str] = "tokens"
    file_source: ClassVar[str] = "parallel_text"

    max_source_tokens: int = setting(
        256, "The most tokens of an input, its end included; a longer one is cut", ge=2
    )
    source_cut: Literal["end", "middle"] = setting(
        "end",
        "Where an input that is too long is cut; middle: half of what is read is its beginning, and"
        " half its end",
    )
    max_target_tokens: int = setting(
        256, "The most tokens of an output, its end included; a longer one is cut at its end", ge=2
    )
    prefix: str = setting(
        "", "Put before every input, such as 'summarize: ' for weights that were trained with it"
    )
    suffix: str = setting(
        "",
        "Put after every input, also after one that is cut; without one, what a language model"
        " goes on from ends in the end token",
    )
    decoder_only: bool = setting(
        False,
        "The model is a language model, such as gpt: the input is its prompt, which is not"
        " trained on",
    )
    chat_template: bool = setting(
        False,
        "Put every input into a chat as the tokenizer's own template shows it: what the user says,"
        " prefix and suffix around it; the output is the assistant's answer",
        applies_when={"decoder_only": (True,)},
    )
    source_token: str | int | None = setting(
        None,
        "Special token, or its number, that every input begins with in place of the tokenizer's"
        " own, such as the one of its language (NLLB, mBART)",
        applies_when={"decoder_only": (False,)},
    )
    target_token: str | int | None = setting(
        None,
        "Special token, or its number, that every output begins with, learned and then forced;"
        " silent: forced_bos_token_id of the weights' files",
        applies_when={"decoder_only": (False,)},
    )
    label_smoothing: float = setting(
        0.0, "Share of the target spread evenly over all tokens, in training", ge=0, lt=1
    )
    bpe_dropout: float = setting(
        0.0,
        "Chance that a merge of a byte-level BPE tokenizer is left out, so that texts are read and"
        " learned in other tokens each time, in training; 0.1 is usual",
        ge=0,
        lt=1,
    )
    r_drop: float = setting(
        0.0,
        "Weight of how far apart two passes with different dropout are (R-Drop); 1 to 5 is usual;"
        " a step takes twice as long",
        ge=0,
    )
    metrics: tuple[TextMetric, ...] = setting(
        ("chrf",), "What outputs are compared with the references by; none: the loss alone"
    )
    bleu_tokenizer: BleuTokenizer = setting(
        "13a", "How BLEU cuts texts into words: 13a for most languages, zh for Chinese"
    )
    measured: int = setting(
        100,
        "Held-out examples whose outputs each validation measures, one beam each; 0: the loss"
        " alone",
        ge=0,
    )
    evaluated: int = setting(
        1000, "Held-out examples that are written about when a run is evaluated", ge=1
    )
    baselines: tuple[TextBaseline, ...] = setting(
        BASELINES,
        "Answers without a model, scored next to it: the input itself, the output of the most"
        " similar training input, the input's first or longest sentence",
    )
    beams: int = setting(
        1, "Outputs that are written at once in predicting, of which the best is given", ge=1
    )
    length_penalty: float = setting(
        1.0, "Of beams: higher prefers longer outputs; without effect with one"
    )
    no_repeat_ngram: int | None = setting(
        None, "No sequence of this many tokens is written twice; null: any may be", ge=1
    )
    min_new_tokens: int = setting(0, "No output ends before it has this many tokens", ge=0)

    @model_validator(mode="after")
    def _options_are_possible(self) -> TextToTextSettings:
        if self.beams == 1 and self.length_penalty != 1.0:
            raise ValueError(
                "length_penalty has no effect with one beam. Remove it, or use more beams"
            )
        if self.min_new_tokens > self.max_target_tokens:
            raise ValueError(
                f"min_new_tokens {self.min_new_tokens} is more than max_target_tokens"
                f" {self.max_target_tokens}. Use less"
            )
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("metrics names one twice. Remove it")
        return self

    def decoding(self, options: dict[str, Any]) -> DecodingOptions:
        """Return options, completed with the task's settings where nothing else is asked for."""
        own: dict[str, Any] = {
            "temperature": 0.0,
            "max_new_tokens": self.max_target_tokens,
            "no_repeat_ngram": self.no_repeat_ngram,
        }
        own["min_new_tokens"] = min(
            self.min_new_tokens, options.get("max_new_tokens", self.max_target_tokens)
        )
        # Tokens that are drawn are not searched for.
        if options.get("temperature", 0.0) == 0.0:
            own["beams"] = self.beams
            if options.get("beams", self.beams) > 1:
                own["length_penalty"] = self.length_penalty
        return decoding_options(own | options)
