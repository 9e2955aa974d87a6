"""Byte-level BPE, learned from the training texts with the ``tokenizers`` library.

Source: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016,
    arXiv:1508.07909; over bytes: Radford et al., "Language Models are Unsupervised Multitask
    Learners", 2019.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import model_validator
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from groundup.contracts.processors import ProcessorConfig
from groundup.core.errors import DataError
from groundup.core.registry import processor
from groundup.core.settings import setting
from groundup.media.text_sample import TextSample
from groundup.processors.text.special_tokens import END_OF_TEXT, SPECIAL_TOKENS
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.processors.text.tokenizer_files import EncoderTokens

__all__ = ["BPEConfig"]

# The split of GPT-4 and Llama 3 (so other tools know it): digits by three, a space joins the word
# that follows it. On held-out Python documentation and 4,096 tokens it gives 3.55 bytes a token;
# GPT-2's split gives 3.43.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
WORD = r"[\p{L}\p{M}\p{N}]+|[^\p{L}\p{M}\p{N}]"
SMALLEST = 256 + len(SPECIAL_TOKENS)
_log = logging.getLogger("groundup")
ENCODER = EncoderTokens("[CLS]", "[SEP]", "[PAD]", "[MASK]")


@processor("bpe")
class BPEConfig(ProcessorConfig):
    """Byte-level byte-pair encoding learned from the training texts: any text can be spelled, none
    is lost."""

    vocab_size: int = setting(
        4096, "Tokens in all, the 256 bytes and the special tokens included.", ge=SMALLEST
    )
    min_frequency: int = setting(2, "A pair seen fewer times than this is never merged.", ge=1)
    words: bool = setting(
        False,
        "Read texts as words and marks in small letters, however they are spaced, so that a word is"
        " the same token wherever it stands: for classifiers of few texts. Decoded, each has a"
        " space before it; bytes count as then.",
    )

    sample_mb: int = setting(
        100,
        "Megabytes of text that the tokens are learned from at most; of more text, pieces that are"
        " drawn evenly from all of it",
        ge=1,
    )
    encoder: bool = setting(
        False,
        "Reserve [CLS], [SEP], [PAD] and [MASK], for a model that sees the whole text: it reads"
        " [CLS] text [SEP]",
    )

    @model_validator(mode="after")
    def _large_enough(self) -> BPEConfig:
        least = SMALLEST + len(ENCODER)
        if self.encoder and self.vocab_size < least:
            raise ValueError(
                f"vocab_size is {self.vocab_size}, and encoder: true needs {least}. Use at least"
                f" {least}"
            )
        return self

    @property
    def sample_bytes(self) -> int:
        """How much is learned from at most; see ``LearnsFromSample``."""
        return self.sample_mb * 1_000_000

    def fit(self, texts: Callable[[], Iterator[str]]) -> TokenizerProcessor:
        """Return the processor, with fewer than ``vocab_size`` tokens where the texts give too few
        pairs.

        Raises:
            DataError: If there is no text to learn from.
        """
        tokenizer = Tokenizer(models.BPE())
        splits: list[pre_tokenizers.PreTokenizer] = [
            pre_tokenizers.Split(Regex(WORD if self.words else SPLIT), "isolated")
        ]
        if self.words:
            tokenizer.normalizer = normalizers.Lowercase()
            splits.insert(0, pre_tokenizers.WhitespaceSplit())
        # A word is the same token at the start of a text only with a space put before it.
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=self.words, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=[*SPECIAL_TOKENS, *(ENCODER if self.encoder else ())],
            # Every byte is a token from the start, so that any text can be spelled.
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        # All texts of a large corpus would take hours, and the memory of all words in it.
        sample = TextSample.of(texts(), self.sample_bytes)
        # The trainer would learn nothing from empty texts, and say so nowhere.
        if sample.bytes_kept < sample.bytes_read:
            _log.info(
                "The tokenizer is learned from %s MB drawn from %s MB of text",
                f"{sample.bytes_kept / 1e6:,.0f}",
                f"{sample.bytes_read / 1e6:,.0f}",
            )
        if not sample.bytes_kept:
            raise DataError(
                "recipe.processor", "the training texts are empty", "Check the data section"
            )
        tokenizer.train_from_iterator(iter(sample), trainer)
        if self.encoder:
            # Other libraries put these around texts; here the tasks do.
            tokenizer.post_processor = _framing(tokenizer)
        encoder = ENCODER if self.encoder else None
        return TokenizerProcessor(tokenizer, END_OF_TEXT, END_OF_TEXT, "bpe", encoder=encoder)

    @classmethod
    def load(cls, folder: Path) -> TokenizerProcessor:
        """Return the processor that was saved to ``folder``."""
        return TokenizerProcessor.load(folder)


def _framing(tokenizer: Tokenizer) -> processors.TemplateProcessing:
    """Return what puts an encoder's tokens around a text, or two, where other libraries use the
    tokenizer."""
    numbers = [(token, tokenizer.token_to_id(token)) for token in (ENCODER.cls, ENCODER.sep)]
    return processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=numbers
    )
