"""A folder for CTranslate2, built of the library's own specification of a transformer and checked
against what the library computes from it.

Shape legend: P compared positions, V tokens of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.contracts.models import EncoderDecoder
from groundup.core.errors import CheckpointError, MissingExtraError
from groundup.export.verify import Reader, Sample
from groundup.nn.encoder_decoder import EncoderDecoderTransformer
from groundup.nn.encoder_decoder_block import EncoderDecoderShape, TwoStackBlock
from groundup.nn.positions import RelativeBias, sinusoids

__all__ = [
    "KINDS",
    "CTranslate2",
    "fill_block",
    "fill_norm",
    "numbers",
    "open_folder",
    "require_ctranslate2",
    "token_names",
    "write_folder",
]

KINDS = {"fp32": None, "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}
_NOTHING = "Nothing was exported, and the run is as it was"
_ACTIVATIONS = {
    "relu": "RELU",
    "silu": "SWISH",
    "swiglu": "SWISH",
    "gelu": "GELU",
    "gelu_tanh": "GELUTanh",
    "geglu_tanh": "GELUTanh",
}


def require_ctranslate2() -> Any:
    """Return the library.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import ctranslate2
    except ImportError:
        raise MissingExtraError("ctranslate2", "ctranslate2") from None
    return ctranslate2


# ----------------------------------------------------------------------------------------- writing
def write_folder(
    folder: Path,
    model: nn.Module,
    names: tuple[Sequence[str], Sequence[str]],
    end: int,
    dtype: str,
) -> None:
    """Write a model's folder.

    Args:
        folder: Exists.
        model: In float32, on the CPU.
        names: Of ``token_names``, of the inputs and of the outputs.
        end: The token that ends an output.
        dtype: One of ``KINDS``.

    Raises:
        CheckpointError: If the library has no such model.
    """
    library = require_ctranslate2()
    shape = _shape_of(model)
    assert isinstance(model, EncoderDecoderTransformer)
    spec = _empty_spec(library, shape)
    for decodes, stack in ((False, spec.encoder), (True, spec.decoder)):
        _fill_stack(library, stack, model, decodes=decodes)
    spec.decoder.projection.weight = numbers(model.output_weight)
    if model.output_bias is not None:
        spec.decoder.projection.bias = numbers(model.output_bias)
    if shape.output_scale != 1.0:
        spec.decoder.scale_outputs = np.float32(shape.output_scale)
    read, written = names
    spec.register_source_vocabulary(list(read))
    spec.register_target_vocabulary(list(written))
    spec.config.bos_token = spec.config.decoder_start_token = written[model.start_id]
    spec.config.eos_token = written[end]
    # Every token of an input is in the vocabulary; the library asks for one for those that are not.
    spec.config.unk_token = written[end]
    spec.config.layer_norm_epsilon = shape.block.norm_eps
    spec.validate()
    spec.optimize(quantization=KINDS[dtype])
    spec.save(str(folder))


def token_names(folder: Path, size: int) -> list[str]:
    """Return the names of the ``size`` tokens that the library knows: those of the tokenizer.json
    in a folder, and of tokens that it lacks their numbers."""
    names = {}
    path = folder / "tokenizer.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        names = {number: name for name, number in stored["model"]["vocab"].items()}
        names |= {entry["id"]: entry["content"] for entry in stored.get("added_tokens") or []}
    return [names.get(number, f"<token_{number}>") for number in range(size)]


def _shape_of(model: nn.Module) -> EncoderDecoderShape:
    """Return the model's shape, if the library has one like it."""
    if not isinstance(model, EncoderDecoderTransformer):
        kind = type(model).__name__
        if isinstance(model, EncoderDecoder):
            problem = (
                f"{kind} is another library's, and only encoder_decoder is written for CTranslate2"
            )
            raise CheckpointError("model", problem, "Export it to huggingface")
        remedy = "Export it to huggingface, onnx or gguf"
        raise CheckpointError("model", f"{kind} reads no text to write another one", remedy)
    if model.copying is not None:
        problem = "CTranslate2 has no decoder that copies tokens of its input (copying: true)"
        raise CheckpointError("model", problem, "Export it to onnx, or train with copying: false")
    return model.shape


