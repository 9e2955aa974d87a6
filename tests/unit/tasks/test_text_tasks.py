"""The text tasks: exact scores however texts are cut, texts that end where they should, and judged
answers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from groundup.contracts.tasks import EvaluationContext
from groundup.core.values import Conversation, Document, Message, Split, TokenSequence
from groundup.generation.scoring import evaluating, sequence_nll
from groundup.models.gpt import GPTConfig
from groundup.nn.transformer import DecoderLM
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.characters import CharacterProcessor
from groundup.tasks.chat.evaluation import last_run
from groundup.tasks.chat.task import Chat
from groundup.tasks.language_modeling import LanguageModeling

PROCESSOR = BytesConfig().fit(lambda: iter(()))


def tiny(context: int = 32) -> DecoderLM:
    torch.manual_seed(0)
    config = GPTConfig(
        layers=1,
        width=16,
        heads=2,
        context_length=context,
        vocabulary_size=PROCESSOR.vocabulary_size,
        init_std=0.3,
    )
    return config.build()


class Bigram(nn.Module):
    """A model without ``token_losses`` whose logits depend on the last token only, so windows
    cannot matter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(PROCESSOR.vocabulary_size, PROCESSOR.vocabulary_size)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)  # type: ignore[no-any-return]


class Scripted(nn.Module):
    """Writes a fixed text and then the end token, whatever it is asked."""

    def __init__(self, text: str, prompt: int) -> None:
        super().__init__()
        self.config = GPTConfig(
            layers=1, width=16, heads=2, context_length=256, vocabulary_size=300
        )
        self.tokens = [*text.encode(), PROCESSOR.end_id]
        self.prompt = prompt
        self.cache_source = GPTConfig(
            layers=1, width=2, heads=1, context_length=256, vocabulary_size=4
        ).build()

    def new_cache(self, batch: int, length: int) -> Any:
        return self.cache_source.new_cache(batch, length)

    def forward(self, tokens: Tensor, positions: Tensor, *, cache: Any, last_only: bool) -> Tensor:
        logits = torch.zeros(tokens.shape[0], 1, PROCESSOR.vocabulary_size)
        for row, place in enumerate(positions[:, -1].tolist()):
            logits[row, 0, self.tokens[min(place + 1 - self.prompt, len(self.tokens) - 1)]] = 1
        return logits


def sequence(text: str) -> TokenSequence:
    return LanguageModeling().encode([Document("d", text)], PROCESSOR)[0]


# ------------------------------------------------------------------------------------------ scoring
@pytest.mark.parametrize("context", [4, 7, 16, 64])
def test_every_token_counts_once_however_long_the_windows(context: int) -> None:
    model = Bigram()
    sequences = [
        sequence(text) for text in ("", "a", "abc", "hello world, this is long", "xyz" * 5)
    ]
    logs = torch.log_softmax(model.table.weight.detach().double(), -1)
    expected = [
        -float(logs[s.tokens[:-1].astype(int), s.tokens[1:].astype(int)].sum()) for s in sequences
    ]
    assert sequence_nll(model, sequences, context, rows=3) == pytest.approx(expected, rel=1e-5)


def test_a_batch_scores_as_one_sequence_at_a_time_and_as_the_training_loss_does() -> None:
    model = tiny()
    sequences = [sequence(text) for text in ("short", "a somewhat longer text", "z")]
    together = sequence_nll(model, sequences, 32)
    assert together == pytest.approx([sequence_nll(model, [s], 32)[0] for s in sequences], rel=1e-5)
    tokens = torch.from_numpy(sequences[1].tokens.astype(np.int64))
    loss = model(tokens[None, :-1], targets=tokens[None, 1:])
    assert together[1] == pytest.approx(float(loss.detach()), rel=1e-5)


