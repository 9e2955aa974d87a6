"""Names to classes. Built-ins are listed by name and imported only when a recipe names them.

torch is not imported here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from groundup.core.errors import GroundupError, RecipeError, did_you_mean

__all__ = [
    "BUILTINS",
    "Kind",
    "data",
    "load_file",
    "lookup",
    "model",
    "names",
    "processor",
    "task",
]

Kind = Literal["model", "task", "data", "processor"]
Class = TypeVar("Class", bound=type)

BUILTINS: dict[Kind, dict[str, str]] = {
    "model": {
        "gpt": "groundup.models.gpt",
        "gemma3": "groundup.models.gemma",
        "phi3": "groundup.models.phi3",
        "encoder_decoder": "groundup.models.encoder_decoder",
        "whisper": "groundup.models.whisper",
        "hub": "groundup.models.hub.config",
        "bert": "groundup.models.bert",
        "mlp": "groundup.models.mlp",
        "cnn": "groundup.models.cnn",
        "detector": "groundup.models.detector",
        "detr": "groundup.models.detr",
        "rt_detr": "groundup.models.rt_detr",
        "resnet": "groundup.models.resnet",
        "convnext": "groundup.models.convnext",
        "vit": "groundup.models.vit",
        "fsq_autoencoder": "groundup.models.fsq_autoencoder",
        "rnn": "groundup.models.rnn",
        "bag_of_ngrams": "groundup.models.bag_of_ngrams",
        "transformer_classifier": "groundup.models.transformer_classifier",
        "ctc": "groundup.models.ctc",
        "unet": "groundup.models.unet",
        "dit": "groundup.models.dit",
        "matrix_factorization": "groundup.models.matrix_factorization",
        "two_tower": "groundup.models.two_tower",
        "sequence_recommender": "groundup.models.sequence_recommender",
        "policy_value": "groundup.models.policy_value",
    },
    "task": {
        "language_modeling": "groundup.tasks.language_modeling",
        "masked_language_modeling": "groundup.tasks.masked_lm.task",
        "chat": "groundup.tasks.chat.task",
        "classify": "groundup.tasks.classify.task",
        "regression": "groundup.tasks.regression",
        "autoencode": "groundup.tasks.autoencode.task",
        "text_and_pictures": "groundup.tasks.text_and_pictures.task",
        "sentence_embedding": "groundup.tasks.sentence_embedding",
        "text_to_text": "groundup.tasks.text_to_text.task",
        "transcribe": "groundup.tasks.transcribe.task",
        "detect": "groundup.tasks.detect.task",
        "token_classification": "groundup.tasks.token_classification",
        "extractive_qa": "groundup.tasks.extractive_qa",
        "multitask": "groundup.tasks.multitask.task",
        "preference": "groundup.tasks.preference.task",
        "grpo": "groundup.tasks.grpo.task",
        "generate_images": "groundup.tasks.generate_images.task",
        "recommend": "groundup.tasks.recommend.task",
        "policy_value": "groundup.tasks.policy_value.task",
    },
    "data": {
        "arrays": "groundup.data.sources.arrays",
        "audio": "groundup.data.sources.audio",
        "speech": "groundup.data.sources.speech",
        "dialled_numbers": "groundup.data.sources.dialled_numbers",
        "digit_scenes": "groundup.data.sources.digit_scenes",
        "sequences": "groundup.data.sources.sequences",
        "labelled_text": "groundup.data.sources.labelled_text",
        "text": "groundup.data.sources.text",
        "conversations": "groundup.data.sources.conversations",
        "parallel_text": "groundup.data.sources.parallel_text",
        "preferences": "groundup.data.sources.preferences",
        "prompts": "groundup.data.sources.prompts",
        "images": "groundup.data.sources.images",
        "captioned_images": "groundup.data.sources.captioned_images",
        "boxes": "groundup.data.sources.boxes",
        "mixture": "groundup.data.sources.mixture",
        "python_docs": "groundup.data.sources.python_docs",
        "python_questions": "groundup.data.sources.python_questions",
        "python_question_pairs": "groundup.data.sources.python_question_pairs",
        "python_summaries": "groundup.data.sources.python_summaries",
        "python_imports": "groundup.data.sources.python_imports",
        "table": "groundup.data.sources.table",
        "text_pairs": "groundup.data.sources.text_pairs",
        "token_labels": "groundup.data.sources.token_labels",
        "question_answers": "groundup.data.sources.question_answers",
        "interactions": "groundup.data.sources.interactions",
        "self_play": "groundup.data.sources.self_play",
        "shards": "groundup.data.sources.shards",
    },
    "processor": {
        "bytes": "groundup.processors.text.bytes",
        "characters": "groundup.processors.text.characters",
        "bpe": "groundup.processors.text.bpe",
        "tokenizer_json": "groundup.processors.text.tokenizer_json",
        "two_tokenizers": "groundup.processors.text.two_tokenizers",
        "picture_tokens": "groundup.processors.picture_tokens",
        "image": "groundup.processors.image",
        "encoded_texts": "groundup.processors.encoded_texts",
        "captioned_pictures": "groundup.processors.captioned_pictures",
        "audio": "groundup.processors.audio",
        "speech": "groundup.processors.speech",
        "frames": "groundup.processors.sequences",
        "labelled": "groundup.processors.labelled",
        "boxes": "groundup.processors.boxes",
        "table": "groundup.processors.table",
        "interactions": "groundup.processors.interactions",
        "game": "groundup.processors.game",
    },
}
# What users look for, by the field's other names, and what is it here.
_ELSEWHERE: dict[Kind, dict[str, str]] = {
    "model": {
        **dict.fromkeys(("t5", "bart", "marian", "seq2seq"), "encoder_decoder"),
        **dict.fromkeys(("conformer", "wav2vec2"), "ctc"),
        **dict.fromkeys(("sasrec", "bert4rec"), "sequence_recommender"),
        **dict.fromkeys(("svd", "als", "lightfm"), "matrix_factorization"),
    },
    "task": {
        **dict.fromkeys(("translation", "summarization", "seq2seq"), "text_to_text"),
        **dict.fromkeys(("alphazero", "self_play", "play"), "policy_value"),
        **dict.fromkeys(("asr", "speech_recognition", "speech_to_text"), "transcribe"),
    },
    "data": {
        **dict.fromkeys(("documents", "summaries", "translation", "bitext"), "parallel_text"),
        **dict.fromkeys(("recbole", "ratings", "movielens"), "interactions"),
    },
    "processor": dict.fromkeys(("tokenizer", "sentencepiece"), "bpe"),
}
_registered: dict[Kind, dict[str, type]] = {kind: {} for kind in BUILTINS}


def _decorator(kind: Kind) -> Callable[[str], Callable[[Class], Class]]:
    def named(name: str) -> Callable[[Class], Class]:
        def keep(cls: Class) -> Class:
            known = _registered[kind].get(name)
            if known is not None and _origin(known) != _origin(cls):
                raise RecipeError(
                    f"{kind} {name!r}",
                    f"is registered twice, by {known.__module__} and {cls.__module__}",
                    "Rename one",
                )
            cls.registered_name = name  # type: ignore[attr-defined]
            _registered[kind][name] = cls
            return cls

        return keep

    return named


def _origin(cls: type) -> tuple[str, str]:
    """Return a class's file and name: a user's file may be imported twice, by a recipe that names
    it and by a test that imports it."""
    module = sys.modules.get(cls.__module__)
    path = module.__file__ if module is not None and "__file__" in vars(module) else None
    return path or cls.__module__, cls.__qualname__


model = _decorator("model")
task = _decorator("task")
data = _decorator("data")
processor = _decorator("processor")


def names(kind: Kind) -> list[str]:
    """Return every name that ``lookup`` accepts, built-in or registered by a user's file."""
    return sorted({*BUILTINS[kind], *_registered[kind]})


