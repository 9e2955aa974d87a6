"""Templates by name: what each model family reads, written out; tools; and tokenizers with ways of
their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from later import Library
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from groundup.core.errors import DataError
from groundup.core.values import Message, ToolCall
from groundup.processors.chat.builtin_templates import TEMPLATES
from groundup.processors.chat.template import ChatTemplate
from groundup.processors.text.tokenizer import TokenizerProcessor

pytestmark = pytest.mark.xdist_group("transformers")  # imported once, by one worker


transformers: Any = Library("transformers")


ASKED = (
    Message("user", " Hi "),
    Message("assistant", "Hello. "),
    Message("user", "Bye"),
    Message("assistant", "Ciao"),
)


TOLD = (Message("system", "Be kind."), *ASKED)


SPECIALS = [
    *(
        "<s>",
        "</s>",
        "<|im_start|>",
        "<|im_end|>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<|system|>",
        "<|user|>",
    )
]


SPECIALS += ["<|assistant|>", "<|end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


# What the families' own templates render; trained stretches are enclosed as ‹thus›.
RENDERED = {
    "chatml": (
        (
            "<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n‹Hello. <|im_end|>›\n"
            "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n‹Ciao<|im_end|>›\n"
        ),
        "<|im_start|>system\nBe kind.<|im_end|>\n",
    ),
    "llama2": (
        "<s>[INST] Hi [/INST]‹ Hello. </s>›<s>[INST] Bye [/INST]‹ Ciao </s>›",
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\n Hi [/INST]",
    ),
    "llama3": (
        (
            "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
            "‹Hello.<|eot_id|>›<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n‹Ciao<|eot_id|>›"
        ),
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>",
    ),
    "mistral": (
        "<s>[INST]  Hi [/INST]‹ Hello.</s>›[INST] Bye[/INST]‹ Ciao</s>›",
        "<s>[INST] Be kind.\n\n Hi [/INST]",
    ),
    "gemma": (
        (
            "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n‹Hello.<end_of_turn>›\n"
            "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n‹Ciao<end_of_turn>›\n"
        ),
        "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n",
    ),
    "phi": (
        (
            "<|user|>\n Hi <|end|>\n<|assistant|>\n‹Hello."
            " <|end|>›\n<|user|>\nBye<|end|>\n<|assistant|>\n‹Ciao<|end|>›\n"
        ),
        "<|system|>\nBe kind.<|end|>\n<|user|>\n Hi <|end|>\n",
    ),
}


QWEN = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful"
    " assistant.<|im_end|>\n"
)


RENDERED["qwen"] = (QWEN + RENDERED["chatml"][0], RENDERED["chatml"][1])


TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "description": "é", "parameters": {"type": "object"}},
    }
]


CALLED = (
    Message("user", "1+2, 3+4?"),
    Message(
        "assistant",
        "",
        (ToolCall("add", {"a": 1, "b": 2}), ToolCall("add", {"a": [3], "b": "<|im_end|>"}, "c2")),
    ),
    Message("tool", "3", name="add"),
    Message("tool", "7", call="c2"),
    Message("assistant", "So.", (ToolCall("add", {}),)),
    Message("tool", "0"),
    Message("assistant", "3 and 7."),
)


CALLED_RENDERED = (
    "<|im_start|>system\n# Tools\n\nYou may call one or more functions to assist with the user"
    " query.\n\nYou are provided with function signatures within <tools></tools> XML"
    ' tags:\n<tools>\n{"type": "function", "function": {"name": "add", "description": "é",'
    ' "parameters": {"type": "object"}}}\n</tools>\n\nFor each function call, return a json object'
    " with function name and arguments within <tool_call></tool_call> XML"
    ' tags:\n<tool_call>\n{"name": <function-name>, "arguments":'
    " <args-json-object>}\n</tool_call><|im_end|>\n<|im_start|>user\n1+2,"
    ' 3+4?<|im_end|>\n<|im_start|>assistant\n‹<tool_call>\n{"name": "add", "arguments": {"a": 1,'
    ' "b": 2}}\n</tool_call>\n<tool_call>\n{"name": "add", "arguments": {"a": [3], "b":'
    ' "<|im_end|>"}}\n</tool_call><|im_end|>›\n<|im_start|>user\n<tool_response>\n3\n</tool_response>\n<tool_response>\n7\n</tool_response><|im_end|>\n<|im_start|>assistant\n‹So.\n<tool_call>\n{"name":'
    ' "add", "arguments":'
    " {}}\n</tool_call><|im_end|>›\n<|im_start|>user\n<tool_response>\n0\n</tool_response><|im_end|>\n<|im_start|>assistant\n‹3"
    " and 7.<|im_end|>›\n"
)


# one call at a time, and names of calls that are nine characters long, or are not
WITH_OWN_NAME = (
    Message("system", "Be kind."),
    Message("user", " Add. "),
    Message("assistant", "", (ToolCall("add", {"a": 1, "b": "é"}, "abcdefgh1"),)),
    Message("tool", '{"sum": 3}', name="add", call="abcdefgh1"),
    Message("assistant", "", (ToolCall("add", {}, "call_2"),)),
    Message("tool", "0", call="call_2"),
    Message("assistant", "3, then 0."),
)


SHOWN = {
    "llama3": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\nCutting Knowledge"
        " Date: December 2023\nToday Date: 26 Jul 2024\n\nBe"
        " kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nGiven the following functions,"
        " please respond with a JSON for a function call with its proper arguments that best"
        ' answers the given prompt.\n\nRespond in the format {"name": function name, "parameters":'
        ' dictionary of argument name and its value}.Do not use variables.\n\n{\n    "type":'
        ' "function",\n    "function": {\n        "name": "add",\n        "description": "é",\n    '
        '    "parameters": {\n            "type": "object"\n        }\n   '
        ' }\n}\n\nAdd.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n‹{"name": "add",'
        ' "parameters": {"a": 1, "b":'
        ' "é"}}<|eot_id|>›<|start_header_id|>ipython<|end_header_id|>\n\n"{\\"sum\\":'
        ' 3}"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n‹{"name": "add",'
        ' "parameters":'
        ' {}}<|eot_id|>›<|start_header_id|>ipython<|end_header_id|>\n\n"0"<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n‹3,'
        " then 0.<|eot_id|>›"
    ),
    "mistral": (
        '<s>[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "add", "description": "é",'
        ' "parameters": {"type": "object"}}}][/AVAILABLE_TOOLS][INST] Be kind.\n\n Add.'
        ' [/INST]‹[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": "é"}, "id":'
        ' "abcdefgh1"}]</s>›[TOOL_RESULTS] {"content": {"sum": 3}, "call_id":'
        ' "abcdefgh1"}[/TOOL_RESULTS]‹[TOOL_CALLS] [{"name": "add", "arguments": {}, "id":'
        ' "000000002"}]</s>›[TOOL_RESULTS] {"content": 0, "call_id": "000000002"}[/TOOL_RESULTS]‹'
        " 3, then 0.</s>›"
    ),
}


def tokenizer(prefix: str = "", *, strip: bool = False) -> Tokenizer:
    """Return a small tokenizer: byte-level, or with spaces as in SentencePiece, before each text or
    the first."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True) if prefix else models.BPE())
    alphabet = [*pre_tokenizers.ByteLevel.alphabet()]
    if prefix == "always":
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    elif prefix == "first":
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
        made.decoder = decoders.Metaspace("▁", "never")
    else:
        made.pre_tokenizer, made.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
    byte_tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))] if prefix else []
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=byte_tokens,
        initial_alphabet=[] if prefix else alphabet,
        show_progress=False,
    )
    words = [
        "Hi",
        "Hello.",
        "Bye",
        "Ciao",
        "Be",
        "kind.",
        "[INST]",
        "[/INST]",
        "user",
        "model",
        "assistant",
    ]
    made.train_from_iterator(words * 4, trainer)
    made.add_special_tokens(
        [AddedToken(name, special=True, normalized=False, rstrip=strip) for name in SPECIALS]
    )
    return made


