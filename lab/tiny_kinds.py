"""Diffusion models of further kinds, small enough for a test: mixtures of experts, audio, meshes,
video. ComfyUI's own classes, found by its own recognition of their names; only the sizes that it
knows by heart are smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from .architectures import TREES, UNLISTED_TREES
from .architectures.tree import Tree
from .comfyui import import_comfyui
from .tiny_models import fill

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@dataclass(frozen=True)
class TinyKind:
    """name: of the kind. tree: its real size. sizes: what is smaller. latent: (batch, channels,
    ...). context: (tokens, width) of the prompt. extras: what else the conditioning has, tensors
    by name. beside: shapes of the tensors that its file has beside the diffusion model's. parts:
    classes of ComfyUI, as (module, name), with arguments that it leaves at their defaults.
    """

    name: str
    tree: Tree
    sizes: dict
    latent: tuple[int, ...]
    context: tuple[int, int]
    extras: dict[str, torch.Tensor] = field(default_factory=dict)
    beside: dict[str, tuple[int, ...]] = field(default_factory=dict)
    parts: dict[tuple[str, str], dict] = field(default_factory=dict)

    @property
    def config(self) -> dict:
        """ComfyUI's ``unet_config``."""
        return self.tree.config | self.sizes


_STABLE_AUDIO = Tree(
    None, 1.06, dict(
        audio_model="dit1.0", io_channels=64, embed_dim=1536, depth=24, num_heads=24,
        global_cond_dim=1536, project_cond_tokens=False, timestep_features_type="learned",
    ),
)  # fmt: skip
_ACE_STEP_15 = Tree(None, 2.4, dict(audio_model="ace1.5"))

HIDREAM = TinyKind(
    "hidream_i1", TREES["hidream_i1"],
    dict(
        num_attention_heads=2, attention_head_dim=32, axes_dims_rope=[16, 8, 8], num_layers=1,
        num_single_layers=1, caption_channels=[64, 64], text_emb_dim=64, llama_layers=[0, 1],
    ),
    (1, 16, 8, 8), (8, 64),
    {"conditioning_llama3": _noise(1, 2, 8, 64), "pooled_output": _noise(1, 64)},
)  # fmt: skip
HUNYUAN3D = TinyKind(
    "hunyuan3d_2", UNLISTED_TREES["hunyuan3d_2"],
    dict(hidden_size=256, depth=2, depth_single_blocks=2, context_in_dim=64),
    (1, 64, 32), (8, 64),
)  # fmt: skip
HUNYUAN3D_21 = TinyKind(
    "hunyuan3d_21", UNLISTED_TREES["hunyuan3d_21"],
    dict(hidden_size=128, num_heads=2, depth=4, context_dim=64, num_moe_layers=2, num_experts=4),
    (1, 64, 32), (8, 64),
)  # fmt: skip
ACE_STEP = TinyKind(
    "ace_step", UNLISTED_TREES["ace_step"],
    dict(
        inner_dim=128, num_attention_heads=4, attention_head_dim=32, num_layers=2,
        text_embedding_dim=64, lyric_encoder_vocab_size=100, lyric_hidden_size=64,
        ssl_encoder_depths=[2, 2], ssl_latent_dims=[64, 64], max_width=256, max_position=256,
    ),
    (1, 8, 16, 32), (8, 64), {"conditioning_lyrics": torch.arange(2, 8).view(1, 6)},
    parts={
        ("comfy.ldm.ace.model", "LyricEncoder"): dict(
            output_size=64, attention_heads=2, linear_units=128, num_blocks=1
        )
    },
)  # fmt: skip
ACE_STEP_15 = TinyKind(
    "ace_step_15", _ACE_STEP_15,
    dict(
        hidden_size=128, intermediate_size=256, num_heads=2, num_kv_heads=1, head_dim=64,
        num_dit_layers=2, num_lyric_layers=1, num_timbre_layers=1, num_tokenizer_layers=1,
        text_hidden_dim=64, encoder_hidden_size=128, encoder_intermediate_size=256,
        encoder_num_heads=2, fsq_dim=128,
    ),
    (1, 64, 40), (8, 64), {"conditioning_lyrics": _noise(1, 6, 64)},
)  # fmt: skip
STABLE_AUDIO = TinyKind(
    "stable_audio", _STABLE_AUDIO, dict(embed_dim=768, depth=2, num_heads=12),
    (1, 64, 32), (8, 768),
    beside={
        f"conditioner.conditioners.seconds_{end}.embedder.embedding.{name}": shape
        for end in ("start", "total")
        for name, shape in (("0.weights", (128,)), ("1.weight", (768, 257)), ("1.bias", (768,)))
    },
)  # fmt: skip
LTXV = TinyKind(
    "ltxv_2b", TREES["ltxv_2b"],
    dict(
        num_layers=2, num_attention_heads=2, attention_head_dim=32, cross_attention_dim=64,
        caption_channels=64,
    ),
    (1, 128, 2, 4, 4), (8, 64), {"attention_mask": torch.ones(1, 8, dtype=torch.long)},
)  # fmt: skip
TINY_KINDS = (*(HIDREAM, HUNYUAN3D, HUNYUAN3D_21, ACE_STEP, ACE_STEP_15, STABLE_AUDIO, LTXV),)


