"""The sizes of the tiny text encoders: what ComfyUI's model options override."""

_DECODER = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "num_hidden_layers": 4,
}

# ComfyUI's loader takes CLIP-L's from "model_config". Width and pooled width suit the tiny Flux.
MODEL_OPTIONS = {
    "model_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
    },
    "t5xxl_model_config": {
        "d_model": 256,
        "d_ff": 512,
        "d_kv": 32,
        "num_heads": 8,
        "num_layers": 2,
    },
    "clip_g_model_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_hidden_layers": 31,
    },
    "llama_model_config": _DECODER,
    "qwen3_4b_model_config": _DECODER,
}

# A T5-XXL's number of layers, by which ComfyUI knows one: its loaders look for layer 23.
T5_OF_24_LAYERS = {"d_model": 128, "d_ff": 128, "d_kv": 32, "num_heads": 4, "num_layers": 24}
