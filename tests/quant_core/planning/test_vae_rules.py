"""A VAE outside ComfyUI: halves, refusals, and convolutions that really are INT8."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from graphquant.quant_core import (
    VALID_METHODS,
    NothingToQuantizeError,
    QuantoConfig,
    UnknownNameError,
    UnsupportedMethodError,
    plan_component,
    quantize_component,
    quantize_vae,
)
from graphquant.quant_core.planning.vae_rules import METHODS, half_of


class Vae(nn.Module):
    """One convolution of every kind, in either half."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(32, 16, 3, padding=1)
        )
        self.quant_conv = nn.Conv2d(16, 16, 1)
        self.post_quant_conv = nn.Conv2d(16, 16, 1)
        self.decoder = nn.ModuleDict(
            {
                "reflect": nn.Conv2d(16, 32, 3, padding=1, padding_mode="reflect"),
                "grouped": nn.Conv2d(32, 64, 3, padding="same", groups=4),
                "transposed": nn.ConvTranspose2d(64, 32, 2, stride=2),
                "rows": nn.Conv1d(32, 32, 5, padding=4, dilation=2),
                "frames": nn.Conv3d(32, 32, 3, padding=1),
                "attention": nn.Linear(32, 64),
                "out": nn.Conv2d(64, 3, 3, padding=1, bias=False),
            }
        )

    def encode(self, x):
        return self.quant_conv(self.encoder(x))

    def decode(self, z):
        d = self.decoder
        x = d["reflect"](self.post_quant_conv(z))
        x = d["transposed"](torch.nn.functional.silu(d["grouped"](x)))
        n, c, h, w = x.shape
        x = d["rows"](x.view(n, c, h * w)).view(n, c, 1, h, w)
        x = d["frames"](x).squeeze(2)
        return d["out"](d["attention"](x.movedim(1, -1)).movedim(-1, 1))


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return Vae().requires_grad_(False).eval()


@pytest.fixture
def latent(normal):
    return normal(2, 16, 8, 8, std=1.0)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def actions(stats):
    return {layer["name"]: layer["action"] for layer in stats["layers"]}


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("encoder.down.0.block.0.conv1", "encoder"),
        ("decoder.up.0.block.0.conv1", "decoder"),
        ("quant_conv", "encoder"),
        ("post_quant_conv", "decoder"),
        ("conv1", "encoder"),
        ("conv2", "decoder"),
        ("taesd_encoder.1.conv.0", "encoder"),
        ("taesd_decoder.1.conv.0", "decoder"),
        ("autoencoder.encoder.conv_in.conv", "encoder"),
        ("autoencoder.decoder.conv_in.conv", "decoder"),
        ("dcae.decoder.stages.0.conv", "decoder"),
        ("dconv_encoder.blocks.0.conv1", "encoder"),
        ("decoder_model.blocks.0.conv1", "decoder"),
        ("vocoder.conv_pre", "decoder"),
        ("down_blocks.0", "encoder"),
        ("up_blocks.0.0", "decoder"),
    ],
)
def test_a_layer_is_in_the_half_that_runs_it(name, half):
    assert half_of(name) == half


ENCODER = {"encoder.0", "encoder.2", "quant_conv"}
DECODER = {"post_quant_conv", "decoder.reflect", "decoder.grouped", "decoder.rows"} | {
    "decoder.frames",
    "decoder.attention",
    "decoder.out",
}


@pytest.mark.parametrize(("scope", "quantized"), [("encoder", ENCODER), ("decoder", DECODER)])
def test_a_scope_quantizes_its_half_and_counts_every_layer(vae, scope, quantized):
    _, stats = quantize_component(vae, "int8", "vae", scope=scope)
    done = {name for name, action in actions(stats).items() if action == "quantize"}
    assert done == quantized
    assert stats["quantized_layers"] == len(quantized)
    assert stats["total_layers"] == 10
    assert stats["skipped_layers"] == 10 - len(quantized)


def test_both_halves_are_the_two_scopes_one_after_the_other(vae, latent):
    once, stats = quantize_component(copy.deepcopy(vae), "int8", "vae", scope="both")
    assert stats["quantized_layers"] == 10
    twice, _ = quantize_component(vae, "int8", "vae", scope="encoder")
    twice, stats = quantize_component(twice, "int8", "vae", scope="decoder")
    assert torch.equal(once.decode(latent), twice.decode(latent))
    assert list(actions(stats).values()).count("already quantized") == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_kind_of_convolution_computes_with_int8_weights(vae, latent, dtype):
    vae, latent = vae.to(dtype), latent.to(dtype)
    exact = vae.decode(latent)
    same, stats = quantize_component(vae, "int8", "vae")
    assert same is vae
    assert 1e-4 < relative(vae.decode(latent), exact) < 0.012
    assert {layer["kind"] for layer in stats["layers"] if layer["action"] == "quantize"} == {
        "Conv1d",
        "Conv2d",
        "Conv3d",
        "Linear",
    }
    for name in ("reflect", "rows", "frames", "attention"):
        weight = vae.decoder[name].weight
        assert weight.qdata.dtype == torch.int8
        assert weight.scale.numel() == weight.shape[0]
    assert type(vae.decoder["transposed"].weight) is nn.Parameter


