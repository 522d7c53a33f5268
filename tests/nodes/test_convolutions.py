"""Quantize Model's convolutions, on a UNet in the real ComfyUI."""

import pytest
import torch

from lab.sampling import relative_l2
from lab.sampling import sample as sample_tiny
from lab.tiny_models import SD15, tiny_sd15

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture(scope="module")
def sd15_file(comfy, tmp_path_factory):
    return tiny_sd15(tmp_path_factory.mktemp("unet") / SD15.file)


@pytest.fixture
def unet(sd15_file, inference_mode):
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(sd15_file))


def run(model, method, **options):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    output = GQQuantizeModel.execute(model=model, method=method, **options)
    return output[0], output.ui["graphquant"][0]


# (method, choice) -> convolutions quantized, the most that the model may weigh of what it did, and
# the bounds of the latent's error after a step
CASES = {
    ("int8", "keep"): (0, 0.82, 0.005),
    ("int8", "auto"): (26, 0.39, 0.01),
    ("fp8-weight-only", "auto"): (0, 0.82, 0.02),
    ("fp8-weight-only", "quantize"): (26, 0.39, 0.035),
    ("int4", "quantize"): (26, 0.39, 0.08),
}


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_convolutions_are_stored_as_asked_and_every_byte_is_told(case, unet):
    method, choice = case
    count, share, bound = CASES[case]
    reference = sample_tiny(unet, SD15, steps=1)
    model, report = run(unet, method, convolutions=choice)
    taken = [la for la in report["layers"] if la["kind"] == "Conv2d" and la["format"]]
    assert len(taken) == count
    assert model.model_size() <= share * unet.model_size()
    assert 1e-4 < relative_l2(sample_tiny(model, SD15, steps=1), reference) < bound
    assert torch.equal(sample_tiny(unet, SD15, steps=1), reference)
    kinds = {each["kind"]: each for each in report["remainder"]}
    assert ("convolution" in kinds) is (count == 0)
    told = sum(la["bytes_after"] for la in report["layers"])
    told += sum(each["bytes"] for each in report["remainder"])
    assert told == model.model_size()
