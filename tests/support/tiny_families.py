"""Tiny random models of the families of ``transformers``: as small as each one's settings allow."""

from __future__ import annotations

from typing import Any

import torch
from pretrained_folders import transformers

VOCABULARY = 97
# Whatever of these names a family's settings have.
_SMALL: dict[str, Any] = {
    **{"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "dim": 32},
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
    **{"max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    **{"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_ctx": 64, "d_model": 32},
    **{"d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4, "encoder_layers": 2, "emb_dim": 32},
    **{"decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4},
    **{"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "ffn_dim": 48, "attention_heads": 4},
    **{"n_layers": 2, "n_heads": 4, "hidden_dim": 48, "embedding_size": 16, "type_vocab_size": 2},
    **{"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4},
    **{"num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "d_inner": 48},
    **{"sliding_window": 6, "window_size": 6, "max_seq_len": 64, "rotary_dim": 4, "d_head": 8},
    **{"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8},
    **{"v_head_dim": 8, "state_size": 4, "linear_num_value_heads": 4, "linear_num_key_heads": 2},
    **{"linear_key_head_dim": 8, "linear_value_head_dim": 8, "dff": 48, "n_group": 1},
    **{"topk_group": 1, "first_k_dense_replace": 1, "attention_hidden_size": 32, "num_kv_heads": 2},
    **{"context_length": 64, "word_embed_proj_dim": 32, "conv_kernel_size": 3, "d_embed": 32},
    **{"query_pre_attn_scalar": 8},
}
_LATENT = ("axk1", "deepseek_v2", "deepseek_v3", "deepseek_v32", "minicpm3", "mistral4")
_DEBERTA: dict[str, Any] = {
    **{"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "pooler_hidden_size": 32}
}
# What else a family needs; None: its own default.
_OWN: dict[str, dict[str, Any]] = {
    **{name: {"head_dim": None, "num_key_value_heads": 4} for name in _LATENT},
    "deberta": _DEBERTA,
    "deberta-v2": {
        **_DEBERTA,
        **{"position_biased_input": False, "norm_rel_ebd": "layer_norm", "position_buckets": 16},
        "share_att_key": True,
    },
    "albert": {"num_hidden_groups": 1},
    "bamba": {
        **{"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8},
        **{"mamba_n_groups": 1, "mamba_chunk_size": 16},
    },
    "big_bird": {"attention_type": "original_full"},
    "convbert": {"embedding_size": 32, "head_ratio": 2},
    "dots1": {"n_shared_experts": 1, "routed_scaling_factor": 1.0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": {
        **{"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
        **{"expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 8},
        "use_mamba_kernels": False,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 48, "num_attention_heads": 2, "max_2d_position_embeddings": 64},
    "longformer": {"attention_window": [4, 4]},
    "mamba2": {"head_dim": 8, "num_heads": 8, "n_groups": 2, "chunk_size": 16},
    "mobilebert": {"intra_bottleneck_size": 16, "true_hidden_size": 16},
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 6},
    "reformer": {
        **{"attn_layers": ["local", "local"], "axial_pos_embds": False, "feed_forward_size": 48},
        **{"is_decoder": False, "attention_head_size": 8, "local_attn_chunk_length": 8},
    },
    "roc_bert": {
        **{"pronunciation_vocab_size": 10, "pronunciation_embed_dim": 8, "shape_vocab_size": 10},
        "shape_embed_dim": 8,
    },
    "smollm3": {"no_rope_layers": [1, 0]},
    "squeezebert": {"embedding_size": 32},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
}


def tiny_config(family: str, **changed: Any) -> Any:
    """Return the smallest settings of a family."""
    default = transformers.AutoConfig.for_model(family)
    known = default.to_dict()
    called = type(default).attribute_map
    values = {
        called.get(key, key): value
        for key, value in _SMALL.items()
        if called.get(key, key) in known
        # A window that a family does not have by itself stays away.
        and not (key == "sliding_window" and known[called.get(key, key)] is None)
    }
    kinds = list(dict.fromkeys(known.get("layer_types") or ()))
    if kinds:
        values["layer_types"] = (kinds * 2)[:2]
    values |= _OWN.get(family, {}) | changed
    values = {key: value for key, value in values.items() if value is not None}
    return transformers.AutoConfig.for_model(family, **values)


def tiny_model(family: str, kind: str, **changed: Any) -> Any:
    """Return a random model of a family; ``kind`` as in the classes ``AutoModel...``."""
    torch.manual_seed(3)
    auto = getattr(transformers, f"AutoModel{kind}")
    model = auto.from_config(tiny_config(family, **changed), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model
