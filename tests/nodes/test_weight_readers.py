"""Stock nodes that read a quantized model's weights: they get numbers that mean the weights."""

import pytest
import torch

from lab.sampling import relative_l2
from lab.sampling import sample as sample_with
from lab.tiny_controlnet import sd15_control
from lab.tiny_models import SD15, tiny_sd15

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")


def quantized(model, method):
    from graphquant.nodes.layerwise_fp8_cast import GQLayerwiseFP8Cast
    from graphquant.nodes.quantize_model import GQQuantizeModel

    if method == "layerwise":
        return GQLayerwiseFP8Cast.execute(model=model, storage_dtype="float8_e4m3fn")[0]
    return GQQuantizeModel.execute(model=model, method=method)[0]


@pytest.mark.parametrize("kind", ["Control-LoRA", "difference"])
@pytest.mark.parametrize("method", ["int8", "fp8-weight-only", "int4", "nf4", "layerwise"])
def test_a_controlnet_made_of_the_models_weights_steers_as_it_does_the_plain_one(
    tmp_path, kind, method
):
    import comfy.sd

    plain = comfy.sd.load_diffusion_model(str(tiny_sd15(tmp_path / SD15.file)))

    def effect(model):
        control = sd15_control(model, kind)
        free = sample_with(model, SD15, steps=1)
        return sample_with(model, SD15, steps=1, control=control) - free

    wanted = effect(plain)
    assert wanted.norm() > 0.05 * sample_with(plain, SD15, steps=1).norm()
    bound = {"int8": 0.05, "int4": 0.4, "nf4": 0.4}.get(method, 0.2)
    assert relative_l2(effect(quantized(plain, method)), wanted) < bound


@pytest.mark.parametrize(
    "method, bound", [("int8", 0.99), ("fp8-weight-only", 0.99), ("int4", 0.98), ("nf4", 0.98)]
)
def test_extract_and_save_lora_finds_the_lora_that_was_added(
    flux_patcher, with_lora, tmp_path, method, bound
):
    from comfy_extras.nodes_lora_extract import LORAType, calc_lora_model
    from comfy_extras.nodes_model_merging import ModelSubtract

    layer = "double_blocks.0.img_attn.qkv"
    base = quantized(flux_patcher, method)
    changed, deltas = with_lora(base, [layer])
    difference = ModelSubtract().merge(changed, base, 1.0)[0]
    found = calc_lora_model(
        difference, 4, "diffusion_model.", "diffusion_model.", {}, LORAType.STANDARD
    )
    up, down = (found[f"diffusion_model.{layer}.lora_{part}.weight"] for part in ("up", "down"))
    product = (up.float() @ down.float()).flatten()
    assert torch.cosine_similarity(product, deltas[layer].flatten(), 0) > bound


def test_a_block_copied_by_its_state_dict_computes_what_the_block_does(flux_patcher):
    import copy

    block = quantized(flux_patcher, "int4").model.diffusion_model.double_blocks[0].img_mlp[0]
    plain = torch.nn.Linear(block.in_features, block.out_features)
    plain.load_state_dict(copy.deepcopy(block.state_dict()), strict=False)
    x = torch.randn(3, block.in_features)
    assert relative_l2(plain(x), block(x)) < 1e-5
