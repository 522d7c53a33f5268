"""Language models as text encoders, of ComfyUI's own classes, small: seeded weights in bfloat16."""

from __future__ import annotations

import zlib
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

from .tiny_clips import fill

if TYPE_CHECKING:
    from comfy.sd import CLIP

_VOCABULARY = 2048
_SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "num_hidden_layers": 4,
}


class WordTokenizer:
    """Stands in for tokenizers whose vocabulary comes with the checkpoint: a number for a word."""

    name = ""

    def __init__(self, embedding_directory: str | None = None, tokenizer_data: dict | None = None):
        pass

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_) -> dict:
        """{encoder: [[(token, weight)]]}, as ComfyUI's tokenizers give it."""
        numbers = [16 + zlib.crc32(word.encode()) % (_VOCABULARY - 16) for word in text.split()]
        return {self.name: [[(number, 1.0) for number in (2, *numbers)]]}

    def decode(self, tokens: list[int], **_) -> str:
        """The numbers as text."""
        return " ".join(map(str, tokens))

    def state_dict(self) -> dict:
        """Nothing: there is no vocabulary to save."""
        return {}


# By the encoder's name in the CLIP: where its class is made and how, and what else its size needs.
DECODERS = {
    "gemma3_4b": ("lumina2", "te", {"model_type": "gemma3_4b"}, {}),
    "mistral3_24b": ("flux", "flux2_te", {}, {"num_hidden_layers": 32}),  # layers 10, 20, 30 count
    "qwen3_4b": ("z_image", "te", {}, {}),
}


def decoder_clip(name: str) -> CLIP:
    """The CLIP of one of DECODERS, tiny, with words for tokens."""
    from comfy.sd import CLIP

    module, make, options, sizes = DECODERS[name]
    module = import_module(f"comfy.text_encoders.{module}")
    te = getattr(module, make)(dtype_llama=torch.bfloat16, **options)
    config = {f"{name}_model_config": {**_SIZES, **sizes, "vocab_size": _VOCABULARY}}
    tokenizer = type("Words", (WordTokenizer,), {"name": name})
    target = SimpleNamespace(params={}, clip=te, tokenizer=tokenizer)
    shapes = te(device="meta", dtype=torch.bfloat16, model_options=config)
    generator = torch.Generator().manual_seed(0)
    state = {
        key: fill(key, weight.shape, generator).bfloat16()
        for key, weight in getattr(shapes, name).transformer.state_dict().items()
    }
    return CLIP(target, state_dict=[state], model_options=config)
