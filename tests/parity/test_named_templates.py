"""Templates by name: what each model family reads, written out; tools; and tokenizers with ways of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from groundup.core.errors import DataError
from groundup.core.records import Message, ToolCall
from groundup.processors.bpe import TokenizerProcessor
from groundup.processors.bytes import BytesConfig
from groundup.processors.chat_template import ChatTemplate, find_template
from groundup.processors.templates import TEMPLATES

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker

ASKED = (Message("user", " Hi "), Message("assistant", "Hello. "), Message("user", "Bye"), Message("assistant", "Ciao"))
TOLD = (Message("system", "Be kind."), *ASKED)
SPECIALS = [
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>")
]
SPECIALS += ["<|assistant|>", "<|end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
# What the families' own templates render; trained stretches are enclosed as ‹thus›.
RENDERED = {
    "chatml": (
        "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n‹Hello. <|im_end|>›\n"
        "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n‹Ciao<|im_end|>›\n",
        "<|im_start|>system\nBe kind.<|im_end|>\n",
    ),
    "llama2": (
        "<s>[INST] Hi [/INST]‹ Hello. </s>›<s>[INST] Bye [/INST]‹ Ciao </s>›",
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n Hi [/INST]",
    ),
    "llama3": (
        "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        "‹Hello.<|eot_id|>›<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n‹Ciao<|eot_id|>›",
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>",
    ),
    "mistral": (
        "<s>[INST]  Hi [/INST]‹ Hello.</s>›[INST] Bye[/INST]‹ Ciao</s>›",
        "<s>[INST] Be kind.\n\n Hi [/INST]",
    ),
    "gemma": (
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n‹Hello.<end_of_turn>›\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n‹Ciao<end_of_turn>›\n",
        "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n",
    ),
    "phi": (
        "<|user|>\n Hi <|end|>\n<|assistant|>\n‹Hello. <|end|>›\n<|user|>\nBye<|end|>\n<|assistant|>\n‹Ciao<|end|>›\n",
        "<|system|>\nBe kind.<|end|>\n<|user|>\n Hi <|end|>\n",
    ),
}
QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
RENDERED["qwen"] = (QWEN + RENDERED["chatml"][0], RENDERED["chatml"][1])
TOOLS = [{"type": "function", "function": {"name": "add", "description": "é", "parameters": {"type": "object"}}}]
CALLED = (
    Message("user", "1+2, 3+4?"),
    Message("assistant", "", (ToolCall("add", {"a": 1, "b": 2}), ToolCall("add", {"a": [3], "b": "<|im_end|>"}, "c2"))),
    Message("tool", "3", name="add"),
    Message("tool", "7", call="c2"),
    Message("assistant", "So.", (ToolCall("add", {}),)),
    Message("tool", "0"),
    Message("assistant", "3 and 7."),
)
CALLED_RENDERED = (
    "<|im_start|>system\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are"
    " provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
    '{"type": "function", "function": {"name": "add", "description": "é", "parameters": {"type": "object"}}}'
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within"
    ' <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call><|im_end|>\n<|im_start|>user\n1+2, 3+4?<|im_end|>\n<|im_start|>assistant\n"
    '‹<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>\n'
    '<tool_call>\n{"name": "add", "arguments": {"a": [3], "b": "<|im_end|>"}}\n</tool_call><|im_end|>›\n'
    "<|im_start|>user\n<tool_response>\n3\n</tool_response>\n<tool_response>\n7\n</tool_response><|im_end|>\n"
    '<|im_start|>assistant\n‹So.\n<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call><|im_end|>›\n'
    "<|im_start|>user\n<tool_response>\n0\n</tool_response><|im_end|>\n<|im_start|>assistant\n‹3 and 7.<|im_end|>›\n"
)


def tokenizer(prefix: str = "", *, strip: bool = False) -> Tokenizer:
    """Return a small tokenizer: byte-level, or with spaces as in SentencePiece, before each text or the first."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True) if prefix else models.BPE())
    alphabet = [*pre_tokenizers.ByteLevel.alphabet()]
    if prefix == "always":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    elif prefix == "first":
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
        made.decoder = decoders.Metaspace("▁", "never")
    else:
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    byte_tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))] if prefix else []
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=byte_tokens, initial_alphabet=[] if prefix else alphabet, show_progress=False
    )
    words = ["Hi", "Hello.", "Bye", "Ciao", "Be", "kind.", "[INST]", "[/INST]", "user", "model", "assistant"]
    made.train_from_iterator(words * 4, trainer)
    made.add_special_tokens([AddedToken(name, special=True, normalized=False, rstrip=strip) for name in SPECIALS])
    return made


def marked(processor: TokenizerProcessor, messages: tuple[Message, ...], name: str, **options: Any) -> str:
    sequence = ChatTemplate(TEMPLATES[name], processor).encode(messages, **options)
    assert sequence.trained is not None
    text = ""
    for run in np.split(np.arange(len(sequence.tokens)), np.flatnonzero(np.diff(sequence.trained)) + 1):
        said = processor.decode(sequence.tokens[run].tolist(), keep_special=True)
        text += f"‹{said}›" if sequence.trained[run[0]] else said
    return text


