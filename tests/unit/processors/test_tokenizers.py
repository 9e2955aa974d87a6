"""Processors: what they learn, and existing tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from groundup.core.errors import DataError
from groundup.media.text_sample import TextSample
from groundup.processors.text.bpe import BPEConfig
from groundup.processors.text.bytes import BytesConfig
from groundup.processors.text.characters import CharacterProcessor, CharactersConfig
from groundup.processors.text.stream_decoder import StreamDecoder
from groundup.processors.text.tokenizer import TokenizerProcessor
from groundup.processors.text.tokenizer_json import TokenizerJSONConfig
from groundup.runs.processor import load_processor

LESSON = ["the cat sat on the mat; the rat sat on the cat. " * 20, "2024 12345678 numbers\n" * 20]


@pytest.fixture(scope="module")
def bpe() -> TokenizerProcessor:
    return BPEConfig(vocab_size=285).fit(lambda: iter(LESSON))


def _wordless(tokens: dict[str, int], **model: object) -> Tokenizer:
    return Tokenizer(models.BPE(vocab=tokens, merges=[], **model))


def test_what_goes_around_a_text_is_what_the_file_puts_there(tmp_path: Path) -> None:
    names = ["<s>", "</s>", "<pad>", "<mask>", "<unk>", "eng_Latn", "deu_Latn", "a", "b"]
    tokenizer = _wordless({name: number for number, name in enumerate(names)})
    tokenizer.add_special_tokens(names[:7])
    named = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "mask": "<mask>", "eos": "</s>"}
    config = {f"{name}_token": token for name, token in named.items()}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    frames = []
    for start in ("<s>", "eng_Latn", None):
        if start is not None:
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{start} $A </s>", special_tokens=[(start, names.index(start)), ("</s>", 1)]
            )
        else:
            tokenizer.post_processor = processors.TemplateProcessing(single="$A")
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        found: Any = TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(()))
        frames.append(found.frame)
    assert frames == [(0, 1), (5, 1), (0, 1)]


def test_bytes_are_their_own_ids() -> None:
    processor = BytesConfig().fit(lambda: iter(()))
    assert processor.encode_batch(["aé"])[0].tolist() == [97, 195, 169]
    assert processor.vocabulary_size == 262
    assert processor.end_id == 256


def test_characters_come_by_frequency_and_rare_ones_are_bytes() -> None:
    processor = CharactersConfig(min_count=2).fit(lambda: iter(["bbba", "ac月"]))
    assert processor.characters == "ba"
    assert processor.encode_batch(["ab月"])[0].tolist() == [263, 262, *"月".encode()]


def test_characters_beyond_the_basic_plane_are_one_token() -> None:
    processor = CharacterProcessor("🎉")
    assert processor.encode_batch(["🎉"])[0].tolist() == [262]
    assert processor.token_bytes()[262] == 4


def test_bpe_has_the_size_that_was_asked_for_or_less(bpe: TokenizerProcessor) -> None:
    assert bpe.vocabulary_size == 285
    assert BPEConfig(vocab_size=4096).fit(lambda: iter(["aaaa"])).vocabulary_size < 300


def test_bpe_merges_what_is_frequent_and_cuts_digits_by_three(bpe: TokenizerProcessor) -> None:
    (tokens,) = bpe.encode_batch([" the cat"])
    assert [bpe.decode([token]) for token in tokens] == [" the", " cat"]
    (digits,) = bpe.encode_batch(["12345678"])
    assert max(bpe.token_bytes()[digits]) <= 3


def test_bpe_of_words_reads_a_word_alike_wherever_it_stands(tmp_path: Path) -> None:
    texts = ["The film isn't good -- at all...", "the\tFILM, good", "Ça va"]
    words = BPEConfig(vocab_size=400, min_frequency=1, words=True).fit(lambda: iter(texts))
    first, second = words.encode_batch(["(the film)", "FILM  the."])
    assert set(first.tolist()) & set(second.tolist()) == set(
        words.encode_batch(["the film"])[0].tolist()
    )
    assert (
        words.decode(words.encode_batch(["The FILM isn't\nça"])[0].tolist())
        == " the film isn ' t ça"
    )
    assert words.token_bytes()[second].sum() == len(" film the .")
    words.save(tmp_path)
    assert (
        TokenizerProcessor.load(tmp_path).encode_batch(["FILM  the."])[0].tolist()
        == second.tolist()
    )


def test_of_more_text_than_asked_for_an_even_sample_is_learned_from() -> None:
    texts = [f"text number {n} of many " + "é" * (n % 50) for n in range(2000)]
    size = sum(len(text.encode()) for text in texts)
    whole = TextSample.of(texts, size)
    assert list(whole) == texts
    assert whole.bytes_kept == whole.bytes_read == size
    sample = TextSample.of(texts, size // 3)
    assert size / 6 < sample.bytes_kept <= size / 3
    assert sample.bytes_read == size
    # evenly: of each half of the texts about as many
    early = sum(text in set(texts[:1000]) for text in sample)
    assert 0.3 < early / len(list(sample)) < 0.7
    # nothing but the texts decides, and a part's share of the sample is drawn from it alone
    assert sorted(TextSample.of(texts[::-1], size // 3)) == sorted(sample)
    first = set(TextSample.of(texts[:700], size // 3))
    assert {text for text in sample if text in set(texts[:700])} <= first


def test_a_long_text_is_drawn_from_in_pieces() -> None:
    book = "".join(f"{n:09} " for n in range(60_000))  # 600,000 characters
    assert list(TextSample.of([book], len(book))) == [book]
    drawn = list(TextSample.of([book], len(book) // 2))
    assert 1 <= len(drawn) <= 3
    assert all(len(piece) == 100_000 and piece in book for piece in drawn)


def test_a_tokenizer_is_learned_from_a_sample(caplog: pytest.LogCaptureFixture) -> None:
    texts = [f"word{n} " * 1000 for n in range(260)]
    caplog.set_level("INFO", logger="groundup")
    BPEConfig(vocab_size=300, sample_mb=1).fit(lambda: iter(texts))
    assert "is learned from 1 MB drawn from 2 MB of text" in caplog.text


def test_ids_beyond_the_vocabulary_are_left_out(bpe: TokenizerProcessor) -> None:
    (tokens,) = bpe.encode_batch(["cat"])
    assert bpe.decode([*tokens.tolist(), 99_999]) == "cat"
    assert CharacterProcessor("").decode([97, 99_999]) == "a"


def test_truncation_and_padding_of_a_foreign_file_are_off(
    bpe: TokenizerProcessor, tmp_path: Path
) -> None:
    bpe.save(tmp_path)
    library = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.enable_truncation(2)
    library.enable_padding(length=50)
    library.save(str(tmp_path / "tokenizer.json"))
    foreign = TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(()))
    assert (
        foreign.encode_batch(["the cat sat"])[0].tolist()
        == bpe.encode_batch(["the cat sat"])[0].tolist()
    )


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("tokenizer_config.json", {"eos_token": "<|user|>", "bos_token": None}, "<|user|>"),
        ("tokenizer_config.json", {"eos_token": {"content": "<|user|>"}}, "<|user|>"),
        ("tokenizer_config.json", {"eos_token": "<missing>"}, "<|endoftext|>"),
        ("generation_config.json", {"eos_token_id": [3, 5]}, "<|assistant|>"),
        ("other.json", {}, "<|endoftext|>"),
    ],
)
def test_the_end_token_is_found(
    bpe: TokenizerProcessor, tmp_path: Path, file: str, content: dict[str, object], expected: str
) -> None:
    bpe.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / file).write_text(json.dumps(content))
    assert TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(())).end_token == expected


def test_the_end_token_of_the_recipe_goes_first(bpe: TokenizerProcessor, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    named = TokenizerJSONConfig(path=str(tmp_path), end_token="<|end|>").fit(lambda: iter(()))
    assert named.end_id == bpe.special_id("<|end|>")


@pytest.mark.parametrize(
    ("source", "expected"),
    [("A", "A"), ([{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}], "D")],
)
def test_the_chat_template_of_a_folder_is_found(
    bpe: TokenizerProcessor, tmp_path: Path, source: object, expected: str
) -> None:
    bpe.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": source, "eos_token": "<|end|>"})
    )
    assert TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(())).chat_template == expected
    (tmp_path / "chat_template.jinja").write_text("file")
    assert TokenizerJSONConfig(path=str(tmp_path)).fit(lambda: iter(())).chat_template == "file"


def test_sentencepiece_pieces_know_their_bytes() -> None:
    byte_tokens = {f"<0x{value:02X}>": value for value in range(256)}
    library = _wordless(
        byte_tokens | {"▁": 256, "a": 257, "月": 258, "</s>": 259}, byte_fallback=True
    )
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    library.add_special_tokens([AddedToken("</s>", special=True)])
    processor = TokenizerProcessor(library, "</s>", None)
    assert processor.token_bytes()[256:].tolist() == [1, 1, 3, 0]
    (tokens,) = processor.encode_batch(["a 月é a"])
    assert processor.decode(tokens.tolist()) == "a 月é a"
    assert processor.token_bytes()[tokens].sum() == len(" a 月é a".encode())
    decoder = StreamDecoder(processor)
    assert "".join(map(decoder.push, tokens)) + decoder.flush() == "a 月é a"


def test_a_tokenizer_without_spaces_has_no_bytes() -> None:
    library = Tokenizer(models.WordLevel({"a": 0, "[EOS]": 1}, unk_token="[EOS]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    processor = TokenizerProcessor(library, "[EOS]", None)
    with pytest.raises(DataError, match="WordLevel tokenizer does not keep spaces"):
        processor.token_bytes()


def test_a_broken_character_is_held_until_it_is_whole() -> None:
    decoder = StreamDecoder(CharacterProcessor(""))
    pushed = [decoder.push(value) for value in "é月".encode()]
    assert pushed == ["", "é", "", "", "月"]
    assert [decoder.push(0xE6), decoder.push(97), decoder.push(0xE6)] == ["", "\ufffda", ""]
    assert decoder.flush() == "\ufffd"
    assert decoder.flush() == ""


def test_the_saved_files_are_text_that_hides_nothing(
    bpe: TokenizerProcessor, tmp_path: Path
) -> None:
    bpe.save(tmp_path)
    assert json.loads((tmp_path / "processor.json").read_text()) == {
        "name": "bpe",
        "end_token": "<|endoftext|>",
        "start_token": "<|endoftext|>",
    }
    assert np.array_equal(
        load_processor(tmp_path).encode_batch(["the"])[0], bpe.encode_batch(["the"])[0]
    )