def test_the_bytes_are_half_of_sixteen_bits_for_weights_of_a_real_size():
    vae = nn.Sequential(nn.Conv2d(128, 128, 3), nn.Conv3d(64, 64, 3), nn.Linear(512, 512)).half()
    plain = sum(layer.weight.nbytes for layer in vae)
    _, stats = quantize_component(vae, "int8", "vae")
    assert stats["quantized_bytes_before"] == plain
    assert stats["quantized_bytes_after"] <= 0.51 * plain
    assert stats["model_bytes_before"] - stats["model_bytes_after"] == (
        plain - stats["quantized_bytes_after"]
    )


def test_quantize_component_of_the_type_vae_is_the_same(vae, latent):
    ours = quantize_vae(copy.deepcopy(vae), scope="both")
    theirs, stats = quantize_component(vae, "int8", component_type="vae", scope="both")
    assert torch.equal(ours.decode(latent), theirs.decode(latent))
    assert torch.equal(ours.decoder["rows"].weight.qdata, theirs.decoder["rows"].weight.qdata)
    assert stats["component_type"] == "vae"


@pytest.mark.parametrize("method", ["int8", "none", {"method": "int8"}, QuantoConfig("int8")])
def test_what_quantize_vae_returns_is_the_vae(vae, latent, method):
    exact = vae.decode(latent)
    same = vae
    vae = quantize_vae(vae, method)
    assert vae is same
    assert relative(vae.decode(latent), exact) < 0.012
    assert torch.equal(vae.decode(latent), exact) is (method == "none")


def test_a_quantized_vae_changes_dtype_and_is_copied_like_any_module(vae, latent):
    quantize_vae(vae, scope="both")
    expected = vae.decode(latent)
    assert torch.equal(copy.deepcopy(vae).decode(latent), expected)
    halved = copy.deepcopy(vae).to(torch.bfloat16).decode(latent.bfloat16())
    assert relative(halved.float(), expected) < 0.02


def test_a_quantized_vae_compiles(vae, latent):
    quantize_vae(vae)
    compiled = torch.compile(vae.decode, backend="aot_eager", fullgraph=True)
    assert relative(compiled(latent), vae.decode(latent)) < 1e-6


def test_the_report_says_what_int8_does_not_save(vae):
    _, stats = quantize_component(vae, "int8", "vae")
    assert not stats["warnings"]
    (note,) = stats["notes"]
    assert "activations" in note and "tiles" in note
    assert stats["kernel"] == "dequantize + convolution, dequantize + matmul"


def test_none_is_the_identity(vae):
    weights = [id(parameter) for parameter in vae.parameters()]
    same, stats = quantize_component(vae, "none", "vae")
    assert same is vae and [id(parameter) for parameter in vae.parameters()] == weights
    assert stats["quantized_layers"] == 0


@pytest.mark.parametrize("method", [m for m in VALID_METHODS if m not in METHODS])
def test_other_methods_are_refused_by_name_with_a_reason_and_a_remedy(vae, method):
    with pytest.raises(UnsupportedMethodError) as error:
        quantize_vae(vae, method)
    text = str(error.value)
    assert text.startswith(f"A VAE cannot be quantized to {method}, because ")
    assert text.endswith("Choose int8 or none.") and "\n" not in text


def test_an_alias_is_refused_by_the_method_it_means(vae):
    with pytest.raises(UnsupportedMethodError, match="fp8-dynamic, because PyTorch has no FP8"):
        quantize_component(vae, "fp8", "vae")


def test_an_unknown_scope_names_the_valid_ones(vae):
    with pytest.raises(UnknownNameError, match=r"Unknown scope 'decode'.*decoder, encoder, both"):
        quantize_vae(vae, scope="decode")


def test_a_scope_without_layers_is_an_error():
    with pytest.raises(NothingToQuantizeError, match=r"decoder half, scope is encoder.*or scope"):
        quantize_vae(nn.Sequential(nn.Conv2d(16, 16, 3)), scope="encoder")


def test_weight_norm_is_kept_and_says_so(normal):
    vae = nn.Sequential(
        parametrizations.weight_norm(nn.Conv1d(32, 32, 3)), nn.Conv1d(32, 32, 3)
    ).requires_grad_(False)
    x = normal(1, 32, 20, std=1.0)
    exact = vae(x)
    _, stats = quantize_component(vae, "int8", "vae")
    assert actions(stats) == {"0": "keep", "1": "quantize"}
    assert stats["layers"][0]["reason"] == "its weight is computed from others (weight norm)"
    assert 1e-4 < relative(vae(x), exact) < 0.01


def test_a_weight_that_int8_would_not_make_smaller_is_kept():
    depthwise = nn.Conv2d(64, 64, 1, groups=64).half()  # 1 byte and a 4-byte scale for 2 bytes
    plan = plan_component(nn.Sequential(depthwise, nn.Conv2d(64, 64, 1).half()), "int8", "vae")
    small, large = plan.layers
    assert (small.action, small.reason) == ("keep", "int8 per-row would not be smaller")
    assert large.action == "quantize" and large.bytes_after < large.bytes_before
