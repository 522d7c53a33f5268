"""A node's report accounts for every byte that ComfyUI counts as the model's size."""

import pytest
import torch

from lab.architectures import TREES, UNLISTED_TREES, base_model
from lab.architectures.tree import vary
from lab.tiny_models import SD15, fill, tiny_sd15
from lab.tiny_vaes import TINY_VAES

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")

# Small trees with more than layers: convolutions and gains, embeddings and buffers that no state
# dict has, positions and registers as parameters.
SMALL = {
    "cascade_b": {"c_hidden": [64, 64, 64, 64], "blocks": [[1] * 4] * 2, "nhead": [-1, -1, 2, 2]},
    "ace_step": {"inner_dim": 256, "num_layers": 1, "num_attention_heads": 2},
    "auraflow": {"dim": 256, "n_heads": 2, "n_layers": 2, "n_double_layers": 1},
}
HOLDS = {
    "cascade_b": "effnet_mapper",
    "ace_step": "lyric_embs.weight",
    "auraflow": "positional_encoding",
}


def small_patcher(name):
    from comfy.model_detection import model_config_from_unet_config
    from comfy.model_patcher import ModelPatcher

    tree = (TREES | UNLISTED_TREES)[name]
    config = model_config_from_unet_config(vary(tree, 0.0, **SMALL[name]).config)
    config.set_inference_dtype(torch.bfloat16, None)
    cpu = torch.device("cpu")
    model = config.get_model({}, device=cpu)
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.diffusion_model.named_parameters():
        parameter.data.copy_(fill(key, parameter.shape, generator))
    return ModelPatcher(model, cpu, cpu)


def reported(node, model, **options):
    """(MODEL, text, the panel's data) of a node."""
    result = node.execute(model=model, **options)
    return result.args[0], result.args[1], result.ui["graphquant"][0]


def require_every_byte(model, quantized, text, data):
    layers, rest = data["layers"], data["remainder"]
    kept = sum(each["bytes"] for each in rest)
    assert sum(layer["bytes_before"] for layer in layers) + kept == model.model_size()
    assert sum(layer["bytes_after"] for layer in layers) + kept == quantized.model_size()
    assert quantized.model_size() < model.model_size() == data["model_bytes_before"]
    assert data["model_bytes_after"] == quantized.model_size()
    for each in rest:
        assert each["reason"] in text and each["names"][0] in text
    assert any("model_sampling." in each["names"][0] for each in rest)


@pytest.mark.parametrize("method", ["int8", "fp8-weight-only", "int4"])
def test_every_byte_of_a_flux_is_reported(flux_patcher, method):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    require_every_byte(flux_patcher, *reported(GQQuantizeModel, flux_patcher, method=method))


def test_every_byte_of_a_layerwise_cast_is_reported(flux_patcher):
    from graphquant.nodes.layerwise_fp8_cast import GQLayerwiseFP8Cast

    options = {"storage_dtype": "float8_e4m3fn"}
    require_every_byte(flux_patcher, *reported(GQLayerwiseFP8Cast, flux_patcher, **options))


def test_every_byte_of_a_unet_with_convolutions_is_reported(tmp_path):
    import comfy.sd

    from graphquant.nodes.quantize_model import GQQuantizeModel

    unet = comfy.sd.load_diffusion_model(str(tiny_sd15(tmp_path / SD15.file)))
    require_every_byte(unet, *reported(GQQuantizeModel, unet, method="int8"))


@pytest.mark.parametrize("name", SMALL)
def test_every_byte_beside_the_layers_is_reported(name):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    model = small_patcher(name)
    quantized, text, data = reported(GQQuantizeModel, model, method="int8", preset="generic")
    require_every_byte(model, quantized, text, data)
    assert any(HOLDS[name] in key for each in data["remainder"] for key in each["names"])
    assert ("buffers are not counted" in text) == (name == "ace_step")


@pytest.mark.parametrize("name", ["lens", "svd", "anima", "hidream_o1", "ltx2"])
def test_every_byte_of_a_model_at_its_real_size_is_in_the_plan(name):
    import comfy.model_management

    from graphquant.nodes.bridge.model.whole_size import of_whole_size
    from graphquant.quant_core import plan_component

    model = base_model(name)
    plan = plan_component(model.diffusion_model, "int8")
    size = comfy.model_management.module_size(model)
    assert plan.bytes_before != size
    assert of_whole_size(plan, model, model.diffusion_model).bytes_before == size


@pytest.mark.parametrize("tiny", TINY_VAES, ids=lambda tiny: tiny.name)
def test_every_byte_of_a_vae_is_reported(load_vae, tiny):
    from graphquant.nodes.quantize_vae import GQQuantizeVAE

    vae = load_vae(tiny)
    result = GQQuantizeVAE.execute(vae=vae, method="int8")
    data = result.ui["graphquant"][0]
    kept = sum(each["bytes"] for each in data["remainder"])
    for side, each in (("before", vae), ("after", result.args[0])):
        layers = sum(layer[f"bytes_{side}"] for layer in data["layers"])
        assert layers + kept == each.patcher.model_size() == data[f"model_bytes_{side}"]