def tiny_kind_file(kind: TinyKind, folder: str | Path, seed: int = 0) -> Path:
    """Write the diffusion model of ``kind``."""
    path = Path(folder) / f"tiny_{kind.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    beside = {name: fill(name, shape, generator) for name, shape in kind.beside.items()}
    with sizes_of(kind):
        state = _base_model(kind.config, dict(beside)).diffusion_model.state_dict()
    weights = {name: fill(name, w.shape, generator) for name, w in state.items()} | beside
    save_file({name: weight.bfloat16() for name, weight in weights.items()}, path)
    return path


def whole(kind: TinyKind):
    """ComfyUI's BaseModel of ``kind`` at its real size, in bf16, its weights never written."""
    beside = {name: torch.zeros(shape) for name, shape in kind.beside.items()}
    return _base_model(kind.tree.config, beside)


def _base_model(config: dict, beside: dict[str, torch.Tensor]):
    import_comfyui()
    from comfy.model_detection import model_config_from_unet_config

    made = model_config_from_unet_config(config)
    made.set_inference_dtype(torch.bfloat16, None)
    return made.get_model(beside)


@contextmanager
def sizes_of(kind: TinyKind) -> Iterator[None]:
    """Inside, ComfyUI takes the sizes that it knows by heart from ``kind``."""
    import_comfyui()
    import comfy.model_detection as detection

    detect = detection.detect_unet_config

    def detect_with_sizes(*args, **kwargs):
        found = detect(*args, **kwargs)
        return None if found is None else found | kind.sizes

    with ExitStack() as stack:
        stack.enter_context(patch.object(detection, "detect_unet_config", detect_with_sizes))
        for (module, name), sizes in kind.parts.items():
            module = import_module(module)
            smaller = partial(getattr(module, name), **sizes)
            stack.enter_context(patch.object(module, name, smaller))
        yield


def load(path: Path, kind: TinyKind) -> ModelPatcher:
    """The MODEL in a file of ``kind``, by ComfyUI's own loader."""
    import comfy.sd

    with sizes_of(kind):
        return comfy.sd.load_diffusion_model(str(path))


def sample(patcher: ModelPatcher, kind: TinyKind, steps: int = 1, seed: int = 0) -> torch.Tensor:
    """The latent after ``steps`` Euler steps from seeded noise."""
    import comfy.sample

    context = torch.randn(1, *kind.context, generator=torch.Generator().manual_seed(seed))
    prompt = [[context, dict(kind.extras)]]
    latent = torch.zeros(kind.latent)
    return comfy.sample.sample(
        patcher,
        comfy.sample.prepare_noise(latent, seed),
        steps,
        1.0,
        "euler",
        "simple",
        prompt,
        prompt,
        latent,
        seed=seed,
        disable_pbar=True,
    )