@pytest.fixture(scope="module")
def processor() -> TokenizerProcessor:
    return TokenizerProcessor(tokenizer(), "</s>", "<s>")


@pytest.mark.parametrize("name", sorted(RENDERED))
def test_the_rendering_is_the_familys(processor: TokenizerProcessor, name: str) -> None:
    plain, system = RENDERED[name]
    assert marked(processor, ASKED, name) == plain
    assert marked(processor, TOLD, name).startswith(system)
    assert marked(processor, TOLD, name).endswith(plain[plain.index("‹") :])
    assert marked(processor, TOLD, name).count("Be kind.") == 1


@pytest.mark.parametrize("name", ["chatml", "qwen"])
def test_tools_and_their_calls_are_shown_and_the_calls_are_learned(processor: TokenizerProcessor, name: str) -> None:
    expected = CALLED_RENDERED
    if name == "qwen":
        expected = expected.replace("system\n# Tools", QWEN[19:-11] + "\n\n# Tools").replace("<|im_start|>You", "You")
        expected = "<|im_start|>system\n" + expected.removeprefix("<|im_start|>")
    shown = marked(processor, CALLED, name, tools=TOOLS)
    assert shown.split("# Tools")[1] == expected.split("# Tools")[1]
    assert shown == expected
    theirs = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), bos_token="<s>", eos_token="</s>")
    calls = [{"type": "function", "function": {"name": c.name, "arguments": c.arguments}} for c in CALLED[1].tool_calls]
    said: list[dict[str, Any]] = [{"role": m.role, "content": m.content} for m in CALLED[:4]]
    said[1]["tool_calls"] = calls
    text = theirs.apply_chat_template(said, chat_template=TEMPLATES[name], tools=TOOLS, tokenize=False)
    assert text == ChatTemplate(TEMPLATES[name], processor).render(CALLED[:4], tools=TOOLS)


def test_a_template_that_shows_no_tools_is_refused(processor: TokenizerProcessor) -> None:
    for name in ("llama2", "llama3", "gemma", "phi"):
        with pytest.raises(DataError, match=r"shows no tools, and the conversation has some.*task.template=chatml or"):
            ChatTemplate(TEMPLATES[name], processor).encode(ASKED, tools=TOOLS)
        with pytest.raises(DataError, match="shows no calls of tools, and the conversation has some"):
            ChatTemplate(TEMPLATES[name], processor).encode(CALLED)
    for name in ("llama2", "phi"):
        with pytest.raises(DataError, match=f"the template {name} has no role for what a tool returns"):
            ChatTemplate(TEMPLATES[name], processor).encode((*ASKED, Message("tool", "3")))


@pytest.mark.parametrize("name", ["gemma", "chatml"])
def test_special_tokens_that_the_tokenizer_lacks_are_named(name: str) -> None:
    missing = {"gemma": "<start_of_turn>", "chatml": r"<\|im_start\|>"}[name]
    with pytest.raises(DataError, match=f"uses the special token {missing}, which the tokenizer lacks"):
        ChatTemplate(TEMPLATES[name], BytesConfig().fit(lambda: iter(())))


def test_the_tokenizers_own_template_by_name(processor: TokenizerProcessor) -> None:
    assert find_template("tokenizer", processor.with_chat_template("own")) == "own"
    with pytest.raises(DataError, match=r"the tokenizer brings none; known by name: groundup, plain, chatml"):
        find_template("tokenizer", processor)


@pytest.mark.parametrize(("prefix", "strip"), [("", True), ("always", True), ("first", False)])
@pytest.mark.parametrize("name", sorted(RENDERED))
def test_tokens_are_those_of_transformers_whatever_the_tokenizer_does_with_blanks(
    name: str, prefix: str, strip: bool
) -> None:
    made = tokenizer(prefix, strip=strip)
    theirs = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")
    said = [{"role": message.role, "content": message.content.strip()} for message in TOLD]
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    expected = theirs.apply_chat_template(said, chat_template=TEMPLATES[name], **options)
    stripped = tuple(Message(message.role, message.content.strip()) for message in TOLD)
    ours = ChatTemplate(TEMPLATES[name], TokenizerProcessor(made, "</s>", "<s>")).encode(stripped)
    assert ours.tokens.tolist() == expected["input_ids"]


def test_an_answer_that_is_only_read(processor: TokenizerProcessor) -> None:
    read = (ASKED[0], Message("assistant", "Hello. ", trained=False), *ASKED[2:])
    for name in ("chatml", "llama2"):
        assert marked(processor, read, name) == RENDERED[name][0].replace("‹", "", 1).replace("›", "", 1)
    source = (
        "{% for m in messages %}{{ m.role }}{% endfor %}{% generation %}{{ messages[1].content }}{% endgeneration %}"
    )
    with pytest.raises(DataError, match="marks 1 stretches for 2 answers, so those not to learn are not known"):
        ChatTemplate(source, processor).encode(read)


def test_every_name_is_covered() -> None:
    assert set(TEMPLATES) == {*RENDERED, "groundup", "plain"}
