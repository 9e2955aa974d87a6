"""llama.cpp in place of groundup's own decoding: the same prompts, options and tokens, from a GGUF
file of the run's weights.

The file is written to the cache once for each set of weights. Before it is first used, what
llama.cpp writes with it is checked against what groundup's own model computes with the weights in
it.
Tokens go in and come out as numbers: neither its tokenizer nor its chat template has a part in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup.contracts.models import ModelConfig
from groundup.contracts.tasks import Streams
from groundup.core.errors import CheckpointError, DataError, RunError, did_you_mean
from groundup.core.seeding import key
from groundup.core.storage import Storage
from groundup.formats.llama_cpp import LlamaServer, require_llama_cpp
from groundup.formats.model_types import as_gguf
from groundup.generation.decoding import Finished
from groundup.generation.options import DecodingOptions
from groundup.inference.llama_cpp_parity import NEAR, NEAR_BY_TABLE, check_tokens
from groundup.inference.precision import check_weights
from groundup.nn.lowbit.nf4 import quantized_shapes
from groundup.runs.processor import cache_folder
from groundup.runs.run import Run
from groundup.weights.gguf import save_gguf
from groundup.weights.initial_weights import weights_of

__all__ = ["ENGINES", "LlamaCppEngine", "check_engine", "open_engine", "open_llama_cpp", "sampling"]

ENGINES = ("groundup", "llama.cpp")
_KINDS = {"fp32": "F32", "bf16": "BF16", "int8": "Q8_0"}
_BLOCK = 32  # numbers of a row that share a scale in Q8_0
# Tokens of one request. Between two of them stop texts and end tokens are looked for and a stream
# gets its piece; the server keeps what it has read, so that a request costs one or two milliseconds
# on top of its tokens.
_TOKENS = 16
# positions of the file's context beyond the model's, since llama.cpp leaves the last ones empty
_SPARE = 8
_LAYOUT = 2  # of files in the cache and of how they are opened; another number makes new ones
_OTHER = "Use the engine groundup"

log = logging.getLogger("groundup")


def check_engine(engine: str, weights: str) -> None:
    """Make sure that there is such an engine and such a precision of weights, before time is spent.

    Raises:
        RunError: If there is not.
        MissingExtraError: If the engine's library is not installed.
    """
    if engine not in ENGINES:
        raise RunError(
            "engine",
            f"{engine!r} is no engine; {did_you_mean(engine, ENGINES)}allowed:"
            f" {', '.join(ENGINES)}",
            "Choose one of these",
        )
    if engine == "llama.cpp":
        check_weights(weights)
        if weights not in _KINDS:
            raise RunError(
                "weights",
                f"{weights} are not for the engine llama.cpp; allowed: {', '.join(_KINDS)}",
                "Use weights int8, or the engine groundup",
            )
        require_llama_cpp()


def open_engine(
    run: Run, step: int, model: nn.Module, processor: Any, weights: str
) -> LlamaCppEngine:
    """Return llama.cpp with a run's weights.

    Args:
        run: The run.
        step: Of the checkpoint, for weights that the model has quantized.
        model: With the weights to write with in float32, an adapter merged; or quantized, which are
            merged here.
        processor: The run's.
        weights: ``fp32``, ``bf16`` or ``int8``.

    Raises:
        RunError: If the run's task writes nothing.
        CheckpointError: As ``open_llama_cpp``.
    """
    config = run.recipe.model
    task = run.recipe.task
    if not isinstance(task, Streams):
        raise RunError(
            str(run.folder),
            f"task {task.registered_name!r} writes nothing, which is all that llama.cpp is used"
            " for",
            _OTHER,
        )
    # The open model's, where that has them: an adapter given to ``load`` is merged nowhere else.
    merged = weights_of(run, step) if quantized_shapes(model) else model.state_dict()
    return open_llama_cpp(config, merged, processor, weights)


def open_llama_cpp(
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    processor: Any,
    weights: str,
    folder: Path | None = None,
) -> LlamaCppEngine:
    """Return llama.cpp with a model's weights; the file is written and checked, unless that was
    done before.

    Args:
        config: Of a model that GGUF files have a place for.
        tensors: Its weights by groundup's names.
        processor: Its tokenizer, which such a file cannot be without.
        weights: ``fp32`` (F32), ``bf16`` (BF16) or ``int8`` (Q8_0: 32 numbers of a row share a
            scale).
        folder: Where the file is kept; None: ``engines`` in the cache.

    Raises:
        RunError: If the model's widths do not fit such weights.
        MissingExtraError: If ``xllamacpp`` is not installed.
        CheckpointError: If a GGUF file has no place for the model or tokenizer, could not be
            written, or llama.cpp does not write with it what groundup's own decoding does.
    """
    longer = as_gguf(config, _OTHER).for_llama_cpp(_SPARE)
    tensors = {name: tensor.detach().cpu().float() for name, tensor in tensors.items()}
    if weights == "int8":
        _check_widths(tensors)
    folder = folder or cache_folder() / "engines"
    # Named by what is in it, so that a file is never taken for another checkpoint's.
    path = folder / f"{_sha256(config, tensors)[:32]}-{_KINDS[weights]}.gguf"
    note = path.with_suffix(".json")
    storage = Storage()
    known = _known(path, note)
    if not known and not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        save_gguf(path, longer, tensors, processor, _KINDS[weights], storage=storage)
    engine = LlamaCppEngine(path, config, exact=weights == "fp32")
    # What was checked with one version of llama.cpp says nothing about the next.
    if known.get("library") != engine.name:
        near = NEAR_BY_TABLE if longer.gelu_from_table else NEAR
        known = check_tokens(engine, path, processor, _KINDS[weights], near)
        known = {"library": engine.name, "bytes": path.stat().st_size, **known}
        # After the check: a file that failed it has no note, and is checked again next time.
        storage.write_text(note, json.dumps(known, indent=1) + "\n")
    where = f"{engine.name} with weights in {weights}: {path}, {known['bytes'] / 1e6:.0f} MB"
    held = f"the tokens of groundup's own decoding, {known['same']} of {known['tokens']}"
    behind = ""
    if known["same"] < known["tokens"]:
        behind = f", the others at most {known['behind']:.2g} behind"
    log.info("%s; checked against %s%s (allowed: %.2g)", where, held, behind, known["tolerance"])
    return engine


def _check_widths(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and tensor.shape[1] % _BLOCK:
            raise RunError(
                "weights",
                f"int8 of llama.cpp has rows of a multiple of {_BLOCK} numbers, and {name} of"
                f" {tensor.shape[1]}",
                "Use weights fp32 or bf16, or the engine groundup",
            )


def _sha256(config: ModelConfig, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of all that makes the file but the tokenizer, which is not used."""
    digest = hashlib.sha256(
        json.dumps([_LAYOUT, config.registered_name, config.model_dump(mode="json")]).encode()
    )
    # Sorted, so that the order in which a model lists its tensors names no new file.
    for name in sorted(tensors):
        digest.update(f"{name} {list(tensors[name].shape)}".encode())
        digest.update(np.ascontiguousarray(tensors[name].numpy()).view(np.uint8).data)
    return digest.hexdigest()