def marked(
    processor: TokenizerProcessor, messages: tuple[Message, ...], name: str, **options: Any
) -> str:
    sequence = ChatTemplate(TEMPLATES[name], processor).encode(messages, **options)
    assert sequence.trained is not None
    text = ""
    for run in np.split(
        np.arange(len(sequence.tokens)), np.flatnonzero(np.diff(sequence.trained)) + 1
    ):
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
def test_tools_and_their_calls_are_shown_and_the_calls_are_learned(
    processor: TokenizerProcessor, name: str
) -> None:
    expected = CALLED_RENDERED
    if name == "qwen":
        expected = expected.replace("system\n# Tools", QWEN[19:-11] + "\n\n# Tools").replace(
            "<|im_start|>You", "You"
        )
        expected = "<|im_start|>system\n" + expected.removeprefix("<|im_start|>")
    shown = marked(processor, CALLED, name, tools=TOOLS)
    assert shown.split("# Tools")[1] == expected.split("# Tools")[1]
    assert shown == expected
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), bos_token="<s>", eos_token="</s>"
    )
    calls = [
        {"type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in CALLED[1].tool_calls
    ]
    said: list[dict[str, Any]] = [{"role": m.role, "content": m.content} for m in CALLED[:4]]
    said[1]["tool_calls"] = calls
    text = theirs.apply_chat_template(
        said, chat_template=TEMPLATES[name], tools=TOOLS, tokenize=False
    )
    assert text == ChatTemplate(TEMPLATES[name], processor).render(CALLED[:4], tools=TOOLS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHOWN))