def test_only_trained_tokens_are_scored_and_they_add_up() -> None:
    model, whole = tiny(), sequence("question answer and more of it, beyond a window or two")
    masks = [np.arange(len(whole.tokens)) % 3 == part for part in range(3)]
    parts = [sequence_nll(model, [TokenSequence(whole.tokens, mask)], 16)[0] for mask in masks]
    assert sum(parts) == pytest.approx(sequence_nll(model, [whole], 16)[0], rel=1e-5)
    assert sequence_nll(
        model, [TokenSequence(whole.tokens, np.zeros(len(whole.tokens), dtype=bool))], 16
    ) == [0.0]


def test_scoring_leaves_the_model_in_its_mode() -> None:
    model = tiny().train()
    with evaluating(model):
        assert not model.training
    assert model.training


# -------------------------------------------------------------------------------- language modeling
def test_documents_begin_and_end_with_the_end_token() -> None:
    tokens = sequence("hé").tokens
    assert tokens.tolist() == [PROCESSOR.end_id, *"hé".encode(), PROCESSOR.end_id]


def test_summaries_divide_once() -> None:
    task = LanguageModeling()
    found = task.summarise({"next_token": (20 * math.log(4), 20.0), "bytes": (40.0, 1.0)})
    assert found == pytest.approx({"loss": math.log(4), "perplexity": 4, "bits_per_byte": 1})
    targets = torch.tensor([[65, 66, -100, PROCESSOR.end_id]])
    assert task.count_bytes({"targets": targets}, PROCESSOR) == 2


@pytest.mark.parametrize("stop", [(), ("STOP",), ("never", "ld")])
def test_streams_join_to_what_predict_returns(stop: tuple[str, ...]) -> None:
    text = "Hello wörld 猫 ST oneSTOPtwo"
    model, task = Scripted(text, prompt=2), LanguageModeling()
    expected = {(): text, ("STOP",): "Hello wörld 猫 ST one", ("never", "ld"): "Hello wör"}[stop]
    options: dict[str, Any] = {"temperature": 0, "stop": list(stop), "max_new_tokens": 60}
    assert task.predict(model, "x", PROCESSOR, **options) == expected
    pieces = list(task.stream(model, "x", PROCESSOR, **options))
    assert "".join(pieces) == expected
    assert len(pieces) > 5
    assert task.predict(model, ["x", "y"], PROCESSOR, **options) == [expected, expected]


@pytest.mark.slow
def test_language_models_are_judged_exactly_beside_baselines() -> None:
    held_out = [
        Document(f"d{i}", f"text number {i} is written here, as a matter of fact")
        for i in range(12)
    ]
    examples: dict[str, list[Document]] = {"train": held_out[:8], "validation": held_out[8:]}
    model = tiny()
    context = EvaluationContext(model, PROCESSOR, lambda split: iter(examples[split]), 32)
    found = LanguageModeling().evaluate(context)
    nats = sum(sequence_nll(model, [sequence(d.text)], 32)[0] for d in examples["validation"])
    size = sum(len(d.text.encode()) for d in examples["validation"])
    assert found.metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert (
        found.metrics["baseline_5gram_bits_per_byte"]
        < found.metrics["baseline_unigram_bits_per_byte"]
    )
    assert (
        found.metrics["baseline_xz_given_train_bits_per_byte"]
        < found.metrics["baseline_xz_bits_per_byte"]
    )
    assert found.tables[0].title == "Bits per byte of held-out text"
    assert all(len(row) == len(table.columns) for table in found.tables for row in table.rows)


# --------------------------------------------------------------------------------------------- chat
def talk(name: str, *said: str) -> Conversation:
    roles = ("user", "assistant") * len(said)
    messages = tuple(Message(role, text) for role, text in zip(roles, said, strict=False))
    return Conversation(name, messages, origin=f"file line {name}")


def learned(processor: CharacterProcessor, found: TokenSequence) -> str:
    assert found.trained is not None
    return processor.decode(found.tokens[found.trained].tolist(), keep_special=True)


