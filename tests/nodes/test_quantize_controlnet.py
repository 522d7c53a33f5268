"""Quantize ControlNet, executed as ComfyUI executes it, on every kind that ComfyUI loads."""

import pytest
import torch

from graphquant.quant_core.errors import ModuleError
from lab.sampling import relative_l2, sample
from lab.tiny_controlnet import tiny_controlnet, tiny_controlnet_file
from lab.tiny_controls import (
    CONTROLNETS,
    MODEL_PATCHES,
    control_lora,
    diffsynth_patch,
    qwen_controlnet,
    sd15_controlnet,
    t2i_adapter,
    z_image_patch,
)
from lab.tiny_models import FLUX

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")

by_kind = pytest.mark.parametrize("make", CONTROLNETS + MODEL_PATCHES, ids=lambda m: m.__name__)


def quantize(source, method="int8", **options):
    """The quantized ControlNet or model patch, and its report."""
    from graphquant.nodes.quantize_controlnet import GQQuantizeControlNet

    is_patch = hasattr(source, "model_options")
    given = {"model_patch" if is_patch else "control_net": source}
    output = GQQuantizeControlNet.execute(method, **given, **options)
    (report,) = output.ui["graphquant"]
    return output.result[is_patch], report


def weights(source):
    """Every weight by name, as whoever computes with it gets it."""
    from comfy.controlnet import ControlLora

    if isinstance(source, ControlLora):
        return {name: source.control_weights[name] for name in source.control_weights}
    module = getattr(source, "control_model", None) or getattr(source, "t2i_model", None)
    return dict((module or source.model).named_parameters())


def plain(tensor):
    return tensor.dequantize() if hasattr(tensor, "_layout_cls") else tensor


@by_kind
@pytest.mark.parametrize("method", ["int8", "fp8-weight-only", "int4", "int8-convrot"])
def test_weights_are_near_those_that_went_in(make, method):
    source = make()
    quantized, report = quantize(source, method)
    errors = [
        relative_l2(plain(after), before)
        for (_, before), (_, after) in zip(
            weights(source).items(), weights(quantized).items(), strict=True
        )
        if not torch.equal(plain(after), before)
    ]
    assert len(errors) == report["quantized_layers"] > 0
    assert max(errors) < {"int8": 0.012, "int8-convrot": 0.012, "int4": 0.11}.get(method, 0.03)


@by_kind
def test_the_input_stays_as_it_is(make):
    source = make()
    before = {name: tensor.clone() for name, tensor in weights(source).items()}
    attributes = dict(vars(source))
    quantized, _ = quantize(source, "int4")
    assert quantized is not source and type(quantized).__mro__.index(type(source)) <= 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(source).items())
    attributes.pop("size", None)  # ComfyUI counts it when it is first asked for
    assert all(vars(source)[name] is value for name, value in attributes.items())


@pytest.mark.parametrize(
    ("make", "share"),
    [
        (sd15_controlnet, 0.50),
        (qwen_controlnet, 0.54),
        (t2i_adapter, 0.31),
        (control_lora, 0.37),
        (diffsynth_patch, 0.31),
        (z_image_patch, 0.50),
    ],
)
def test_bytes_fall_to_what_the_report_says(make, share):
    """Of float32: a quarter and what is kept, the ends and the embedders of tiny models."""
    quantized, report = quantize(make(), "int8")
    before, after = report["model_bytes_before"], report["model_bytes_after"]
    assert after / before == pytest.approx(share, abs=0.02)
    patcher = getattr(quantized, "control_model_wrapped", quantized)
    if hasattr(patcher, "model_size"):
        assert patcher.model_size() == after


@pytest.mark.parametrize("method", ["int8", "fp8-weight-only", "int8-dynamic", "w4a8", "int4"])
def test_a_controlnet_steers_beside_a_quantized_model_as_it_does_alone(flux_patcher, method):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    def effect(model, control):
        return sample(model, FLUX, steps=2, control=control) - sample(model, FLUX, steps=2)

    control = tiny_controlnet()
    quantized, _ = quantize(control, method)
    wanted = effect(flux_patcher, control)
    model = GQQuantizeModel.execute(model=flux_patcher, method="int8")[0]
    for found in (effect(flux_patcher, quantized), effect(model, quantized)):
        assert torch.cosine_similarity(found.flatten(), wanted.flatten(), 0).item() > 0.98
        assert 0.95 < (found.norm() / wanted.norm()).item() < 1.05
        assert not torch.equal(found, wanted)


def test_convolutions_are_quantized_and_computed_in_full_precision():
    source = sd15_controlnet()
    quantized, report = quantize(source, "int8-dynamic")
    kinds = {layer["kind"] for layer in report["layers"] if layer["action"] == "quantize"}
    assert kinds == {"Conv2d", "Linear"}
    generator = torch.Generator().manual_seed(5)
    x, hint = (torch.randn(1, c, s, s, generator=generator) for c, s in ((4, 8), (3, 64)))
    given = {
        "x": x,
        "hint": hint,
        "timesteps": torch.tensor([500.0]),
        "context": torch.randn(1, 4, 64, generator=generator),
    }
    for after, before in zip(
        quantized.control_model(**given)["output"],
        source.control_model(**given)["output"],
        strict=True,
    ):
        assert 1e-4 < relative_l2(after, before) < 0.05