def test_tools_as_llama_and_mistral_read_them(processor: TokenizerProcessor, name: str) -> None:
    """Checked against the templates published with Llama 3.1 to 3.3 Instruct and Mistral 7B
    Instruct 0.3."""
    template = ChatTemplate(TEMPLATES[name], processor)
    assert marked(processor, WITH_OWN_NAME, name, tools=TOOLS) == SHOWN[name]
    untagged = TEMPLATES[name].replace("{%- generation %}", "").replace("{% endgeneration %}", "")
    found = ChatTemplate(untagged, processor).encode(WITH_OWN_NAME, tools=TOOLS)
    np.testing.assert_array_equal(
        found.trained, template.encode(WITH_OWN_NAME, tools=TOOLS).trained
    )
    tokens = found.tokens.tolist()
    for turns in (2, 4, 6):
        prompt = template.prompt(WITH_OWN_NAME[:turns], tools=TOOLS).tolist()
        assert tokens[: len(prompt)] == prompt
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), bos_token="<s>", eos_token="</s>"
    )
    said: list[dict[str, Any]] = [{"role": m.role, "content": m.content} for m in WITH_OWN_NAME]
    for turn, message in zip(said, WITH_OWN_NAME, strict=True):
        calls = [
            {"id": c.identity, "function": {"name": c.name, "arguments": c.arguments}}
            for c in message.tool_calls
        ]
        turn |= {"tool_calls": calls} if calls else {}
        turn |= {"tool_call_id": message.call} if message.call else {}
    text = theirs.apply_chat_template(
        said, chat_template=TEMPLATES[name], tools=TOOLS, tokenize=False
    )
    assert text == template.render(WITH_OWN_NAME, tools=TOOLS)


@pytest.mark.slow
def test_several_calls_words_before_them_and_results_in_another_order(
    processor: TokenizerProcessor,
) -> None:
    calls = (ToolCall("a", {}), ToolCall("b", {}, "call_b"), ToolCall("c", {}))
    results = (Message("tool", "1"), Message("tool", "2", call="call_b"), Message("tool", "3"))
    talk = (
        Message("user", "q"),
        Message("assistant", "Wait. ", calls),
        *results,
        Message("assistant", "So."),
    )
    assert marked(processor, talk, "mistral") == (
        '<s>[INST] q[/INST]‹ Wait.[TOOL_CALLS] [{"name": "a", "arguments": {}, "id": "000000001"},'
        ' {"name": "b", "arguments": {}, "id": "000000002"}, {"name": "c", "arguments": {}, "id":'
        ' "000000003"}]</s>›'
        + "".join(
            f'[TOOL_RESULTS] {{"content": {n}, "call_id": "00000000{n}"}}[/TOOL_RESULTS]'
            for n in (1, 2, 3)
        )
        + "‹ So.</s>›"
    )
    with pytest.raises(
        DataError, match="llama3 calls one tool at a time, and an answer calls several"
    ):
        ChatTemplate(TEMPLATES["llama3"], processor).encode(talk)
    alone = (talk[0], Message("assistant", "Wait. ", calls[:1]))
    assert marked(processor, alone, "llama3").endswith(
        '‹Wait.\n\n{"name": "a", "parameters": {}}<|eot_id|>›'
    )
    with pytest.raises(
        DataError, match="llama3 describes tools in the first question, and the conversation begins"
    ):
        ChatTemplate(TEMPLATES["llama3"], processor).encode(talk[1:], tools=TOOLS)
