"""Which architectures a text encoder or a VAE works for, asked of ComfyUI's own."""

import pytest
import torch

from lab.architectures import text_encoder

pytestmark = pytest.mark.usefixtures("comfy")

# The few keys by which ComfyUI recognises a VAE, and for whom it works, and for whom not.
VAES = {
    "sd15": (
        {"decoder.conv_in.weight": (512, 4, 3, 3)},
        {"sd15_sdxl", "pixart", "auraflow"},
        {"flux1", "wan"},
    ),
    "flux1": (
        {"decoder.conv_in.weight": (512, 16, 3, 3)},
        {"flux1", "sd3", "z_image", "chroma"},
        {"flux2", "qwen_image"},
    ),
    "flux2": (
        {"decoder.conv_in.weight": (512, 32, 3, 3), "bn.running_mean": (128,)},
        {"flux2", "mage_flow"},
        {"flux1", "ltx2"},
    ),
    "wan 2.1": (
        {
            "decoder.middle.0.residual.0.gamma": (384, 1, 1, 1),
            "decoder.head.0.gamma": (96, 1, 1, 1),
            "decoder.head.2.weight": (3, 96, 3, 3, 3),
            "encoder.conv1.weight": (96, 3, 3, 3, 3),
        },
        {"wan", "qwen_image", "anima"},
        {"hunyuan_video", "cogvideox"},
    ),
    "wan 2.2": (
        {
            "decoder.middle.0.residual.0.gamma": (1024, 1, 1, 1),
            "decoder.upsamples.0.upsamples.0.residual.2.weight": (1024, 1024, 3, 3, 3),
        },
        {"wan"},
        {"qwen_image"},
    ),
    "ltx": (
        {"decoder.up_blocks.0.res_blocks.0.conv1.conv.weight": (512, 512, 3, 3, 3)},
        {"ltxv", "ltx2"},
        {"flux2"},
    ),
    "hunyuan_video": (
        {
            "decoder.conv_in.conv.weight": (512, 16, 3, 3, 3),
            "post_quant_conv.weight": (16, 16, 1, 1, 1),
        },
        {"hunyuan_video", "kandinsky5"},
        {"wan", "cosmos"},
    ),
    "hunyuan_image": (
        {"decoder.conv_in.weight": (1024, 64, 3, 3)},
        {"hunyuan_video"},
        {"wan", "flux1"},
    ),
    "mochi": ({"blocks.2.blocks.3.stack.5.weight": (512, 512, 3, 3, 3)}, {"mochi"}, {"wan"}),
    "taesd": ({"taesd_decoder.1.weight": (64, 4, 3, 3)}, set(), {"sd15_sdxl"}),
}


@pytest.mark.parametrize("name", VAES)
def test_a_vae_works_for_those_whose_latents_it_decodes(name):
    from comfy.sd import VAE

    from graphquant.nodes.bridge.architecture.pipeline_names import vae_architectures

    shapes, among, not_among = VAES[name]
    with torch.device("meta"):
        vae = VAE(sd={key: torch.empty(shape) for key, shape in shapes.items()})
    found = set(vae_architectures(vae))
    assert among <= found
    assert not found & not_among
    assert bool(found) == bool(among)


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("sd15", ("sd15_sdxl",)),
        ("sd3", ("sd3",)),
        ("flux1", ("flux1",)),
        ("flux2_dev", ("flux2",)),
        ("flux2_klein", ("flux2",)),
        ("qwen_image", ("qwen_image",)),
        ("z_image", ("z_image",)),
        ("wan", ("wan",)),
        ("ltx2", ("ltx2",)),
        ("hidream", ("hidream",)),
        ("hunyuan_image", ("hunyuan_video",)),
        ("qwen35", ()),
    ],
)
def test_a_text_encoder_works_for_the_models_it_was_loaded_for(encoder, expected):
    from graphquant.nodes.bridge.architecture.pipeline_names import encoder_architectures

    assert encoder_architectures(text_encoder(encoder)) == expected


# Their clip_target names the encoder of another model, or none.
NO_TARGET = {"flux2", "hidream", "ltx2", "cogvideox", "ace1_5"}


def targets():
    """(architecture, class of its text encoder) as ComfyUI's own configurations say."""
    from comfy.supported_models import models

    from graphquant.nodes.bridge.architecture.detected import config_architecture

    for config in models:
        name = config_architecture(config)
        if name in NO_TARGET:
            continue
        target = config(dict(config.unet_config)).clip_target({})
        if target is not None:
            yield name, target.clip


def test_every_model_is_among_those_that_its_own_text_encoder_works_for():
    from graphquant.nodes.bridge.architecture.pipeline_names import encoder_architectures

    checked = 0
    for name, encoder in targets():
        assert name in encoder_architectures(encoder.__new__(encoder)), encoder.__module__
        checked += 1
    assert checked >= 60


def test_architectures_are_named_once_and_fit_for_a_section():
    from graphquant.nodes.bridge.architecture.pipeline_names import architecture_names

    names = architecture_names()
    assert len(set(names)) == len(names) >= 40
    assert all(name.replace("_", "").isalnum() and name == name.lower() for name in names)
    assert {"flux2", "ltx2", "z_image", "qwen_image"} <= set(names)