def test_all_answers_or_the_last_are_trained_on_with_their_stop() -> None:
    conversation = talk("1", "Hi", "Hello", "Bye", "See you")
    assert (
        learned(PROCESSOR, Chat().encode([conversation], PROCESSOR)[0])
        == "Hello<|end|>See you<|end|>"
    )
    assert (
        learned(PROCESSOR, Chat(train_on="last").encode([conversation], PROCESSOR)[0])
        == "See you<|end|>"
    )


def test_the_last_run_of_nothing_is_nothing() -> None:
    nothing = TokenSequence(np.arange(3, dtype=np.int32), np.zeros(3, dtype=np.bool_))
    assert last_run(nothing) is nothing
    everything = TokenSequence(np.arange(3, dtype=np.int32), np.ones(3, dtype=np.bool_))
    assert last_run(everything).trained.tolist() == [True] * 3  # type: ignore[union-attr]


def test_a_template_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content"
        " }}<|end|>{% endgeneration %}{% else %}{{ m.content }}={% endif %}{% endfor %}"
    )
    found = Chat(template=str(path)).encode([talk("1", "2+2", "4")], PROCESSOR)[0]
    assert PROCESSOR.decode(found.tokens.tolist(), keep_special=True) == "2+2=4<|end|>"


def test_questions_conversations_and_lists_of_questions_are_answered() -> None:
    task = Chat()
    prompt = len(task.chat_template(PROCESSOR).prompt([Message("user", "Why?")]))
    model = Scripted(" Because. ", prompt)
    for inputs in (
        "Why?",
        [Message("user", "Why?")],
        [{"role": "user", "content": "Why?"}],
        talk("1", "Why?"),
    ):
        assert task.predict(model, inputs, PROCESSOR, temperature=0) == "Because."
    assert task.predict(model, ["Why?", "How?"], PROCESSOR, temperature=0) == [
        "Because.",
        "Because.",
    ]
    assert "".join(task.stream(model, "Why?", PROCESSOR, temperature=0)).strip() == "Because."


@pytest.mark.slow
def test_answers_are_judged_before_and_after_with_right_and_wrong_questions() -> None:
    conversations = [talk(str(i), f"What is {i}?", f"It is number {i}.") for i in range(6)]

    def examples(split: Split) -> Iterator[Conversation]:
        return iter(conversations[:4] if split == "validation" else conversations[4:])

    after, before = tiny(128), tiny(128)
    context = EvaluationContext(after, PROCESSOR, examples, 128, base=(before, PROCESSOR), limit=3)
    found = Chat().evaluate(context)
    template = Chat().chat_template(PROCESSOR)
    encoded = template.encode_batch([c.messages for c in conversations[:4]])
    bits = sum(sequence_nll(after, encoded, 128)) / math.log(2)
    assert found.metrics["answer_bits_per_byte"] == pytest.approx(
        bits / (4 * len("It is number 1.")), rel=1e-5
    )
    assert (
        found.metrics["answer_bits_per_byte_without_stop"] < found.metrics["answer_bits_per_byte"]
    )
    assert (
        found.metrics["answer_bits_per_byte_other_question"]
        != found.metrics["answer_bits_per_byte"]
    )
    ratio = found.metrics["answer_bits_per_byte"] / found.metrics["base_answer_bits_per_byte"]
    assert found.metrics["below_base"] == pytest.approx(1 - ratio)
    titles = {table.title: table for table in found.tables}
    assert len(titles["Held-out questions"].rows) == 3
    assert len(titles["Trained questions"].rows) == 2
    assert titles["Trained questions"].rows[0][3] in {"It is number 4.", "It is number 5."}
    alone = Chat().evaluate(EvaluationContext(after, PROCESSOR, examples, 128, limit=3))
    assert alone.metrics["answer_bits_per_byte"] == found.metrics["answer_bits_per_byte"]
    assert "below_base" not in alone.metrics
