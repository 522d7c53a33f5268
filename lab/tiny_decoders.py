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


class _SongTokenizer(WordTokenizer):
    """As ACE-Step's: words for the encoder of captions, and for the language model beside it."""

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **options) -> dict:
        words = super().tokenize_with_weights(text)[self.name]
        names = ("qwen3_06b", "lyrics", "lm_prompt", "lm_prompt_negative")
        codes = {"generate_audio_codes": options.get("generate_audio_codes", True)}
        return {**dict.fromkeys(names, words), "lm_metadata": codes}


def song_clip() -> CLIP:
    """ACE-Step 1.5's CLIP, tiny: two language models, one of which no conditioning shows."""
    from comfy.sd import CLIP
    from comfy.text_encoders import ace15, llama

    sizes = {**_SIZES, "vocab_size": _VOCABULARY}
    tiny = {
        name: type(name, (getattr(llama, name),), {"__init__": _with_config(name, sizes)})
        for name in ("Qwen3_06B_ACE15", "Qwen3_2B_ACE15_lm")
    }

    class Encoders(ace15.ACE15TEModel):
        def __init__(self, device="cpu", dtype=None, model_options: dict | None = None):
            kept = {name: getattr(llama, name) for name in tiny}
            vars(llama).update(tiny)
            try:
                super().__init__(device, torch.bfloat16, torch.bfloat16, "qwen3_2b", {})
            finally:
                vars(llama).update(kept)

    target = SimpleNamespace(params={}, clip=Encoders, tokenizer=_SongTokenizer)
    clip = CLIP(target, state_dict=[], model_options={})
    generator = torch.Generator().manual_seed(0)
    for name, parameter in clip.cond_stage_model.named_parameters():
        parameter.data.copy_(fill(name, parameter.shape, generator))
    return clip


def _with_config(name: str, sizes: dict):
    def init(self, config_dict, *arguments):
        from comfy.text_encoders import llama

        cls = next(base for base in type(self).__mro__ if base.__module__ == llama.__name__)
        cls.__init__(self, {**config_dict, **sizes}, *arguments)

    return init
