"""A folder in Hugging Face layout, checked against ``transformers`` and against groundup's own
reload."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.contracts.models import FromHuggingFace, ModelConfig
from groundup.core.errors import CheckpointError
from groundup.core.settings import validate
from groundup.export.verify import Model, Reader, Sample
from groundup.formats.huggingface_folder import find_pretrained, read_config
from groundup.formats.transformers_library import require_transformers
from groundup.nn.pooling import within
from groundup.runs.run import Run
from groundup.weights.load import read_pretrained
from groundup.weights.model_folder import fill_model_folder
from groundup.weights.restore import load_weights

__all__ = ["DTYPES", "Transformers", "reload_folder", "round_to", "write_folder"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_INPUTS = {  # groundup's name: Hugging Face's
    "tokens": "input_ids",
    "token_types": "token_type_ids",
    "inputs": "pixel_values",
}


def write_folder(
    run: Run, folder: Path, config: ModelConfig, weights: dict[str, Tensor], dtype: str
) -> None:
    """Write config.json, tokenizer and weights to a folder that exists.

    Raises:
        CheckpointError: If ``transformers`` has no such model.
    """
    values, tensors = config.to_huggingface(weights)
    stored = {name: tensor.to(DTYPES[dtype]) for name, tensor in tensors.items()}
    fill_model_folder(run, folder, values, stored, str(DTYPES[dtype]).removeprefix("torch."))


def round_to(weights: dict[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return weights as they come back from a folder of that dtype, in float32."""
    return {name: tensor.to(DTYPES[dtype]).float() for name, tensor in weights.items()}


def reload_folder(folder: Path, kind: type[ModelConfig]) -> Model:
    """Return the model in a folder, built and filled from its files alone, as ``init.pretrained``
    does it."""
    # What writes this layout reads it too.
    assert issubclass(kind, FromHuggingFace)
    values = kind.from_huggingface(read_config(folder))
    config = validate(kind, values, str(folder / "config.json"))
    module = config.build()
    load_weights(module, read_pretrained(find_pretrained(str(folder)), config), str(folder))
    return Model("groundup's reload of the folder", module)


class Transformers(Reader):
    """A folder opened by ``transformers``, in float32."""

    def __init__(self, folder: Path) -> None:
        library = require_transformers()
        self.name = f"transformers {library.__version__}"
        self.folder = folder
        library.utils.logging.disable_progress_bar()
        kind = str((read_config(folder).get("architectures") or [""])[0])
        if "LM" in kind:
            cls = library.AutoModelForCausalLM
        else:
            # by its name: the head would be left out by the library's AutoModel
            cls = getattr(library, kind, library.AutoModel)
        try:
            found = cls.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(
                self.name,
                f"does not open the folder that was written: {lines[0]}",
                "Nothing was exported, and the run is as it was. Try another version of"
                " transformers",
            ) from error
        self.module: nn.Module = found.eval()

    def _run(self, sample: Sample) -> Any:
        """Return what the model returns for the sample's inputs, as far as it takes them."""
        if "source" in sample.inputs:
            tokens = sample.inputs["tokens"]
            source = sample.inputs["source"]
            return self.module(input_ids=source, decoder_input_ids=tokens, use_cache=False)
        if sample.prompt and "inputs" in sample.inputs:
            frames = sample.inputs["inputs"].transpose(1, 2)
            tokens = sample.inputs["tokens"]
            return self.module(frames, decoder_input_ids=tokens, use_cache=False)
        if sample.prompt:
            return self.module(sample.inputs["tokens"], use_cache=False)
        # a model reads no others, or has them in the mask
        inputs = {_INPUTS[name]: value for name, value in sample.inputs.items() if name in _INPUTS}
        if "lengths" in sample.inputs:
            inputs["attention_mask"] = within(
                sample.inputs["lengths"], sample.inputs["tokens"]
            ).long()
        # DistilBERT has no token types
        taken = inspect.signature(self.module.forward).parameters
        return self.module(**{name: value for name, value in inputs.items() if name in taken})

    @torch.no_grad()
    def outputs(self, sample: Sample, positions: Sequence[int]) -> Tensor:
        """Return (P, V) logits; of anything but a text that is continued, what the model gives for
        each row."""
        found = self._run(sample)
        if "start_logits" in found:
            return torch.stack((found.start_logits, found.end_logits), -1).float()
        name = "logits" if "logits" in found else "last_hidden_state"
        logits: Tensor = found[name].float()
        return logits[0, list(positions)] if sample.prompt else logits

    @torch.no_grad()
    def layers(self, sample: Sample) -> dict[str, Tensor]:
        """Return the embedding's output and that of each block, by groundup's names."""
        model: Any = self.module
        found: dict[str, Tensor] = {}
        blocks: list[nn.Module]
        if "source" in sample.inputs or (sample.prompt and "inputs" in sample.inputs):
            blocks = [
                block
                for stack in (model.get_encoder(), model.get_decoder())
                for block in next(m for m in stack.modules() if isinstance(m, nn.ModuleList))
            ]
        else:
            depth = model.config.num_hidden_layers
            lists = (m for m in model.modules() if isinstance(m, nn.ModuleList))
            blocks = list(next(found for found in lists if len(found) == depth))
        named = {"embed": model.get_input_embeddings()}
        named |= {f"blocks.{number}": block for number, block in enumerate(blocks)}

        def keep(name: str, _: Any, __: Any, output: Any) -> None:
            # some blocks return their states with what their attention looked at
            found.setdefault(name, output[0] if isinstance(output, tuple) else output)

        hooks = [
            module.register_forward_hook(partial(keep, name)) for name, module in named.items()
        ]
        try:
            self._run(sample)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: value.float() for name, value in found.items()}

    def find_other_tokens(self, folder: Path, processor: Any, texts: Sequence[str]) -> str | None:
        """Return the first text that the tokenizer in a folder reads as other tokens than
        groundup's, or None."""
        tokenizer = require_transformers().AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )
        # what it puts before texts
        begin = [processor.begin_id] if processor.begin_token else []
        for text, own in zip(texts, processor.encode_batch(texts), strict=True):
            bare = tokenizer.encode(text, add_special_tokens=False)
            whole = tokenizer.encode(text, add_special_tokens=True)
            if bare != own.tolist() or whole[: len(begin)] != begin:
                return text
        return None