def _known(path: Path, note: Path) -> dict[str, Any]:
    """Return what was found out about a file; nothing, if it is not there any more or was not
    checked."""
    try:
        known: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        wanted = {"library", "bytes", "same", "tokens", "behind", "tolerance"}
        if known.keys() >= wanted and path.stat().st_size == known["bytes"]:
            return known
        # Not the file that was checked: a writer that was stopped, or somebody else, left it.
        path.unlink(missing_ok=True)
    except (OSError, ValueError, AttributeError):
        pass
    return {}


class LlamaCppEngine(nn.Module):
    """A GGUF file that llama.cpp writes with, in place of a model of groundup's.

    Every option of ``DecodingOptions`` means what it means there, with one exception: with a
    temperature the random numbers are llama.cpp's own, so that a seed gives the same text each
    time, from the same distribution as groundup's, but not the same text. One text is written
    after the other.

    Args:
        path: The file.
        config: The model's settings; ``context_length`` is where a text is full.
        exact: Whether nothing is rounded; as ``LlamaServer``.
    """

    def __init__(self, path: Path, config: Any, *, exact: bool) -> None:
        super().__init__()
        self.path = path
        self.config = config
        self.exact = exact
        beyond = range(config.vocabulary_size, config.embedding_rows)
        self.never = [[token, False] for token in beyond]  # the embedding's padding
        # The smallest context at first, which grows with the texts: memory is taken for all of it.
        self.server: LlamaServer = self._opened(1)
        self.name = self.server.name

    def _opened(self, context: int) -> LlamaServer:
        remedy = f"Delete {self.path} and try again, or use groundup"
        return LlamaServer(
            self.path, -(-context // 256) * 256, torch.get_num_threads(), remedy, exact=self.exact
        )

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        options: DecodingOptions,
        stop_ids: Collection[int] = (),
        finished: Finished | None = None,
    ) -> Iterator[list[int | None]]:
        """Write on from each prompt; as ``nn.decoding.generate``.

        Raises:
            DataError: If a repetition penalty is to count tokens that have left the context.
        """
        length = self.config.context_length
        longest = max(len(prompt) for prompt in prompts)
        end = longest + options.max_new_tokens
        if options.repetition_penalty != 1 and end > length + 1 and options.overflow == "roll":
            raise DataError(
                "options: repetition_penalty",
                f"and texts of up to {end} tokens, when the context is {length}: llama.cpp forgets"
                " what left it",
                "Lower max_new_tokens, or set overflow: stop",
            )
        needed = min(end, length) + _SPARE
        if needed > self.server.context:
            # Twice as much as needed: a chat grows turn by turn, and each opening reads the file
            # again.
            self.server = self._opened(min(2 * needed, length + _SPARE))
        rows: list[Iterator[int]] = [
            self._row(number, prompt, options, stop_ids, finished)
            for number, prompt in enumerate(prompts)
        ]
        if len(rows) > 1:  # the server writes one text at a time
            rows = [iter(list(row)) for row in rows]
        yield from map(list, zip_longest(*rows))

    def _row(
        self,
        number: int,
        prompt: Sequence[int],
        options: DecodingOptions,
        stop_ids: Collection[int],
        finished: Finished | None,
    ) -> Iterator[int]:
        length = self.config.context_length
        context = list(prompt[-length:])
        written = list[int]()
        kept = False
        while len(written) < options.max_new_tokens:
            # One more than fits: the token after a full context is still predicted.
            count = min(_TOKENS, options.max_new_tokens - len(written), length + 1 - len(context))
            # Each request draws by a seed of its own: with one for all, each would draw the same
            # again.
            seed = key(options.seed, "decoding", number, len(written))
            for token in self._next(context, count, options, seed, kept):
                if token in stop_ids:
                    return
                context.append(token)
                written.append(token)
                yield token
                if finished is not None and finished(number, written):
                    return
            # Once the context has moved, every token has another position, and nothing kept fits.
            kept = len(context) <= length
            if not kept:
                if options.overflow == "stop":
                    return
                context = context[-max(1, length // 2) :]

    def _next(
        self, context: list[int], count: int, options: DecodingOptions, seed: int, kept: bool
    ) -> list[int]:
        """Return the next tokens: ``count``, or fewer up to one that ends a text for llama.cpp.

        It says nothing of tokens that are no whole character while it streams, so the numbers are
        taken at the end.
        """
        request = {
            "prompt": context,
            "n_predict": count,
            "cache_prompt": kept,
            "logit_bias": self.never,
        }
        request |= sampling(options, seed, len(context) + count) | {
            "return_tokens": True,
            "verbose": True,
        }
        answer = self.server.complete(request)
        tokens = [int(token) for token in answer.get("__verbose", {}).get("tokens", [])]
        if not tokens:
            raise CheckpointError(
                self.name, f"wrote nothing after {len(context)} tokens", self.server.remedy
            )
        return tokens


def sampling(options: DecodingOptions, seed: int, length: int) -> dict[str, Any]:
    """Return options as llama.cpp has them; what is not named in ``samplers`` has no effect there.

    Its samplers run in the order of the list, which is that of ``DecodingOptions``. Its greedy
    choice is a temperature of 0; its penalty counts prompt and text, as far back as the
    request says: ``length`` tokens. 2^32 - 1 is a random seed there.
    """
    given = {"top_k": options.top_k, "top_p": options.top_p, "min_p": options.min_p}
    if options.temperature == 0:
        given = {"top_k": 1}  # the same token, found without ordering the whole vocabulary
    used: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    penalty = options.repetition_penalty
    order = [*used, "temperature"] if options.temperature == 0 else ["temperature", *used]
    if penalty != 1:
        used |= {"repeat_penalty": penalty, "repeat_last_n": length}
        order = ["penalties", *order]
    sent = {"samplers": order, "temperature": options.temperature, "seed": seed % (2**32 - 1)}
    return sent | used
