"""What processors and chat templates say about input they cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from groundup.core.errors import DataError, RecipeError, RunError
from groundup.core.settings import validate
from groundup.core.values import Message
from groundup.processors.chat.builtin_templates import TEMPLATES
from groundup.processors.chat.protection import NONCHARACTERS
from groundup.processors.chat.template import ChatTemplate
from groundup.processors.text.bpe import BPEConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.characters import CharacterProcessor, CharactersConfig
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig
from groundup.runs.processor import load_processor

TAGGED = (
    "{% for m in messages %}{{ m.role }}{% generation %}{{ m.content }}{% endgeneration %}{%"
    " endfor %}"
)
BYTES = BytesConfig().fit(lambda: iter(()))


def _template(source: str) -> ChatTemplate:
    return ChatTemplate(source, BYTES)


# --------------------------------------------------------------------------------------- tokenizers
@pytest.mark.parametrize("config", [BPEConfig(), CharactersConfig()])
def test_no_text_to_learn_from(config: BPEConfig | CharactersConfig) -> None:
    with pytest.raises(
        DataError, match=r"recipe\.processor: .*(empty|no character appears 1 times)"
    ):
        config.fit(lambda: iter(["", ""]))


def test_a_vocabulary_smaller_than_the_bytes() -> None:
    with pytest.raises(
        RecipeError,
        match=r"recipe\.processor\.vocab_size: got 100; allowed: greater than or equal to 262",
    ):
        validate(BPEConfig, {"vocab_size": 100}, "recipe.processor")


@pytest.mark.parametrize(
    "processor", [BYTES, CharacterProcessor("a"), BPEConfig().fit(lambda: iter(["abc"]))]
)
def test_a_lone_surrogate(processor: CharacterProcessor | TokenizerProcessor) -> None:
    with pytest.raises(
        DataError,
        match=(
            r"text 0 of the batch, character 2: a lone surrogate U\+D800 after 'ab', which UTF-8"
            r" cannot"
        ),
    ):
        processor.encode_batch(["ab\ud800"])


def test_no_such_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.json: no such file\. Give a tokenizer\.json"):
        TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(()))


@pytest.mark.parametrize("content", ["", "{}", '{"model": 3}', "[1"])
def test_a_tokenizer_json_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match="is not a tokenizer that the tokenizers library can open"):
        TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(()))


def test_a_tokenizer_json_that_is_binary(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not a tokenizer that the tokenizers library can open"):
        TokenizerJSONConfig(path=str(tmp_path / "tokenizer.json")).fit(lambda: iter(()))


def test_nothing_says_which_token_ends_a_text(tmp_path: Path) -> None:
    Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        DataError,
        match=r"nothing says which token ends a text\. Name it in the recipe: .*end_token",
    ):
        TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(()))


def test_an_end_token_that_the_tokenizer_lacks(tmp_path: Path) -> None:
    BPEConfig().fit(lambda: iter(["abc"])).save(tmp_path)
    with pytest.raises(
        DataError, match=r"no token '<\|endoftxt\|>'; did you mean '<\|endoftext\|>'"
    ):
        TokenizerJSONConfig(path=str(tmp_path), end_token="<|endoftxt|>").fit(lambda: iter(()))


def test_a_processor_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere: holds no processor\.json\. Train the run first"):
        load_processor(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "is damaged: it names no processor"),
        ("[]", "is damaged: it names no processor"),
        ("{}", "is damaged: it names no processor"),
        ('{"name": "bpe"}', "has no text 'end_token'"),
        ('{"name": "bytes"}', "has no text 'characters'"),
    ],
)
def test_a_damaged_processor_json(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "processor.json").write_text(content)
    with pytest.raises((DataError, RunError), match=problem):
        load_processor(tmp_path)


def test_a_processor_nobody_registered(tmp_path: Path) -> None:
    (tmp_path / "processor.json").write_text(json.dumps({"name": "bpo"}))
    with pytest.raises(RecipeError, match=r"there is no processor 'bpo'; did you mean 'bpe'"):
        load_processor(tmp_path)


def test_a_chat_template_file_that_is_not_utf_8(tmp_path: Path) -> None:
    BYTES.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"chat_template\.jinja: is not UTF-8 at byte 2"):
        load_processor(tmp_path)


# ----------------------------------------------------------------------------------- chat templates
def test_an_unknown_role() -> None:
    messages = [Message("user", "a"), Message("asistant", "b")]
    with pytest.raises(
        DataError,
        match=r"message 2: unknown role 'asistant'; did you mean 'assistant'\? allowed: system",
    ):
        _template(TEMPLATES["groundup"]).encode(messages)


@pytest.mark.parametrize(
    "source",
    ["one\n{% for m in messages %}\n{{ m. }}", "\n\n{% generation %}x", "\n\n{% endfor %}"],
)
def test_a_syntax_error_names_its_line(source: str) -> None:
    with pytest.raises(DataError, match="chat template line 3: is not valid Jinja"):
        _template(source)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ raise_exception('a system message is required') }}", "a system message is required"),
        ("{{ nothing.here }}", "'nothing' is undefined"),
        ("{{ messages[0].content + 3 }}", "does not render"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{% include 'other' %}", "does not render"),
    ],
)
def test_a_template_that_does_not_render(source: str, problem: str) -> None:
    with pytest.raises(
        DataError,
        match=rf"chat template: does not render.*{problem.replace('does not render', '')}",
    ):
        _template(source)


def test_a_special_token_that_the_tokenizer_lacks() -> None:
    with pytest.raises(
        DataError,
        match=r"uses the special token <\|im_start\|>, which the tokenizer lacks.*it has: <\|en",
    ):
        _template(TEMPLATES["chatml"])


def test_a_special_token_spelled_in_a_message_is_no_error() -> None:
    messages = [Message("user", "what is <|im_start|>?"), Message("assistant", "<|im_start|>")]
    assert len(_template(TEMPLATES["groundup"]).encode(messages).tokens)


def test_a_template_that_hides_what_the_assistant_wrote() -> None:
    with pytest.raises(
        DataError,
        match=r"leaves out what turn 1 \(user\) has. Remove the row; or set task.template to one",
    ):
        _template("{% for m in messages %}{{ m.content | length }}{% endfor %}")


def test_a_conversation_that_holds_every_noncharacter() -> None:
    with pytest.raises(DataError, match="nearly all of the noncharacters"):
        _template(TEMPLATES["groundup"]).encode([Message("user", "".join(NONCHARACTERS))])


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ range(10 ** 9) }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        (
            "{% set n = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x"
            " %}{% endfor %}"
        ),
        (
            "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{%"
            " endfor %}"
        ),
        "{{ 'a' * 10 ** 9 }}",
        "{{ 9 ** 999999999 }}",
        "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{{ 'a'.ljust(10 ** 9) }}",
        "{{ 'a' | center(999999999) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{% for i in range(9000) %}{{ 'a' * 1000 }}{% endfor %}",
        "{{ 'ab'.translate({97: 'a' * 1000}) }}",
        "{% set s = 'a' * 40000 %}{{ s.replace('a', s) }}",
        "{% set s = 'a' * 40000 %}{{ s | replace('a', s) }}",
        "{% set s = 'a' * 4000 %}{{ s.join(s | list) }}",
        "{% set s = 'a' * 4000 %}{{ s | list | join(s) }}",
        "{{ ('\t' * 4000).expandtabs(90000) }}",
        "{{ ('\n' * 4000) | indent(90000) }}",
        "{{ ('%s' * 4000) % (('a' * 4000,) * 4000) }}",
        "{{ ('{0}' * 4000).format('a' * 4000) }}",
        "{{ ('a' * 4000) | wordwrap(1, wrapstring='b' * 4000) }}",
        (
            "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{%"
            " endfor %}"
        ),
        (
            "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x}"
            " %}{% endfor %}"
        ),
        (
            "{% set n = namespace(x=1) %}{% for i in range(60) %}{% set n.x = dict(a=n.x, b=n.x)"
            " %}{% endfor %}"
        ),
        (
            "{% set s = 'a' * 299999 %}{% for i in range(99999) %}{% set t = s | upper | lower %}{%"
            " endfor %}"
        ),
        "{% set s = 'a' * 299999 %}{% for i in range(99999) %}{% set t = s.upper() %}{% endfor %}",
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{"
            " f(60) }}"
        ),
    ],
)
def test_a_hostile_template_is_stopped(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.processors.chat.sandbox.SECONDS", 0.2)
    monkeypatch.setattr("groundup.processors.chat.sandbox.SIZE", 400_000)
    with pytest.raises(
        DataError, match=r"chat template: does what a template may not.*from a source you trust"
    ):
        _template(attack + TAGGED)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("x" * 1_000_001, "has 1,000,098 characters; allowed: 1,000,000"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "is nested too deeply"),
        ("{{ " + "[" * 150 + "1" + "]" * 150 + " }}", "is nested too deeply"),
        ("{% if 1 %}" * 150 + "{% endif %}" * 150, "is nested too deeply"),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
    ],
)
def test_a_template_that_no_template_is(source: str, problem: str) -> None:
    with pytest.raises(DataError, match=f"chat template.*{problem}"):
        _template(source + TAGGED)


def test_endless_recursion_is_stopped() -> None:
    with pytest.raises(DataError, match="maximum recursion depth"):
        _template("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}" + TAGGED)


def test_what_real_templates_use_still_works() -> None:
    source = (
        "{%- set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% if m.role == 'tool' %}{%"
        " continue %}{% endif %}{% set ns.n = ns.n + loop.index0 + loop.length %}{% if loop.last"
        " %}{% break %}{% endif %}{% endfor %}{{ '%s-%02d' % ('a', ns.n) }} {{ '* %s' | format('x')"
        " }} {{ 'a\nb' | indent(2) }} {{ {'k': 'é<'} | tojson }} {{ strftime_now('%Y') | length }}"
        " {{ 'x' ~ ns.n ~ 'y' }}"
    )
    messages = [Message("user", "a"), Message("assistant", "b")]
    assert _template(source + TAGGED).render(
        messages
    ) == 'a-05 * x a\n  b {"k": "é<"} 4 x5y' + "userassistant".replace("user", "usera").replace(
        "assistant", "assistantb"
    )