def test_a_t2i_adapter_runs_through_its_own_moves():
    source = t2i_adapter()
    quantized, _ = quantize(source, "int8")
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(6))
    x = torch.zeros(1, 4, 8, 8)

    def control(adapter):
        return adapter.copy().set_cond_hint(hint).get_control(x, None, {}, 1, {})["input"]

    for after, before in zip(control(quantized), control(source), strict=True):
        assert (after is None) == (before is None)
        if after is not None:
            assert 1e-5 < relative_l2(after, before) < 0.05


@pytest.mark.parametrize("make", [sd15_controlnet, qwen_controlnet, t2i_adapter, control_lora])
def test_copies_share_the_quantized_weights_and_keep_the_chain(make):
    first, source = tiny_controlnet(), make().set_cond_hint(torch.zeros(1, 3, 8, 8), 0.6)
    source.set_previous_controlnet(first)
    quantized, _ = quantize(source)
    assert quantized.previous_controlnet is first and quantized.strength == 0.6
    copied = quantized.copy()
    assert type(copied) is type(quantized)
    pairs = zip(weights(quantized).values(), weights(copied).values(), strict=True)
    assert all(torch.equal(plain(one), plain(other)) for one, other in pairs)


def test_a_control_lora_counts_its_parameters_without_reading_them():
    quantized, _ = quantize(control_lora(), "int8")
    expected = 4 * sum(tensor.nelement() for tensor in control_lora().control_weights.values())
    assert quantized.inference_memory_requirements(torch.float32) == expected


def test_excluded_layers_stay_and_a_pattern_that_matches_none_is_told():
    _, report = quantize(diffsynth_patch(), exclude="controlnet_blocks.0\nnothing")
    assert report["quantized_layers"] == 2
    assert any("'nothing'" in warning for warning in report["warnings"])


@by_kind
@pytest.mark.parametrize("method", ["int8", "int4"])
def test_what_is_quantized_already_comes_back_itself(make, method):
    once, first = quantize(make(), "int8")
    again, report = quantize(once, method)
    assert again is once and report["method"] == "already_quantized"
    assert report["model_bytes_before"] == report["model_bytes_after"] == first["model_bytes_after"]


@by_kind
def test_the_rest_is_quantized_beside_what_is_already(make):
    _, whole = quantize(make(), "int8")
    kept, *_ = (layer["name"] for layer in whole["layers"] if layer["action"] == "quantize")
    most, first = quantize(make(), "int8", exclude=kept)
    both, report = quantize(most, "int8")
    assert report["quantized_layers"] == 1
    assert report["model_bytes_before"] == first["model_bytes_after"]
    assert report["model_bytes_after"] == whole["model_bytes_after"]
    expected = weights(quantize(make(), "int8")[0])
    for name, found in weights(both).items():
        assert torch.equal(plain(found), plain(expected[name])), name


def test_a_file_goes_through_comfyuis_loader_and_back_to_half_its_size(tmp_path):
    import comfy.controlnet

    path = tiny_controlnet_file(tmp_path / "canny.safetensors")
    loaded = comfy.controlnet.load_controlnet(str(path))
    quantized, report = quantize(loaded, "int8")
    assert report["quantized_layers"] == 8 and report["skipped_layers"] == 20
    assert quantized.get_models() == [quantized.control_model_wrapped]
    assert quantized.control_model_wrapped.model_size() == report["model_bytes_after"]


def test_an_unknown_kind_and_an_empty_node_are_refused():
    from comfy.controlnet import ControlBase

    from graphquant.nodes.quantize_controlnet import GQQuantizeControlNet

    with pytest.raises(ModuleError, match="control_net is a ControlBase"):
        quantize(ControlBase())
    with pytest.raises(ValueError, match="Nothing is connected"):
        GQQuantizeControlNet.execute("int8")


def test_both_inputs_are_done_in_one_run():
    from graphquant.nodes.quantize_controlnet import GQQuantizeControlNet

    control, patch = qwen_controlnet(), z_image_patch()
    output = GQQuantizeControlNet.execute("int8", control_net=control, model_patch=patch)
    parts = [report["part"] for report in output.ui["graphquant"]]
    assert parts == ["control_net", "model_patch"]
    assert output.result[0] is not control and output.result[1] is not patch


def test_a_calibrated_method_is_refused_by_name():
    with pytest.raises(Exception, match="calibration"):
        quantize(qwen_controlnet(), "fp8-static")


@pytest.mark.parametrize("by", ["method", "config"])
def test_fit_is_refused_where_no_size_can_be_named(by):
    from graphquant.quant_core.config import config_from_text
    from graphquant.quant_core.errors import UnsupportedMethodError

    given = {"config": config_from_text("fit")} if by == "config" else {}
    method = "int8" if given else "fit"
    with pytest.raises(UnsupportedMethodError, match=r"^fit needs a size"):
        quantize(qwen_controlnet(), method, **given)
