"""How a run's model is written to each format, and checked against what reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from groundup.contracts.models import EncoderDecoder
from groundup.contracts.processors import InputProcessor, LabelProcessor, TextProcessor
from groundup.contracts.speech import ReadsSpeech, WritesItsWindow
from groundup.contracts.tasks import Chats
from groundup.contracts.two_tokenizers import HasTwoTokenizers, tokenizers_of
from groundup.core.errors import CheckpointError
from groundup.core.values import Message
from groundup.export import ctranslate2, diffusers, gguf, huggingface
from groundup.export.ctranslate2_whisper import CTranslate2Whisper, write_whisper_folder
from groundup.export.detections import check_detections, find
from groundup.export.job import EXACT, NATS, ROUNDING, TABLE, Job
from groundup.export.onnx_graph import write_and_check
from groundup.export.onnx_two_stacks import OnnxTwoStacks, write_graphs
from groundup.export.samples import TEXTS
from groundup.export.vectors import write_vectors
from groundup.export.verify import Limit, Model, Reader, check_tensors
from groundup.formats.model_types import as_gguf
from groundup.inference.llama_cpp_parity import NEAR_BY_TABLE
from groundup.nn.part_names import TASK_WEIGHTS
from groundup.nn.speech_transformer import SpeechTransformer
from groundup.nn.two_stacks import TwoStackTransformer
from groundup.runs.processor import load_processor
from groundup.weights.gguf import read_gguf_processor, rounded

__all__ = ["DTYPES", "EXPORTERS"]

DTYPES = {
    "huggingface": ("fp32", "fp16", "bf16"),
    "gguf": tuple(gguf.KINDS),
    "onnx": ("fp32",),
    "ctranslate2": tuple(ctranslate2.KINDS),
    "diffusers": ("fp32",),
    "vectors": ("fp32",),
}


def _export_to_huggingface(job: Job) -> None:
    huggingface.write_folder(job.run, job.folder, job.config, job.weights, job.dtype)
    own = huggingface.reload_folder(job.folder, type(job.config))
    kept = job.weights
    if isinstance(job.config, WritesItsWindow):
        kept = job.config.kept_by_huggingface(kept)
    _check_reload(job, own, huggingface.round_to(kept, job.dtype))
    hf = huggingface.Transformers(job.folder)
    if find(job) is not None:
        check_detections(job, own, hf, job.limit(EXACT))
        return
    job.check(own, hf, job.limit(EXACT))
    for folder, tokenizer in _tokenizers(job):
        if (folder / "tokenizer.json").is_file():
            text = hf.find_other_tokens(folder, tokenizer, _choose_texts(job))
            _refuse_other_tokens(job, hf.name, text)


def _export_to_gguf(job: Job) -> None:
    path = job.folder / gguf.FILE
    gguf.write_file(path, job.config, job.weights, job.processor, job.dtype, job.run.recipe.name)
    own = gguf.reload_file(path)
    config = as_gguf(job.config)
    _check_reload(job, own, rounded(config, job.weights, gguf.KINDS[job.dtype]))
    # of the reload: the recipe's own may leave it to the data
    built: Any = own.module.config
    size = int(built.vocabulary_size)
    letter = int(job.processor.encode_batch(["a"])[0][0])
    context = config.llama_cpp_context(gguf.LONGEST)
    llama = gguf.LlamaCpp(path, size, context, letter, exact=job.dtype == "fp32")
    job.check(own, llama, _choose_llama_limit(job))
    read = read_gguf_processor(path)
    _refuse_other_tokens(job, own.name, _find_other_tokens(job, read))
    chats = _render_chats(job, llama.server.context)
    _refuse_other_tokens(job, llama.name, llama.find_other_tokens(read, _choose_texts(job), chats))


def _choose_llama_limit(job: Job) -> Limit:
    """Return what llama.cpp may differ by."""
    if job.dtype.startswith("q"):
        return Limit(nats=job.tolerance or NATS, choices=False)
    exact = job.dtype == "fp32"
    if exact and as_gguf(job.config).gelu_from_table:
        return replace(job.limit(TABLE), near=NEAR_BY_TABLE)
    return job.limit(ROUNDING[job.dtype], choices=exact)


def _export_to_onnx(job: Job) -> None:
    processor = job.processor
    text = isinstance(processor, TextProcessor | HasTwoTokenizers)
    tokens = isinstance(processor, LabelProcessor) and bool(processor.vocabulary_size)
    frames = isinstance(processor, InputProcessor | LabelProcessor) and 0 in processor.input_shape
    model = job.merged.module
    if isinstance(model, SpeechTransformer):
        problem = "models that write about sounds are not exported to ONNX"
        raise CheckpointError("model", problem, "Export it to huggingface or ctranslate2")
    job.processor.save(job.folder)
    if isinstance(model, TwoStackTransformer):
        write_graphs(job.folder, model)
        job.check(job.merged, OnnxTwoStacks(job.folder, model), job.limit(EXACT))
    elif isinstance(model, EncoderDecoder):
        problem = f"{type(model).__name__} is another library's, which is not written as two graphs"
        raise CheckpointError("model", problem, "Export it to huggingface")
    else:
        write_and_check(job, sequences=text or tokens or frames)
    if text:
        _check_saved_tokenizer(job)


def _export_to_ctranslate2(job: Job) -> None:
    # Before its processor is asked for tokens, of which a classifier's has none.
    module = job.merged.module
    if not isinstance(module, EncoderDecoder):
        kind = type(module).__name__
        problem = f"{kind} is no encoder with a decoder that writes a text"
        raise CheckpointError("model", problem, "Export it to huggingface, onnx or gguf")
    processor = job.processor
    processor.save(job.folder)
    other: Reader
    if isinstance(module, SpeechTransformer):
        write_whisper_folder(job.folder, module, processor, job.dtype)
        end = processor.tokenizer.end_id
        other = CTranslate2Whisper(job.folder, module, end, job.dtype)
    else:
        sides = [ctranslate2.token_names(at, each.vocabulary_size) for at, each in _tokenizers(job)]
        # One tokenizer is that of both sides.
        names = (sides[0], sides[-1])
        end = tokenizers_of(processor)[1].end_id
        ctranslate2.write_folder(job.folder, module, names, end, job.dtype)
        other = ctranslate2.CTranslate2(job.folder, names, job.dtype)
    limit = Limit(nats=job.tolerance or NATS, choices=False)
    if job.dtype in ROUNDING:
        limit = job.limit(ROUNDING[job.dtype], choices=job.dtype == "fp32")
    job.check(job.merged, other, limit)
    _check_saved_tokenizer(job)


def _check_saved_tokenizer(job: Job) -> None:
    read: Any = load_processor(job.folder)
    if isinstance(read, ReadsSpeech):
        read = read.tokenizer
    name = "groundup's reload of the tokenizer"
    _refuse_other_tokens(job, name, _find_other_tokens(job, read))


def _export_to_diffusers(job: Job) -> None:
    diffusers.write_diffusers_folder(job)
    # Of numbers of a picture none is chosen.
    job.check(job.merged, diffusers.Diffusers(job.folder), job.limit(EXACT, choices=False))


def _check_reload(job: Job, own: Model, wanted: dict[str, Tensor]) -> None:
    """Check groundup's own reload against what was written, tensor by tensor, and against the
    merged model.

    Rounding to fewer than 16 bits is reported, not limited: what it costs depends on the model.
    """
    # what a task learned for its losses is no part of a model elsewhere
    kept = {name: tensor for name, tensor in wanted.items() if not name.startswith(TASK_WEIGHTS)}
    check_tensors(str(job.target), kept, own.module.state_dict())
    limit = Limit(choices=False)
    if job.dtype in ROUNDING:
        limit = job.limit(ROUNDING[job.dtype], choices=job.dtype == "fp32")
    if find(job) is not None:
        check_detections(job, job.merged, own, limit)
    else:
        job.check(job.merged, own, limit)


def _choose_texts(job: Job) -> list[str]:
    """Return texts to compare tokenizers on: fixed ones, and what the prompts say."""
    # of two, that of the inputs
    reader = _tokenizers(job)[0][1]
    prompts = [
        # of a text that is written about another one, that one
        reader.decode(s.inputs.get("source", s.inputs["tokens"][:, : s.prompt])[0].tolist())
        for s in job.samples[:2]
        if s.prompt
    ]
    # a prompt that was cut within a character has no text of its own
    return [*TEXTS, *(text for text in prompts if text.strip() and "\ufffd" not in text)]


def _render_chats(job: Job, context: int) -> list[tuple[str, list[int]]]:
    """Return questions as the chat template of the run's task writes them, each with its tokens,
    where they fit."""
    task = job.run.recipe.task
    if job.processor.chat_template is None or not isinstance(task, Chats):
        return []
    template = task.chat_template(job.processor)
    asked = [(Message("user", text.strip()),) for text in TEXTS]
    chats = [(template.render(each, prompt=True), template.prompt(each).tolist()) for each in asked]
    return [(text, tokens) for text, tokens in chats if len(tokens) < context]


def _tokenizers(job: Job) -> list[tuple[Path, Any]]:
    """Return the job's tokenizer, or both, each with the folder that its files are in."""
    processor = job.processor
    if isinstance(processor, HasTwoTokenizers):
        return [
            (job.folder / "source", processor.source),
            (job.folder / "target", processor.target),
        ]
    # transcripts are read by a part of a processor of speech
    reader = processor.reader
    return [(job.folder, reader.tokenizer if isinstance(reader, ReadsSpeech) else reader)]


def _find_other_tokens(job: Job, processor: Any) -> str | None:
    texts = _choose_texts(job)
    own = [tokenizer for _, tokenizer in _tokenizers(job)]
    other: Sequence[Any] = [processor] if len(own) == 1 else tokenizers_of(processor)
    for one, two in zip(own, other, strict=True):
        encoded = zip(texts, one.encode_batch(texts), two.encode_batch(texts), strict=True)
        for text, wanted, found in encoded:
            if wanted.tolist() != found.tolist():
                return text
    return None


def _refuse_other_tokens(job: Job, name: str, text: str | None) -> None:
    if text is not None:
        job.refuse(f"{name} reads other tokens than the run's tokenizer in {text!r}")


EXPORTERS: dict[str, Callable[[Job], None]] = {
    "huggingface": _export_to_huggingface,
    "gguf": _export_to_gguf,
    "onnx": _export_to_onnx,
    "ctranslate2": _export_to_ctranslate2,
    "diffusers": _export_to_diffusers,
    "vectors": write_vectors,
}
