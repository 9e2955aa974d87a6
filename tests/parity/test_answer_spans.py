"""Templates that write a turn in another way once more turns follow: tokens as those of
``transformers``, and trained on exactly the answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from later import Library
from tokenizers import Tokenizer

from groundup.core.errors import DataError
from groundup.core.values import Message, ToolCall
from groundup.processors.chat.builtin_templates import TEMPLATES
from groundup.processors.chat.protection import message_as_json
from groundup.processors.chat.template import ChatTemplate
from groundup.processors.text.bpe import BPEConfig
from groundup.processors.text.tokenizer import TokenizerProcessor

pytestmark = pytest.mark.xdist_group("transformers")
transformers: Any = Library("transformers")

# As Qwen3 has it: the block of thoughts is written for answers after the last question alone.
THINKING = """\
{%- set ns = namespace(last=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'tool' %}{{ '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- else %}{{ '<|im_start|>' + m.role + '\\n' }}{% endif %}
{%- if m.role == 'assistant' and loop.index0 > ns.last and (loop.last or m.reasoning_content) %}
{{- '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}
{%- if m.role != 'tool' %}{{ m.content }}{% endif %}
{%- for call in m.tool_calls or [] %}
{{- '\\n<tool_call>\\n' + call.function.name + call.function.arguments | tojson + '</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if tools %}{% endif %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
# As DeepSeek's R1 has it: what was thought is cut out, and the prompt begins a thought.
CUT = """\
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<|user|>' + m.content }}{% else %}
{{- '<|assistant|>' + m.content.split('</think>')[-1] + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}
"""
# As gpt-oss has it: the last answer ends with a token of its own.
RETURN = """\
{%- for m in messages %}{{ '<|' + m.role + '|>' + m.content | trim }}
{{- '<|endoftext|>' if loop.last and m.role == 'assistant' else '<|end|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}
"""
# As Mistral has it: the system prompt is in the last question, and no words are before an answer.
LATE = """\
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '[INST] ' }}
{%- if messages[0].role == 'system' and (loop.last or loop.nextitem.role == 'assistant' and loop.index0 + 2 >= messages | length) %}
{{- messages[0].content + '\\n\\n' }}{% endif %}{{ m.content + '[/INST]' }}
{%- elif m.role == 'assistant' %}{{ ' ' + m.content | trim + '<|end|>' }}{% endif %}
{%- endfor %}
"""
TURNS = (
    Message("user", "What is f? 🎉"),
    Message("assistant", "same"),
    Message("user", "same"),
    Message("assistant", "  def f(x):\n    return x \n"),
    Message("user", "assistant\nsame"),
    Message("assistant", "same"),
)
CALLS = (
    Message("user", "Weather?"),
    Message("assistant", "", (ToolCall("look", {"city": "Paris"}),), reasoning="Look."),
    Message("tool", "sunny"),
    Message("assistant", "It is sunny."),
    Message("user", "Thanks"),
    Message("assistant", "Bye.", reasoning="Be brief."),
)


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> TokenizerProcessor:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = ["What is a list? A list holds items, in order.\n\n def f(x):\n    return x\n" * 30]
    BPEConfig(vocab_size=360).fit(lambda: iter(texts)).save(folder)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return TokenizerProcessor(library, "<|endoftext|>", "<|endoftext|>")


@pytest.fixture(scope="module")
def reference(processor: TokenizerProcessor, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("reference")
    processor.save(folder)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>"
    )


def answers(
    processor: TokenizerProcessor, reference: Any, source: str, messages: tuple[Message, ...]
) -> list[str]:
    """Return the text of each trained run, the tokens being those of transformers."""
    found = ChatTemplate(source, processor).encode(messages)
    said = [message_as_json(message) for message in messages]
    theirs = reference.apply_chat_template(
        said, chat_template=source, tokenize=True, return_dict=True
    )
    assert found.tokens.tolist() == theirs["input_ids"]
    assert found.trained is not None
    runs: list[list[int]] = [[]]
    for token, trained in zip(found.tokens.tolist(), found.trained.tolist(), strict=True):
        if trained:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [processor.decode(run, keep_special=True) for run in runs if run]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "messages", "expected"),
    [
        (
            THINKING,
            TURNS,
            [
                "same<|im_end|>",
                "  def f(x):\n    return x \n<|im_end|>",
                "<think>\n\n</think>\n\nsame<|im_end|>",
            ],
        ),
        (
            THINKING,
            CALLS,
            [
                '\n<tool_call>\nlook{"city": "Paris"}</tool_call><|im_end|>',
                "It is sunny.<|im_end|>",
                "<think>\nBe brief.\n</think>\n\nBye.<|im_end|>",
            ],
        ),
        (
            THINKING,
            CALLS[:4],
            [
                '<think>\nLook.\n</think>\n\n\n<tool_call>\nlook{"city": "Paris"}</tool_call>'
                "<|im_end|>",
                "<think>\n\n</think>\n\nIt is sunny.<|im_end|>",
            ],
        ),
        (CUT, TURNS, ["same<|end|>", "  def f(x):\n    return x \n<|end|>", "same<|end|>"]),
        (RETURN, TURNS, ["same<|end|>", "def f(x):\n    return x<|end|>", "same<|endoftext|>"]),
        (
            LATE,
            (Message("system", "Be brief."), *TURNS),
            [" same<|end|>", " def f(x):\n    return x<|end|>", " same<|end|>"],
        ),
    ],
)
def test_exactly_the_answers(
    processor: TokenizerProcessor,
    reference: Any,
    source: str,
    messages: tuple[Message, ...],
    expected: list[str],
) -> None:
    assert answers(processor, reference, source, messages) == expected


def test_answers_that_are_only_read(processor: TokenizerProcessor) -> None:
    read = (TURNS[0], Message("assistant", "Not this", trained=False), *TURNS[2:])
    found = ChatTemplate(THINKING, processor).encode(read)
    assert found.trained is not None
    learned = processor.decode(found.tokens[found.trained].tolist())
    assert "Not this" not in learned
    assert "return x" in learned


def message(source: str, processor: TokenizerProcessor, *messages: Message) -> str:
    with pytest.raises(DataError) as caught:
        ChatTemplate(source, processor).encode(messages)
    return str(caught.value)


def test_a_template_whose_answers_cannot_be_told_apart(processor: TokenizerProcessor) -> None:
    # Upside down: no conversation begins with the text of its earlier turns.
    source = "{% for m in messages[::-1] %}{{ m.content }} {% endfor %}"
    found = message(source, processor, Message("user", "HI"), Message("assistant", "HO"))
    assert "what the assistant wrote in turn 2 cannot be told from the rest" in found
    # each of these was tried
    assert "or set task.template to one that works here: groundup, plain, chatml, qwen" in found
    for name in ("groundup", "plain", "chatml", "qwen"):
        assert f" {name}" in found


def test_what_a_template_leaves_out(processor: TokenizerProcessor) -> None:
    thought = Message("assistant", "Ho", reasoning="I think")
    asked = Message("user", "Hi")
    found = message(CUT, processor, asked, thought)
    assert "leaves out the reasoning that turn 2 (assistant) has" in found
    assert "or set task.template to one that works here: groundup, plain, chatml" in found
    for name in ("groundup", "plain", "chatml"):  # what the message says to do
        ChatTemplate(TEMPLATES[name], processor).encode((asked, thought))
    assert "leaves out what turn 1 (system) has" in message(
        CUT.replace("m.role == 'user'", "m.role == 'system'").replace("+ m.content }", "}"),
        processor,
        Message("system", "Be brief."),
        asked,
        Message("assistant", "Ho"),
    )
    odd = Message("assistant", "Ho", extra={"mood": "glad"})
    assert "does not read the key 'mood', which turn 2 has" in message(CUT, processor, asked, odd)
    named = Message("user", "Hi", name="Ann")
    assert "does not read the key 'name', which turn 1 has" in message(
        CUT, processor, named, Message("assistant", "Ho")
    )


def test_keys_that_a_template_reads(processor: TokenizerProcessor) -> None:
    source = CUT.replace("m.content }", "(m.name or '') + ': ' + (m.mood or '') + m.content }")
    asked = Message("user", "Hi", name="Ann", extra={"mood": "glad "})
    found = ChatTemplate(source, processor).encode((asked, Message("assistant", "Ho")))
    assert "Ann: glad Hi" in processor.decode(found.tokens.tolist())


def test_thoughts_under_every_name(processor: TokenizerProcessor, tmp_path: Path) -> None:
    said = (Message("user", "Hi"), Message("assistant", "Ho", reasoning="Hm"))
    for name in ("reasoning_content", "reasoning", "thinking"):
        source = CUT.replace("+ m.content.split('</think>')[-1]", f"+ (m.{name} or '') + m.content")
        source = source.replace("<think>\\n", "")
        tokens = ChatTemplate(source, processor).encode(said).tokens.tolist()
        assert "HmHo" in processor.decode(tokens)
    # without a name for it, as Qwen and DeepSeek write it
    source = CUT.replace(".split('</think>')[-1]", "").replace("<think>\\n", "")
    tokens = ChatTemplate(source, processor).encode(said).tokens.tolist()
    assert "<think>\nHm\n</think>\n\nHo" in processor.decode(tokens)