def lookup(kind: Kind, name: str, where: str = "") -> Any:
    """Return the class registered under ``name``, importing the built-in's file if need be.

    Raises:
        RecipeError: If nothing has that name; the message lists the names and the nearest one.
    """
    if name not in _registered[kind] and name in BUILTINS[kind]:
        importlib.import_module(BUILTINS[kind][name])
    if name not in _registered[kind]:
        nearest = _ELSEWHERE[kind].get(name.casefold(), name)
        raise RecipeError(
            where or f"recipe.{kind}.name",
            f"there is no {kind} {name!r}; {did_you_mean(nearest, names(kind))}known:"
            f" {', '.join(names(kind)) or 'none'}",
            "Choose one of these, or name your own file under 'uses:'",
        )
    return _registered[kind][name]


def load_file(path: Path) -> None:
    """Import a user's file named under ``uses:`` so that its decorated classes are registered.

    Raises:
        RecipeError: If the file is missing or fails to import.
    """
    if not path.is_file():
        raise RecipeError("recipe.uses", f"no file {path}", "Give a path relative to the recipe")
    module_name = (
        f"groundup_user_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    )
    # By its path: two recipes may name files of one name, and none is run twice.
    if module_name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Before its code runs, because dataclasses and pickle look their own module up by name.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    # A file that failed half-way must not pass for loaded when it is asked for again.
    except GroundupError:
        del sys.modules[module_name]
        raise
    except Exception as error:
        del sys.modules[module_name]
        raise RecipeError(
            f"recipe.uses {path}", f"{type(error).__name__}: {error}", "Fix the file"
        ) from error
