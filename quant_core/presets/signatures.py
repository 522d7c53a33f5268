"""Data: the tensors by which a file's model is recognised, and the preset that goes with it.

A signature is one or two names that all members of a family have and no other family has. Where
names do not decide, a width does, as in ComfyUI. A model matches one signature at most, so two
matches in one file are two models.

Tested by tests/nodes/bridge/architecture/test_recognition.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Signature:
    """What tells one family of models.

    architecture: the family's name. has: tensors that must be there. lacks: tensors that must not.
    width: (tensor, size of its first dimension) that must hold. unlike: (tensor, size) that must
    not hold. preset: the name of its preset, None where the generic rule applies.
    """

    architecture: str
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    width: tuple[str, int] | None = None
    unlike: tuple[str, int] | None = None
    preset: str | None = None

    def matches(self, shapes: Shapes, prefix: str = "") -> bool:
        """Whether the tensors that begin with ``prefix`` are a model of this family."""
        if not all(prefix + name in shapes for name in self.has):
            return False
        if any(prefix + name in shapes for name in self.lacks):
            return False
        if self.width and not _is_wide(shapes, prefix, *self.width):
            return False
        return not (self.unlike and _is_wide(shapes, prefix, *self.unlike))


def _is_wide(shapes: Shapes, prefix: str, name: str, size: int) -> bool:
    return shapes.get(prefix + name, (None,))[:1] == (size,)


def _preset(name: str, *has: str, **options) -> Signature:
    return Signature(name, has, preset=name, **options)


def _generic(name: str, *has: str, **options) -> Signature:
    return Signature(name, has, **options)


_Z_IMAGE = ("cap_embedder.1.weight", 3840)
_NEXT_DIT = ("cap_embedder.1.weight", "noise_refiner.0.attention.k_norm.weight")
_CHROMA = "distilled_guidance_layer.in_proj.weight"
_FLUX2 = "double_stream_modulation_img.lin.weight"
_LENS = "transformer_blocks.0.img_mlp.w1.weight"
_MAGE = ("proj_out.weight", 128)
_LYRICS = "genre_embedder.weight"
_DIFFUSERS_TIME = "adaln_single.emb.timestep_embedder.linear_1.bias"
_AUDIO = "audio_adaln_single.linear.weight"
_H3 = "video_patch_proj.weight"
_PREDICT2 = "blocks.0.mlp.layer1.weight"
_ANIMA = "llm_adapter.blocks.0.cross_attn.q_proj.weight"
_BOOGU = "double_stream_layers.0.img_instruct_attn.processor.img_to_q.weight"

DIFFUSION_MODELS: tuple[Signature, ...] = (
    _preset(
        "flux1",
        "double_blocks.0.img_attn.qkv.weight",
        "img_in.weight",
        lacks=(_CHROMA, _FLUX2),
    ),
    _preset("flux2", _FLUX2, "double_blocks.0.img_attn.qkv.weight"),
    _preset("chroma", _CHROMA, "double_blocks.0.img_attn.qkv.weight"),
    _preset(
        "qwen_image",
        "txt_norm.weight",
        "transformer_blocks.0.attn.add_q_proj.weight",
        lacks=(_LENS,),
        unlike=_MAGE,
    ),
    _generic(
        "mage_flow",
        "txt_norm.weight",
        "transformer_blocks.0.attn.add_q_proj.weight",
        lacks=(_LENS,),
        width=_MAGE,
    ),
    _preset("lens", _LENS, "transformer_blocks.0.attn.norm_added_q.weight"),
    _preset("z_image", *_NEXT_DIT, width=_Z_IMAGE),
    _preset("lumina2", *_NEXT_DIT, unlike=_Z_IMAGE),
    _preset("sd15_sdxl", "input_blocks.0.0.weight", "time_embed.0.weight", "out.2.weight"),
    _preset("sd3", "joint_blocks.0.context_block.attn.qkv.weight"),
    _preset("auraflow", "double_layers.0.attn.w1q.weight"),
    _preset("pixart", "t_block.1.weight", lacks=(_LYRICS,)),
    _preset("hidream", "caption_projection.0.linear.weight"),
    _preset("hidream_o1", "t_embedder1.mlp.0.weight", "x_embedder.proj1.weight"),
    _preset("krea2", "txtfusion.projector.weight"),
    _preset("ideogram4", "embed_image_indicator.weight"),
    _preset("ernie_image", "layers.0.mlp.linear_fc2.weight", "text_proj.weight"),
    _preset("boogu", _BOOGU),
    _preset("wan", "head.modulation"),
    _preset("ltxv", _DIFFUSERS_TIME, lacks=(_AUDIO, _H3)),
    _preset("ltx2", _DIFFUSERS_TIME, _AUDIO),
    _preset("hunyuan_video", "txt_in.individual_token_refiner.blocks.0.norm1.weight"),
    _preset("cogvideox", "blocks.0.norm1.linear.weight"),
    _preset("mochi", "t5_yproj.weight"),
    _preset("cosmos", "blocks.block0.blocks.0.block.attn.to_q.0.weight"),
    _preset("cosmos", _PREDICT2, lacks=(_ANIMA,)),
    _preset("anima", _PREDICT2, _ANIMA),
    _preset("minimax_h3", _H3, "audio_patch_proj.weight"),
    _preset("seedvr2", "vid_in.proj.weight", "blocks.0.attn.proj_qkv.vid.weight"),
    _generic("omnigen2", "time_caption_embed.timestep_embedder.linear_1.bias", lacks=(_BOOGU,)),
    _generic("joyimage", "double_blocks.0.attn.img_attn_qkv.weight"),
    _generic("kandinsky5", "visual_transformer_blocks.0.cross_attention.key_norm.weight"),
    _generic("hydit", "mlp_t5.0.weight"),
    _generic("hunyuan3d2", "latent_in.weight", "cond_in.weight"),
    _generic(
        "hunyuan3d2_1",
        "t_embedder.mlp.2.weight",
        "blocks.0.attn1.k_norm.weight",
        lacks=("mlp_t5.0.weight",),
    ),
    _generic("ace", _LYRICS),
    _generic("pid", "lq_proj.latent_proj.0.weight"),
    _generic("pixeldit_t2i", "pixel_embedder.proj.weight", lacks=("lq_proj.latent_proj.0.weight",)),
    _generic("pixeldit_t2i", "core.pixel_embedder.proj.weight"),
    _generic("stable_cascade", "clf.1.weight"),
    _generic("triposplat", "cam_out_layer.weight", "repo_layers.0.final_map.weight"),
    _generic("stable_audio", "transformer.rotary_pos_emb.inv_freq"),
    _generic("ace1.5", "encoder.lyric_encoder.layers.0.input_layernorm.weight"),
)

_GEMMA = "model.layers.0.post_feedforward_layernorm.weight"
_QWEN3 = "model.layers.0.self_attn.q_norm.weight"
_QWEN25 = "model.layers.0.self_attn.k_proj.bias"
_QWEN35 = "model.layers.0.linear_attn.A_log"

TEXT_ENCODERS: tuple[Signature, ...] = (
    _preset("clip", "text_model.encoder.layers.0.mlp.fc1.weight"),
    _preset("t5", "encoder.block.0.layer.0.SelfAttention.k.weight"),
    _preset("qwen", _QWEN25, lacks=(_GEMMA,)),
    _preset("qwen", _QWEN3, lacks=(_GEMMA, _QWEN25)),
    _preset("qwen35", _QWEN35),
    _preset("qwen35", "model.language_model.layers.0.linear_attn.A_log"),
    _preset("gemma", _GEMMA),
    _preset("gemma", "model.encoder.layers.0.pre_self_attn_layernorm.weight"),
    _preset(
        "llama",
        "model.layers.0.post_attention_layernorm.weight",
        lacks=(_GEMMA, _QWEN3, _QWEN25, _QWEN35),
    ),
    _generic("bert", "bert.encoder.layer.0.attention.self.query.weight"),
    _generic("jina", "model.encoder.layers.0.mixer.Wqkv.weight"),
)

# Matrices called weight that are not of a Linear layer: tables of embeddings, routers and bases.
TABLES = (
    "llm_adapter.embed",
    "embed_tokens",
    "embed_tokens_per_layer",
    "pos_embed",
    "token_embedding",
    "position_embedding",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "relative_attention_bias",
    "shared",
    "embed_image_indicator",
    "cond_type_embedding",
    "addition_t_embedding",
    "trainable_cond_mask",
    "style_embedder",
    "lyric_embs",
    "ff_i.gate",
    "moe.gate",
    "motion_encoder.dec.direction",
    "motion_encoder.enc.fc",
)
