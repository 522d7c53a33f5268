"""Quantization Config, and what the Quantize nodes do with it, without a server."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture
def config():
    """``config(text)`` -> the node's output."""
    from graphquant.nodes.quantization_config import GQQuantizationConfig

    return lambda text: GQQuantizationConfig.execute(text)


@pytest.fixture
def quantize():
    """``quantize(model, config output, **options)`` -> output of Quantize Model."""
    from graphquant.nodes.quantize_model import GQQuantizeModel

    def run(model, output, **options):
        return GQQuantizeModel.execute(
            model=model, **{"method": "int8", **options}, config=output[0]
        )

    return run


def report_of(output):
    return output.ui["graphquant"][0]


def kept(report):
    layers = report["layers"]
    return {la["name"] for la in layers if la["action"] == "keep" and "exclude" in la["reason"]}


def test_it_tells_what_the_text_comes_to_and_the_whole_dictionary(config):
    report = config('{"method": "fp8", "ignored_layers": ["img_mlp"]}')[1]
    assert report.startswith("fp8-dynamic: FP8 weights and FP8 activations")
    assert "\n- kept: img_mlp\n" in report
    assert '"activation_scheme": "dynamic"' in report


def test_a_fault_is_pointed_at_in_the_first_line(config):
    with pytest.raises(ValueError) as error:
        config('{\n  "load_in_4bit": true,\n  "bnb_4bit_quant_type": "nf5"\n}')
    first, shown, caret = str(error.value).split("\n")
    assert first.startswith('Line 3, column 26, at "nf5": Unknown value of bnb_4bit_quant_type')
    assert shown[caret.index("^") :] == '"nf5"'


def test_quantize_model_goes_by_the_config_instead_of_its_own_inputs(
    flux_patcher, config, quantize
):
    output = config(
        '{"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4", '
        '"llm_int8_skip_modules": ["double_blocks.0"]}'
    )
    report = report_of(quantize(flux_patcher, output, exclude="single_blocks"))
    assert report["method"] == "nf4"
    formats = {la["format"] for la in report["layers"] if la["action"] == "quantize"}
    assert formats == {"nf4 blocks of 64"}
    assert kept(report) and all(name.startswith("double_blocks.0.") for name in kept(report))
    assert "config: nf4, as a configuration of bitsandbytes says." in report["notes"]


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        (
            "single_transformer_blocks.0",
            {f"single_blocks.0.{la}" for la in ("linear1", "linear2", "modulation.lin")},
        ),
        ("transformer_blocks.1.attn.to_q", {"double_blocks.1.img_attn.qkv"}),
        ("transformer_blocks.1.attn.to_qkv", {"double_blocks.1.img_attn.qkv"}),
        ("transformer_blocks.0.attn.add_kv_proj", {"double_blocks.0.txt_attn.qkv"}),
        ("double_blocks.0.img_attn.qkv", {"double_blocks.0.img_attn.qkv"}),
        ("transformer_blocks.0.no_such", set()),
    ],
)
def test_layers_that_are_kept_may_have_diffusers_names(
    name, layers, flux_patcher, config, quantize
):
    output = config(f'{{"load_in_8bit": true, "llm_int8_skip_modules": ["{name}"]}}')
    report = report_of(quantize(flux_patcher, output))
    assert kept(report) == layers
    is_diffusers = "transformer_blocks" in name and layers
    assert any("diffusers' name of" in note for note in report["notes"]) == bool(is_diffusers)
    assert any("matches none" in text for text in report["warnings"]) == (not layers)


def test_what_the_config_does_not_say_stays_the_nodes(flux_patcher, config, quantize):
    report = report_of(quantize(flux_patcher, config("int8wo"), exclude="single_blocks"))
    assert report["method"] == "int8"
    assert kept(report) and all(name.startswith("single_blocks.") for name in kept(report))
    options = {"granularity": "per-tensor", "preset": "none"}
    assert report_of(quantize(flux_patcher, config("int8wo"), **options))["granularity"] == (
        "per-tensor"
    )
    said = config('{"method": "int8", "granularity": "per-row"}')
    assert report_of(quantize(flux_patcher, said, **options))["granularity"] == "per-row"


def test_it_computes_what_the_same_choice_by_hand_computes(flux_patcher, config, quantize, sample):
    by_config = quantize(flux_patcher, config("int4-g32"), method="auto")[0]
    from graphquant.nodes.quantize_model import GQQuantizeModel

    by_hand = GQQuantizeModel.execute(model=flux_patcher, method="int4-g32")[0]
    assert torch.equal(sample(by_config, steps=1), sample(by_hand, steps=1))


def test_quantize_text_encoder_goes_by_the_config(clip, config):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    output = config('{"quant_method": "quanto", "modules_to_not_convert": ["SelfAttention"]}')
    with torch.inference_mode():
        done = GQQuantizeTextEncoder.execute(clip=clip, method="none", config=output[0])
    reports = done.ui["graphquant"]
    assert any(report["quantized_layers"] for report in reports)
    assert any("SelfAttention" in name for report in reports for name in kept(report))
    assert any("config: int8" in text for report in reports for text in report["notes"])


def test_quantize_vae_goes_by_the_config_and_refuses_what_no_vae_can_have(load_vae, config):
    from graphquant.nodes.quantize_vae import GQQuantizeVAE
    from lab.tiny_vaes import TAESD

    vae = load_vae(TAESD)
    report = report_of(GQQuantizeVAE.execute(vae=vae, method="none", config=config("int8wo")[0]))
    assert report["method"] == "int8" and report["quantized_layers"] > 0
    with pytest.raises(ValueError, match="VAE"):
        GQQuantizeVAE.execute(vae=vae, config=config("nf4")[0])


def test_the_input_is_the_last_of_every_quantize_node_and_optional():
    from graphquant.nodes.quantize_model import GQQuantizeModel
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder
    from graphquant.nodes.quantize_vae import GQQuantizeVAE

    for node in (GQQuantizeModel, GQQuantizeTextEncoder, GQQuantizeVAE):
        socket = next(s for s in node.define_schema().inputs if s.id == "config")
        assert socket.optional and socket.io_type == "GQ_QUANT_CONFIG"
        assert len(socket.tooltip) > 20
