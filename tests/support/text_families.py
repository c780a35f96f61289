"""Text-encoder families of transformers by tiny configurations, and what becomes of each."""

from typing import Any

from search_space.design.encoder import EncoderSpec

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
         "intermediate_size": 32, "vocab_size": 64, "max_position_embeddings": 64}  # fmt: skip
OTHERWISE = {name: size for name, size in SIZES.items() if name != "intermediate_size"}
TALL = {"emb_dim": 16, "n_layers": 3, "n_heads": 2, "vocab_size": 64}
DISTILBERT = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
WRITES = {"d_model": 16, "encoder_layers": 3, "decoder_layers": 3, "encoder_ffn_dim": 32,
          "encoder_attention_heads": 2, "decoder_attention_heads": 2}  # fmt: skip
READ: dict[str, dict[str, Any]] = {
    "bert": SIZES, "roberta": SIZES, "distilbert": {"vocab_size": 64, **DISTILBERT},
    "electra": {**SIZES, "embedding_size": 16}, "mpnet": SIZES, "xlm-roberta": SIZES,
    "deberta": SIZES, "deberta-v2": SIZES, "camembert": SIZES, "ernie": SIZES,
    "nomic_bert": SIZES, "mobilebert": SIZES, "roformer": SIZES, "big_bird": SIZES,
    "convbert": {**SIZES, "embedding_size": 16}, "megatron-bert": SIZES, "xlm-roberta-xl": SIZES,
    "data2vec-text": SIZES, "nystromformer": SIZES, "luke": SIZES, "splinter": SIZES,
    "ibert": SIZES, "esm": {**SIZES, "pad_token_id": 1},
    "bart": {"vocab_size": 64, "max_position_embeddings": 64, **WRITES},
    "mbart": {"vocab_size": 64, "max_position_embeddings": 64, **WRITES},
}  # fmt: skip
CAUSAL: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 64, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64},
    "opt": {**OTHERWISE, "ffn_dim": 32, "word_embed_proj_dim": 16},
    "llama": SIZES,
    "qwen2": {**SIZES, "num_key_value_heads": 2},
    "gpt_neox": SIZES,
}
REFUSED: dict[str, dict[str, Any]] = {
    "longformer": {**SIZES, "attention_window": 8}, "layoutlm": SIZES,
    "canine": {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2},
    "xlm": {**TALL, "max_position_embeddings": 64}, "flaubert": {**TALL},
    "albert": {**SIZES, "embedding_size": 16}, "t5": {"vocab_size": 64, "d_model": 16},
}  # fmt: skip


def spec_of(model_type: str, config: dict[str, Any]) -> EncoderSpec:
    return EncoderSpec(model_type, "text", "transformers", model_type, "random", model_type, config)


def _alike(names: tuple[str, ...], config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: dict(config) for name in names}


SHARED = {"vocab_size": 64, "max_position_embeddings": 64, **WRITES}
PADDED = {**SIZES, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MORE: dict[str, dict[str, Any]] = {
    "rembert": {**PADDED, "input_embedding_size": 16, "output_embedding_size": 16},
    **_alike(
        ("bert-generation", "roberta-prelayernorm", "yoso", "mra", "modernbert", "eurobert",
         "gte", "jina_embeddings_v3", "esmc", "markuplm",
         "phi", "phi3", "olmo2", "starcoder2", "biogpt", "tapas", "visual_bert"), PADDED),
    **_alike(("mistral", "gemma", "gemma2", "gemma3_text", "qwen3", "stablelm"),
        {**PADDED, "num_key_value_heads": 2}),
    **_alike(("xlnet", "openai-gpt", "ctrl"), OTHERWISE),
    "gptj": {**OTHERWISE, "rotary_dim": 8},
    "layoutlmv3": {**PADDED, "coordinate_size": 3, "shape_size": 2},
    "reformer": {**OTHERWISE, "axial_pos_embds": False, "attn_layers": ["local"] * 3,
                 "attention_head_size": 8},
    "gpt_neo": {**PADDED, "attention_types": [[["global"], 3]]},
    "lilt": {**PADDED, "hidden_size": 24},
    "xmod": {**PADDED, "default_language": "en_XX"},
    "roc_bert": {**SIZES, "pad_token_id": 0},
    "squeezebert": {**PADDED, "embedding_size": 16, "q_groups": 2, "k_groups": 2, "v_groups": 2,
                    "post_attention_groups": 1, "intermediate_groups": 2, "output_groups": 2},
    "codegen": {**OTHERWISE, "num_attention_heads": 4, "rotary_dim": 4},
    "fnet": {k: v for k, v in SIZES.items() if k != "num_attention_heads"},
    **_alike(("funnel", "bloom", "mpt", "mamba", "rwkv"),
        {"hidden_size": 16, "vocab_size": 64}),
    **_alike(("umt5", "mt5", "switch_transformers", "udop"),
        {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2}),
    **_alike(
        ("m2m_100", "marian", "pegasus", "blenderbot", "blenderbot-small", "plbart", "mvp",
         "bigbird_pegasus", "nllb-moe"), {**SHARED, "pad_token_id": 1}),
    "led": {"vocab_size": 64, **WRITES, "attention_window": 8},
}  # fmt: skip