def _empty_spec(library: Any, shape: EncoderDecoderShape) -> Any:
    specs = library.specs.transformer_spec
    activation = _ACTIVATIONS[shape.block.activation]
    settings: dict[str, Any] = {
        "num_heads": shape.block.heads,
        "pre_norm": not shape.post_norm,
        "activation": getattr(library.specs.common_spec.Activation, activation),
        "layernorm_embedding": shape.embedding_norm,
        "relative_attention_bias": shape.positions == "relative",
        "ffn_glu": shape.block.activation in ("swiglu", "geglu_tanh"),
        "rms_norm": shape.block.norm == "rmsnorm",
        "head_dim": shape.block.head_dim,
    }
    if shape.positions == "rotary":
        settings |= {
            "rotary_dim": shape.block.head_dim,
            "rotary_interleave": False,
            "rotary_base": shape.rope_theta,
        }
    encoder = specs.TransformerEncoderSpec(shape.layers, **settings)
    decoder = specs.TransformerDecoderSpec(shape.decoder_layers, **settings)
    if shape.positions == "rotary":
        # Without a table, the library would add sinusoids to the encoder's embeddings.
        del encoder.position_encodings
    return specs.TransformerSpec(encoder, decoder)


def _fill_stack(
    library: Any, stack: Any, model: EncoderDecoderTransformer, *, decodes: bool
) -> None:
    shape = model.shape
    positions = model.positions_source
    norm = model.embed_source_norm
    blocks = list(model.blocks)[: shape.layers]
    last: nn.Module | None = blocks[-1].last_norm  # type: ignore[assignment]
    if decodes:
        positions = model.positions_target
        norm = model.embed_target_norm
        blocks = list(model.blocks)[shape.layers :]
        last = model.norm
    embedding = stack.embeddings if decodes else stack.embeddings[0]
    embed = model.embed if decodes or model.embed_source is None else model.embed_source
    embedding.weight = numbers(embed.weight)
    stack.scale_embeddings = np.float32(shape.embedding_scale)
    if isinstance(positions, nn.Embedding):
        stack.position_encodings.encodings = numbers(positions.weight[shape.position_offset :])
    elif shape.positions == "sinusoidal":
        places = torch.arange(shape.context_length)
        stack.position_encodings.encodings = numbers(sinusoids(places, shape.block.width))
    if norm is not None:
        fill_norm(stack.layernorm_embedding, norm)
    if last is not None:
        fill_norm(stack.layer_norm, last)
    for spec, block in zip(stack.layer, blocks, strict=True):
        assert isinstance(block, TwoStackBlock)
        fill_block(library, spec, block, shape, positions)


def fill_block(
    library: Any,
    spec: Any,
    block: TwoStackBlock,
    shape: EncoderDecoderShape,
    positions: nn.Module | None,
) -> None:
    """Give the library's specification of a layer the weights of a block; of relative positions it
    holds them, too."""
    attention = block.attention
    own = spec.self_attention
    _fuse(library, own.linear[0], attention.query, attention.key, attention.value)
    _fill_linear(own.linear[1], attention.output)
    fill_norm(own.layer_norm, block.attention_norm)
    if isinstance(positions, RelativeBias):
        own.relative_attention_bias = numbers(positions.weight)
        own.relative_attention_max_distance = np.int32(positions.longest)
    attentions = [own]
    if block.cross_attention is not None:
        cross = block.cross_attention
        assert block.cross_norm is not None
        _fill_linear(spec.attention.linear[0], cross.query)
        _fuse(library, spec.attention.linear[1], cross.key, cross.value)
        _fill_linear(spec.attention.linear[2], cross.output)
        fill_norm(spec.attention.layer_norm, block.cross_norm)
        attentions.append(spec.attention)
    if shape.attention_scale is not None:
        for each in attentions:
            each.queries_scale = np.float32(shape.attention_scale)
    mlp = block.mlp
    if mlp.gate is None:
        _fill_linear(spec.ffn.linear_0, mlp.up)
    else:
        _fill_linear(spec.ffn.linear_0, mlp.gate)
        _fill_linear(spec.ffn.linear_0_noact, mlp.up)
    _fill_linear(spec.ffn.linear_1, mlp.down)
    fill_norm(spec.ffn.layer_norm, block.mlp_norm)


