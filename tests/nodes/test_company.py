"""Stock nodes before and after Quantize Model do what they do without it."""

import pytest
import torch

from lab.company import COMPANY, IDLE, SAMPLED, UNET_COMPANY
from lab.sampling import sample as sample_with
from lab.tiny_controlnet import tiny_controlnet
from lab.tiny_models import FLUX, SD15, tiny_sd15

pytestmark = pytest.mark.usefixtures("comfy")


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("name", COMPANY)
def test_a_stock_node_works_before_and_after_quantizing(flux_patcher, name):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    def quantize(model):
        return GQQuantizeModel.execute(model=model, method="int8")[0]

    def sample(model):
        return sample_with(model, FLUX, **SAMPLED[name])

    node = COMPANY[name]
    plain = sample(flux_patcher)
    error = relative(sample(quantize(flux_patcher)), plain)
    expected = sample(node(flux_patcher))
    assert (relative(expected, plain) > 5e-3) == (name not in IDLE)
    for result in (node(quantize(flux_patcher)), quantize(node(flux_patcher))):
        assert 1e-4 < relative(sample(result), expected) < 3 * error
    assert torch.equal(sample(flux_patcher), plain)


@pytest.mark.parametrize("method", ["int8", "int4"])
def test_a_controlnet_steers_a_quantized_model_as_it_does_the_plain_one(flux_patcher, method):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    control = tiny_controlnet()

    def effect(model):
        steered = sample_with(model, FLUX, steps=2, control=control)
        return steered - sample_with(model, FLUX, steps=2)

    wanted = effect(flux_patcher)
    found = effect(GQQuantizeModel.execute(model=flux_patcher, method=method)[0])
    assert wanted.norm() > 0.05 * sample_with(flux_patcher, FLUX, steps=2).norm()
    assert torch.cosine_similarity(found.flatten(), wanted.flatten(), 0).item() > 0.98
    assert 0.95 < (found.norm() / wanted.norm()).item() < 1.05


@pytest.mark.parametrize("name", UNET_COMPANY)
def test_a_stock_node_works_on_a_quantized_unet(tmp_path, inference_mode, name):
    import comfy.sd

    from graphquant.nodes.quantize_model import GQQuantizeModel

    def run(model):
        return sample_with(model, SD15, steps=2, **SAMPLED[name])

    node = UNET_COMPANY[name]
    path = tiny_sd15(tmp_path / SD15.file, widths=(1, 2))
    model = comfy.sd.load_diffusion_model(str(path))
    quantized = GQQuantizeModel.execute(model=model, method="int8")[0]
    error, expected = relative(run(quantized), run(model)), run(node(model))
    assert relative(expected, run(model)) > 5e-3
    assert relative(run(node(quantized)), expected) < 3 * error
