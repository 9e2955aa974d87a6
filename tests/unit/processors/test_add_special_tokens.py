"""How documents begin: with the tokenizer's own start token where it puts one, in training as
elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pretrained_folders import transformers, write_tokenizer
from tokenizers import Tokenizer, processors
from torch import Tensor

from groundup.core.values import Conversation, Document, Message
from groundup.export.huggingface import Transformers
from groundup.models.gpt import GPTConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig
from groundup.reports.inspect_texts import TextInspector
from groundup.tasks.chat.task import Chat
from groundup.tasks.language_modeling import LanguageModeling

pytestmark = pytest.mark.xdist_group("transformers")

MODEL = GPTConfig(vocabulary_size=320, layers=1, width=8, heads=1, context_length=32).build().eval()
START, END = 0, 1  # <s> and </s>
# What tokenizer.json puts before a text, what tokenizer_config.json says, and what a document then
# begins with.
KINDS: dict[str, tuple[bool, dict[str, Any], int]] = {
    "llama3": (True, {}, START),
    "gemma": (True, {"add_bos_token": True}, START),
    "llama2-slow": (False, {"add_bos_token": True}, START),
    "gpt2": (False, {"bos_token": "</s>"}, END),
    "gpt2-with-start": (True, {"bos_token": "</s>", "add_bos_token": True}, END),
    "qwen": (False, {"bos_token": None, "add_bos_token": False}, END),
    "smollm2-instruct": (False, {}, END),
    "told-not-to": (True, {"add_bos_token": False}, END),
}


def write(folder: Path, puts: bool, changed: dict[str, Any]) -> TokenizerProcessor:
    tokenizer = write_tokenizer(folder, template=None)
    config = json.loads((folder / "tokenizer_config.json").read_text()) | changed
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if puts:
        start = config["bos_token"]
        tokens = [(start, tokenizer.token_to_id(start))]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A", pair=f"{start} $A $B:1", special_tokens=tokens
        )
        tokenizer.save(str(folder / "tokenizer.json"))
    return TokenizerJSONConfig(path=str(folder)).fit(lambda: iter(()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_training_prediction_and_export_begin_alike(kind: str, tmp_path: Path) -> None:
    puts, changed, first = KINDS[kind]
    task, chat, text = LanguageModeling(), Chat(template="plain"), "A text"
    made = write(tmp_path / "base", puts, changed)
    made.save(tmp_path / "run")
    loaded = TokenizerProcessor.load(tmp_path / "run")
    for processor in (made, loaded, loaded.with_chat_template(None)):
        (plain,) = processor.encode_batch([text])
        (trained,) = task.encode([Document("a", text)], processor)
        (learned,) = chat.encode([Document("a", text)], processor)
        assert trained.tokens.tolist() == learned.tokens.tolist() == [first, *plain.tolist(), END]
        read: list[Tensor] = []
        hook = MODEL.register_forward_pre_hook(lambda _, given, read=read: read.append(given[0]))
        task.predict(MODEL, text, processor, max_new_tokens=1)
        hook.remove()
        assert read[0][0].tolist() == trained.tokens[:-1].tolist()
    assert ("begin_token" in json.loads((tmp_path / "run" / "processor.json").read_text())) == (
        first == START
    )
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    ids = theirs(text)["input_ids"]
    assert ids == [first, *plain.tolist()] if first == START else ids[0] != START
    reader = Transformers.__new__(Transformers)
    assert reader.find_other_tokens(tmp_path / "run", loaded, [text]) is None


def test_a_written_tokenizer_that_puts_no_start_is_noticed(tmp_path: Path) -> None:
    processor = write(tmp_path, True, {})
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair="$A $B", special_tokens=[]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    reader = Transformers.__new__(Transformers)
    assert reader.find_other_tokens(tmp_path, processor, ["A text"]) == "A text"


def test_a_run_of_before_begins_as_it_did(tmp_path: Path) -> None:
    write(tmp_path, True, {}).save(tmp_path)
    saved = json.loads((tmp_path / "processor.json").read_text())
    del saved["begin_token"]
    (tmp_path / "processor.json").write_text(json.dumps(saved))
    assert TokenizerProcessor.load(tmp_path).begin_id == END


def test_processors_of_ours_begin_with_the_end_token() -> None:
    processor = BytesConfig().fit(lambda: iter(()))
    (sequence,) = LanguageModeling().encode([Document("a", "x")], processor)
    assert sequence.tokens.tolist() == [processor.end_id, ord("x"), processor.end_id]


@pytest.mark.parametrize("said", [True, False, None])
@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
def test_gguf_files_say_it_too(said: bool | None, pre: str, tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path, template=None)
    kinds = [3 if number < 4 else 1 for number in range(320)]
    described = json.loads(tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in described["merges"]]
    names = sorted(described["vocab"], key=described["vocab"].get)
    keys = {"model": "gpt2", "pre": pre, "tokens": names, "merges": merges, "token_type": kinds}
    keys |= {"eos_token_id": END, "bos_token_id": START} | (
        {} if said is None else {"add_bos_token": said}
    )
    read = TokenizerJSONConfig.from_gguf(
        {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    )
    puts = said if said is not None else pre == "llama-bpe"
    assert read.begin_id == (START if puts else END)
    for template in (None, "x"):
        written = read.with_chat_template(template).to_gguf(320)
        assert written["tokenizer.ggml.add_bos_token"] is (puts or template is None)
        assert written["tokenizer.ggml.bos_token_id"] == (START if puts or template else END)


def test_inspecting_shows_a_doubled_start(tmp_path: Path) -> None:
    from fixed_source import Fixed

    processor = write(tmp_path, True, {})
    texts = Fixed.model_construct(
        train=(Document("a", "<s>Once"), Document("b", "Once")), validation=()
    )
    notes = "\n".join(
        TextInspector(texts, LanguageModeling(), processor, tmp_path).inspect().warnings
    )
    assert (
        "1 of 2 train examples spell the start token, which is put before them anyway: a doubled"
        " start" in notes
    )
    talk = Conversation("talk", (Message("user", "Hi"), Message("assistant", "Yo")))
    template = (
        "{{ bos_token + bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{%"
        " generation %}"
    )
    template += (
        "{{ m.content + eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{%"
        " endfor %}"
    )
    chats = Fixed.model_construct(train=(talk,), validation=())
    notes = "\n".join(
        TextInspector(chats, Chat(), processor.with_chat_template(template), tmp_path)
        .inspect()
        .warnings
    )
    assert (
        "1 of 1 train examples have a special token twice in a row (a doubled start or end)"
        in notes
    )