def _fuse(library: Any, spec: Any, *layers: nn.Linear) -> None:
    parts = [library.specs.common_spec.LinearSpec() for _ in layers]
    for part, layer in zip(parts, layers, strict=True):
        _fill_linear(part, layer)
    library.converters.utils.fuse_linear(spec, parts)


def _fill_linear(spec: Any, layer: nn.Linear) -> None:
    spec.weight = numbers(layer.weight)
    if layer.bias is not None:
        spec.bias = numbers(layer.bias)


def fill_norm(spec: Any, norm: nn.Module) -> None:
    """Give the library's specification of a norm its weights."""
    weights = dict(norm.named_parameters())
    spec.gamma = numbers(weights["weight"])
    if "bias" in weights:
        spec.beta = numbers(weights["bias"])


def numbers(values: Tensor) -> NDArray[np.float32]:
    """Return numbers as the library takes them."""
    # A copy: the library turns the numbers into integers where they are.
    found: NDArray[np.float32] = values.detach().float().contiguous().numpy().copy()
    return found


# ----------------------------------------------------------------------------------------- reading
def open_folder(kind: Callable[..., Any], folder: Path, dtype: str) -> tuple[str, Any]:
    """Return the library's name with its version, and a folder opened by one of its classes.

    Raises:
        CheckpointError: If it is not opened.
    """
    name = f"ctranslate2 {require_ctranslate2().__version__}"
    try:
        return name, kind(
            str(folder),
            device="cpu",
            compute_type="int8_float32" if dtype == "int8" else "float32",
            inter_threads=1,
            intra_threads=torch.get_num_threads(),
        )
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            name,
            f"does not open the folder that was written: {str(error)[:200]}",
            f"{_NOTHING}. Try another version of ctranslate2",
        ) from error


class CTranslate2(Reader):
    """A folder opened by the library. Each compared position is one call.

    Args:
        folder: Of ``write_folder``.
        names: Of ``token_names``, of the inputs and of the outputs.
        dtype: One of ``KINDS``; what is not int8 is computed in float32.
    """

    slow = True

    def __init__(
        self, folder: Path, names: tuple[Sequence[str], Sequence[str]], dtype: str
    ) -> None:
        library = require_ctranslate2()
        self.name, self.translator = open_folder(library.Translator, folder, dtype)
        self.read, self.names = map(list, names)
        self.numbers = {name: number for number, name in enumerate(self.names)}

    def _translate(self, sample: Sample, prefix: Sequence[int], length: int, **options: Any) -> Any:
        """Return what it writes about the sample's input after a prefix, at most ``length`` tokens
        in all."""
        source = [self.read[token] for token in sample.inputs["source"][0].tolist()]
        found = self.translator.translate_batch(
            [source],
            [[self.names[token] for token in prefix]],
            beam_size=1,
            max_decoding_length=length,
            min_decoding_length=0,
            max_input_length=0,
            return_end_token=True,
            **options,
        )
        return found[0]

    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (P, V) logits."""
        tokens = sample.inputs["tokens"][0].tolist()
        found = []
        for position in positions:
            # The start token is none of the output.
            prefix = tokens[1 : position + 1]
            result = self._translate(sample, prefix, len(prefix) + 1, return_logits_vocab=True)
            found.append(torch.from_numpy(np.array(result.logits[0][-1])).float())
        return torch.stack(found)

    def continuation(self, sample: Sample) -> list[int]:
        """Return the tokens that it writes, as many as the sample has at most."""
        length = sample.inputs["tokens"].shape[1] - sample.prompt
        result = self._translate(sample, (), length)
        return [self.numbers[name] for name in result.hypotheses[0]]
