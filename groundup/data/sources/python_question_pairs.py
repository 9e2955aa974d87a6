"""Questions about Python's library with their answers as pairs of texts, for task text_to_text."""

from __future__ import annotations

from pathlib import Path

from groundup.contracts.data import DataContext, Stream
from groundup.core.registry import data
from groundup.core.values import Example, Split
from groundup.data.sources.python_questions import QuestionsOfPython
from groundup.data.stream.in_memory import open_indexed_stream
from groundup.data.stream.row_order import similar_lengths_setting

__all__ = ["PythonQuestionPairs"]


@data("python_question_pairs")
class PythonQuestionPairs(QuestionsOfPython):
    """The questions of ``python_questions`` as inputs, and their answers as what is to be written;
    with the same settings the same ones are held out."""

    similar_lengths: bool = similar_lengths_setting("pairs")

    def examples(self, split: Split, cache: Path) -> list[Example]:
        """Return the pairs of a split in the order of the objects' names."""
        return [
            Example(each.name, each.question, each.answer, each.origin, predicts_text=True)
            for each in self.asked(split, cache)
        ]

    def open(self, context: DataContext) -> Stream:
        """Return the micro-batches of a split."""
        pairs = self.examples(context.split, context.cache)
        return open_indexed_stream(pairs, context, similar_lengths=self.similar_lengths)
