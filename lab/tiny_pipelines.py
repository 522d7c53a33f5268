"""Tiny pipelines of diffusers with random weights: a transformer or UNet, a text encoder, a VAE.

Prompts are given as embeddings, because tokenizers come with checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

PIPELINES: dict[str, Callable[[], Any]] = {}
_CALLS: dict[str, Callable[[], dict[str, Any]]] = {}


def register(name: str, call: Callable[[], dict[str, Any]]) -> Callable:
    """Decorator: the function makes the pipeline of that name; call: what to call it with."""

    def add(make: Callable[[], Any]) -> Callable[[], Any]:
        PIPELINES[name], _CALLS[name] = make, call
        return make

    return add


def tiny_pipeline(name: str) -> Any:
    """The pipeline, seeded, without a progress bar."""
    torch.manual_seed(0)
    pipe = PIPELINES[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(name: str, pipe: Any) -> torch.Tensor:
    """What the pipeline makes in two steps of one seed."""
    generator = torch.Generator().manual_seed(0)
    out = pipe(**_CALLS[name](), num_inference_steps=2, output_type="pt", generator=generator)
    return torch.as_tensor(out[0] if isinstance(out[0], torch.Tensor) else out[0][0])


def _normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    tokens = {"vocab_size": 1000, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return CLIPTextModel(CLIPTextConfig(**sizes, **tokens, num_attention_heads=4)).eval()


def _vae(channels: int, **options: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=0.3,
        **options,
    ).eval()


def _flow() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler()


def _flux_call() -> dict[str, Any]:
    prompt = {"prompt_embeds": _normal(1, 8, 64), "pooled_prompt_embeds": _normal(1, 64, seed=2)}
    return {**prompt, "height": 32, "width": 32, "guidance_scale": 3.5}


@register("flux", _flux_call)
def _flux() -> Any:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        axes_dims_rope=(8, 12, 12),
    ).eval()
    plain = {"use_quant_conv": False, "use_post_quant_conv": False, "shift_factor": 0.1}
    return FluxPipeline(_flow(), _vae(4, **plain), _text_encoder(), None, None, None, transformer)


def _sd3_call() -> dict[str, Any]:
    return {
        "prompt_embeds": _normal(1, 8, 64),
        "pooled_prompt_embeds": _normal(1, 64, seed=2),
        "negative_prompt_embeds": _normal(1, 8, 64, seed=3),
        "negative_pooled_prompt_embeds": _normal(1, 64, seed=4),
        "height": 32,
        "width": 32,
    }


@register("sd3", _sd3_call)
def _sd3() -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=128,
        pooled_projection_dim=64,
        out_channels=4,
    ).eval()
    vae = _vae(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
    return StableDiffusion3Pipeline(
        transformer, _flow(), vae, _text_encoder(), None, None, None, None, None
    )


def _wan_call() -> dict[str, Any]:
    prompt = {"prompt_embeds": _normal(1, 8, 64), "negative_prompt_embeds": _normal(1, 8, 64)}
    return {**prompt, "height": 16, "width": 16, "num_frames": 5, "guidance_scale": 1.0}


@register("wan", _wan_call)
def _wan() -> Any:
    from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=16,
        out_channels=16,
        text_dim=64,
        freq_dim=64,
        ffn_dim=256,
        num_layers=2,
        rope_max_seq_len=64,
    ).eval()
    vae = AutoencoderKLWan(base_dim=8, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval()
    return WanPipeline(None, _text_encoder(), vae, _flow(), transformer)


def _sdxl_call() -> dict[str, Any]:
    return _sd3_call()


@register("sdxl", _sdxl_call)
def _sdxl() -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=64 + 6 * 8,
        cross_attention_dim=64,
        norm_num_groups=8,
    ).eval()
    return StableDiffusionXLPipeline(
        _vae(4), _text_encoder(), None, None, None, unet, EulerDiscreteScheduler()
    )
