"""
name: bigram
uses: [bigram.py]
model: bigram
task: language_modeling
processor: bytes
data: {name: text, path: my_texts}
training: {batch_size: 8, steps: 20}
"""

import torch.nn.functional as F
from torch import nn

from groundup.contracts.models import ModelConfig
from groundup.core.registry import model
from groundup.core.settings import setting


@model("bigram")
class BigramConfig(ModelConfig):
    """The next token depends on the last one alone."""

    context_length: int = setting(64, "Longest row, in tokens", ge=1)
    vocabulary_size: int = setting(0, "Tokens; 0: as many as the tokenizer has", ge=0)

    def complete_from(self, processor):
        return self.model_copy(update={"vocabulary_size": processor.vocabulary_size})

    def build(self):
        return Bigram(self)


class Bigram(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocabulary_size, config.vocabulary_size)

    def forward(self, tokens, targets=None, positions=None, boundaries=None):
        logits = self.table(tokens)
        if targets is None:
            return logits
        flat = logits.flatten(0, 1).float()
        return F.cross_entropy(flat, targets.flatten(), ignore_index=-100, reduction="sum")
