"""VAE checkpoints that ComfyUI's loader recognises: its own classes, seeded weights, bf16 files.

The loader tells a VAE by its names and fixes most widths: the encoders of sd and flux have their
real size (34 million parameters, 68 MB a file). What it reads from the file is narrow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from inspect import signature
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from .comfyui import import_comfyui


@dataclass(frozen=True)
class TinyVae:
    """name: its architecture. latent: (batch, channels, [frames,] height, width) to decode, pixels:
    (images or frames, height, width, 3) to encode. last: the decoder's last convolution. width: the
    channels that the file may choose, of the decoder or of both halves; 128 in sd and flux, 96 in
    wan is the real size."""

    name: str
    latent: tuple[int, ...]
    pixels: tuple[int, ...]
    last: str
    width: int = 64

    @property
    def file(self) -> str:
        return f"tiny_{self.name}_vae.safetensors"

    def latents(self, seed: int = 1) -> torch.Tensor:
        return torch.randn(self.latent, generator=torch.Generator().manual_seed(seed))

    def images(self, seed: int = 1) -> torch.Tensor:
        return torch.rand(self.pixels, generator=torch.Generator().manual_seed(seed))


SD = TinyVae("sd", (1, 4, 8, 8), (1, 32, 32, 3), "decoder.conv_out")
FLUX = TinyVae("flux", (1, 16, 8, 8), (1, 32, 32, 3), "decoder.conv_out")
TAESD = TinyVae("taesd", (1, 16, 16, 16), (1, 64, 64, 3), "taesd_decoder.19")
WAN = TinyVae("wan", (1, 16, 2, 4, 4), (5, 32, 32, 3), "decoder.head.2", 32)
LTX = TinyVae("ltx", (1, 128, 2, 2, 2), (9, 64, 64, 3), "decoder.conv_out.conv", 32)
TINY_VAES = (SD, FLUX, TAESD, WAN, LTX)
# Its decoder is a transformer. ComfyUI makes it in its real size, but for what ``sizes_of_minimax``
# says.
MINIMAX = TinyVae("minimax", (1, 24, 2, 4, 4), (5, 64, 64, 3), "decoder.proj_out", 32)

# Pictures with the spread of photographs (standard deviation 0.2), so that few pixels are clipped.
_CONTRAST = 0.75
_KL_CONFIG = {
    "double_z": True,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
_LTX_CONFIG = {
    "dims": 3,
    "latent_channels": 128,
    "blocks": [["res_x", 1], *([["compress_all", 1], ["res_x", 1]] * 3)],
    "encoder_base_channels": LTX.width,
    "decoder_base_channels": LTX.width,
    "norm_layer": "pixel_norm",
    "patch_size": 4,
    "latent_log_var": "uniform",
}


@contextmanager
def sizes_of_minimax(blocks: int = 2, heads: int = 4) -> Iterator[None]:
    """Inside, ComfyUI's MiniMax VAE is small: ``blocks`` of 64 ``heads`` channels."""
    vae = import_module("comfy.ldm.minimax.vae")
    decoder = partial(vae.ViT3DDecoder, num_layers=blocks, heads=heads)
    whole = vae.MiniMaxH3VideoVAE

    class MiniMaxH3VideoVAE(whole):
        def __init__(self, *args, **options):
            super().__init__(*args, ch=MINIMAX.width, ch_mult=(1,) * 6, **options)

    MiniMaxH3VideoVAE.__init__.__signature__ = signature(whole.__init__)
    with (
        patch.object(vae, "ViT3DDecoder", decoder),
        patch.object(vae, "MiniMaxH3VideoVAE", MiniMaxH3VideoVAE),
    ):
        yield


def tiny_vae_file(tiny: TinyVae, folder: str | Path, seed: int = 0) -> Path:
    """Write ``tiny`` into ``folder``."""
    path = Path(folder) / tiny.file
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"config": json.dumps({"vae": _LTX_CONFIG})} if tiny.name == "ltx" else None
    save_file({k: v.bfloat16() for k, v in weights(tiny, seed).items()}, path, metadata)
    return path


def weights(tiny: TinyVae, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state dict in float32."""
    import_comfyui()
    with torch.device("meta"):
        model = _module(tiny)
    state = random_weights(model, seed)
    state[f"{tiny.last}.weight"] *= _CONTRAST
    if tiny.name == "taesd":  # it ends in pixels of 0 to 1, where the others end in -1 to 1
        state[f"{tiny.last}.bias"] += 0.5
        state |= {"vae_scale": torch.tensor(1.0), "vae_shift": torch.tensor(0.0)}
    return state


def random_weights(model: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Gaussian float32 weights that keep a signal at its size; norms near 1, biases near 0."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: _fill(name, weight.shape, generator) for name, weight in model.state_dict().items()
    }


def _fill(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if name.endswith("bias"):
        return noise * 0.02
    if len(shape) > 1 and not name.endswith("gamma"):
        return noise / math.sqrt(math.prod(shape[1:]))
    return 1 + noise * 0.02


def _module(tiny: TinyVae) -> torch.nn.Module:
    channels = tiny.latent[1]
    if tiny.name == "minimax":
        return import_module("comfy.ldm.minimax.vae").MiniMaxH3VideoVAE()
    if tiny.name == "taesd":
        return import_module("comfy.taesd.taesd").TAESD(latent_channels=channels)
    if tiny.name == "ltx":
        video = import_module("comfy.ldm.lightricks.vae.causal_video_autoencoder")
        return video.VideoVAE(config=_LTX_CONFIG)
    if tiny.name == "wan":
        return import_module("comfy.ldm.wan.vae").WanVAE(
            dim=tiny.width, z_dim=channels, temperal_downsample=[False, True, True]
        )
    return _kl_module(channels, tiny.width, quant_conv=tiny.name == "sd")


def _kl_module(channels: int, decoder_width: int, quant_conv: bool) -> torch.nn.Module:
    """The KL VAE of Stable Diffusion (with quant_conv) or FLUX.1 (without)."""
    autoencoder = import_module("comfy.ldm.models.autoencoder")
    config = {**_KL_CONFIG, "z_channels": channels}
    decoder = {**config, "ch": decoder_width}
    if quant_conv:
        return autoencoder.AutoencoderKL(
            ddconfig=config, decoder_ddconfig=decoder, embed_dim=channels
        )
    parts = "comfy.ldm.modules.diffusionmodules.model"
    regularizer = "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"
    return autoencoder.AutoencodingEngine(
        regularizer_config={"target": regularizer},
        encoder_config={"target": f"{parts}.Encoder", "params": config},
        decoder_config={"target": f"{parts}.Decoder", "params": decoder},
    )
