"""Stock nodes before and after Quantize Model do what they do without it."""

import pytest
import torch

from lab.company import COMPANY
from lab.sampling import sample as sample_with
from lab.tiny_controlnet import tiny_controlnet
from lab.tiny_models import FLUX, SD15, tiny_sd15

pytestmark = pytest.mark.usefixtures("comfy")


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("name", COMPANY)
def test_a_stock_node_works_before_and_after_quantizing(flux_patcher, sample, name):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    def quantize(model):
        return GQQuantizeModel.execute(model=model, method="int8")[0]

    node = COMPANY[name]
    plain = sample(flux_patcher)
    error = relative(sample(quantize(flux_patcher)), plain)
    expected = sample(node(flux_patcher))
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


def test_freeu_works_on_a_quantized_unet(tmp_path, inference_mode):
    import comfy.sd
    from comfy_extras.nodes_freelunch import FreeU_V2

    from graphquant.nodes.quantize_model import GQQuantizeModel

    def freeu(model):
        return FreeU_V2.execute(model, 1.3, 1.4, 0.9, 0.2)[0]

    def run(model):
        return sample_with(model, SD15, steps=2)

    # FreeU acts on levels of 640 and 1280 channels.
    path = tiny_sd15(tmp_path / SD15.file, widths=(1, 2))
    model = comfy.sd.load_diffusion_model(str(path))
    quantized = GQQuantizeModel.execute(model=model, method="int8")[0]
    error, expected = relative(run(quantized), run(model)), run(freeu(model))
    assert relative(expected, run(model)) > 1e-3
    assert relative(run(freeu(quantized)), expected) < 3 * error
