"""Named sizes have as many parameters as their authors, or the libraries that hold their weights,
say."""

from __future__ import annotations

import pytest

from groundup.core.registry import lookup, names
from groundup.machine.meta_device import without_content
from groundup.models.gpt import GPTConfig

# Parameters of each size, and how near the count is known. Where no source is named, it is the
# number of parameters of the published weights without padding of the vocabulary.
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "gpt": {
        # Radford et al., 2019, table 2 rounds them (and errs for the smallest): these are counted
        # in the published weights, in which the output layer is the embedding.
        "gpt2": (124_439_808, 1e-3),
        "gpt2-medium": (354_823_168, 1e-3),
        "gpt2-large": (774_030_080, 1e-3),
        "gpt2-xl": (1_557_611_200, 1e-3),
        "smollm2-135m": (134_515_008, 1e-6),
        "llama3.2-1b": (1_235_814_400, 1e-6),
        "qwen3-0.6b": (596_049_920, 1e-6),
        "mistral-7b": (7_241_732_096, 1e-6),
    },
    "gemma3": {"gemma3-270m": (268_098_176, 1e-6), "gemma3-1b": (999_885_952, 1e-6)},
    "phi3": {"phi3-mini-4k": (3_821_079_552, 1e-6)},
    "bert": {
        # Turc et al., 2019 (arXiv:1908.08962), table 1, in millions, with the pooler and the head
        # of next sentences, which masked tokens do without.
        "tiny": (4.4e6, 0.01),
        "mini": (11.3e6, 0.01),
        "small": (29.1e6, 0.02),
        "medium": (41.7e6, 0.01),
        # BertForMaskedLM of bert-base-uncased and bert-large-uncased.
        "base": (109_514_298, 1e-6),
        "large": (335_174_458, 1e-6),
    },
    # google-t5/t5-small, google/t5-v1_1-small, facebook/bart-base and bart-large, as transformers
    # counts them.
    "encoder_decoder": {
        "t5-small": (60_506_624, 1e-6),
        "t5-v1.1-small": (76_961_152, 1e-6),
        "bart-base": (139_420_416, 1e-6),
        "bart-large": (406_291_456, 1e-6),
    },
    # openai/whisper-*, as transformers counts them, without the encoder's table of sinusoids.
    "whisper": {
        "whisper-tiny": (37_184_640, 1e-6),
        "whisper-base": (71_825_920, 1e-6),
        "whisper-small": (240_582_912, 1e-6),
        "whisper-medium": (762_321_920, 1e-6),
        "whisper-large": (1_541_384_960, 1e-6),
    },
    # torchvision's models of these names.
    "resnet": {
        "resnet-18": (11_689_512, 1e-6),
        "resnet-34": (21_797_672, 1e-6),
        "resnet-50": (25_557_032, 1e-6),
    },
    "convnext": {"convnext-tiny": (28_589_128, 1e-6)},
    # timm's vit_{tiny,small,base}_patch16_224.
    "vit": {
        "vit-tiny": (5_717_416, 1e-6),
        "vit-small": (22_050_664, 1e-6),
        "vit-base": (86_567_656, 1e-6),
    },
    # facebook/detr-resnet-50, PekingU/rtdetr_r18vd and rtdetr_r50vd, as transformers counts them,
    # with the scales and shifts of the trunk's norms, which are buffers there, and without the
    # table of noisy classes.
    "detr": {"detr-resnet-50": (41_577_888, 1e-6)},
    "rt_detr": {"rt-detr-r18": (20_163_728, 1e-6), "rt-detr-r50": (42_923_884, 1e-6)},
}
UNPUBLISHED = {
    *(("gpt", size) for size in ("nano", "micro", "small")),
    *(("encoder_decoder", size) for size in ("nano", "micro")),
    ("whisper", "nano"),
    *(("ctc", size) for size in ("nano", "micro", "small", "medium", "large")),
}
CASES = [(name, size) for name, sizes in PUBLISHED.items() for size in sizes]


def count(name: str, size: str) -> int:
    with without_content():
        model = lookup("model", name).sizes()[size].build()
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("name", "size"), CASES)
def test_a_size_has_the_published_number_of_parameters(name: str, size: str) -> None:
    known, near = PUBLISHED[name][size]
    assert count(name, size) == pytest.approx(known, rel=near)


def test_every_named_size_is_compared() -> None:
    found = {(name, size) for name in names("model") for size in lookup("model", name).sizes()}
    assert found == set(CASES) | UNPUBLISHED


def test_sizes_of_our_own_by_hand() -> None:
    """Each layer: 4 projections, 3 matrices of the MLP, two norms; then a norm and the embedding."""
    for size, (layers, width, inner) in {
        "nano": (2, 64, 192),
        "micro": (4, 256, 704),
        "small": (6, 384, 1024),
    }.items():
        config = GPTConfig.sizes()[size].model_copy(update={"vocabulary_size": 300})
        layer = 4 * width**2 + 3 * width * inner + 2 * width
        with without_content():
            assert config.build().parameter_count() == layers * layer + width + 300 * width


def test_shapes_that_a_count_does_not_tell() -> None:
    """Heads and contexts, by the config.json that came with the weights."""
    sizes = GPTConfig.sizes()
    heads = {"gpt2": 12, "gpt2-medium": 16, "gpt2-large": 20, "gpt2-xl": 25, "mistral-7b": 32}
    assert {size: sizes[size].heads for size in heads} == heads
    contexts = {"gpt2": 1024, "smollm2-135m": 8192, "llama3.2-1b": 131072, "qwen3-0.6b": 40960}
    assert {size: sizes[size].context_length for size in contexts} == contexts
    encoders = lookup("model", "bert").sizes()
    assert {size: encoders[size].heads for size in encoders} == {
        "tiny": 2,
        "mini": 4,
        "small": 8,
        "medium": 8,
        "base": 12,
        "large": 16,
    }
