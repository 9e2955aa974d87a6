"""Which model reads which weights: what every registered model declares, a user's own included."""

from __future__ import annotations

from collections.abc import Iterator

from groundup.contracts.models import FromGGUF, FromHuggingFace, GGUFContents, ModelConfig
from groundup.core.errors import CheckpointError
from groundup.core.registry import BUILTINS, lookup, names

__all__ = ["as_gguf", "gguf_model_of", "gguf_models", "huggingface_models"]


def huggingface_models() -> dict[str, str]:
    """Return the name of the model that reads each ``model_type``, and ``ANY_MODEL_TYPE``."""
    return {
        kind: cls.registered_name
        for cls in _model_classes()
        if issubclass(cls, FromHuggingFace)
        for kind in cls.huggingface_model_types
    }


def gguf_models() -> dict[str, str]:
    """Return the name of the model that reads GGUF files of each ``general.architecture``."""
    return {
        kind: cls.registered_name
        for cls in _model_classes()
        if issubclass(cls, FromGGUF)
        for kind in cls.gguf_architectures
    }


def gguf_model_of(file: GGUFContents) -> str:
    """Return the name of the model that reads a file.

    Raises:
        CheckpointError: If none does.
    """
    architecture = file.metadata.get("general.architecture")
    known = gguf_models()
    if architecture not in known:
        raise CheckpointError(
            "general.architecture",
            f"is {architecture!r}; supported: {', '.join(known)}",
            "Use another model",
        )
    return known[architecture]


def as_gguf(config: ModelConfig, remedy: str = "Keep it in the project's own layout") -> FromGGUF:
    """Return the settings, which are of a model that GGUF files have a place for.

    Raises:
        CheckpointError: If they are not.
    """
    if not isinstance(config, FromGGUF):
        known = ", ".join(dict.fromkeys(gguf_models().values()))
        raise CheckpointError(
            "model",
            f"{config.registered_name} has no place in a GGUF file; allowed: {known}",
            remedy,
        )
    return config


def _model_classes() -> Iterator[type[ModelConfig]]:
    """Yield every model's class; a user's come last, so that what they declare counts."""
    own = [name for name in names("model") if name not in BUILTINS["model"]]
    for name in (*BUILTINS["model"], *own):
        yield lookup("model", name)
