"""A quantized VAE survives what ComfyUI does to VAEs."""

import copy
import gc
import types
import weakref

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations

from graphquant.quant_core import plan_component
from lab.tiny_vaes import LTX, SD, TAESD, WAN

pytestmark = pytest.mark.usefixtures("comfy")

CPU = torch.device("cpu")
by_name = pytest.mark.parametrize("tiny", [SD, TAESD, WAN, LTX], ids=lambda tiny: tiny.name)


def quantize(vae, scope="both"):
    from graphquant.nodes.bridge.model.vae import quantize_vae

    plan = plan_component(vae.first_stage_model, "int8", "vae", scope=scope)
    return quantize_vae(vae, plan, device=None)[0]


def with_closures(vae):
    """As ComfyUI writes some VAEs' memory estimates: functions that refer to the VAE."""
    vae.memory_used_decode = lambda shape, dtype: vae.latent_channels * dtype.itemsize
    vae.format_encoded = vae.first_stage_model.forward
    vae.autoencoder = vae.first_stage_model.taesd_decoder
    return vae


@by_name
def test_a_partial_load_computes_what_a_full_load_computes(load_vae, tiny):
    quantized = quantize(load_vae(tiny))
    model, latents = quantized.first_stage_model, tiny.latents()
    expected = quantized.decode(latents)
    patcher = quantized.patcher
    for share in (0.0, 0.5, 0.9):
        patcher.detach()
        patcher.load(CPU, lowvram_model_memory=max(1, int(patcher.model_size() * share)))
        waiting = [m for m in model.modules() if getattr(m, "comfy_cast_weights", False)]
        assert waiting, share
        pictures = quantized.process_output(model.decode(latents).movedim(1, -1))
        assert torch.equal(pictures, expected), share
    patcher.detach()


def test_unload_and_reload_is_bit_equal(load_vae):
    import comfy.model_management

    quantized = quantize(load_vae(SD))
    before = quantized.decode(SD.latents())
    comfy.model_management.unload_all_models()
    assert torch.equal(quantized.decode(SD.latents()), before)


def test_patches_act_on_convolutions_and_come_off_bit_exactly(load_vae):
    """SUPIR's encoder comes as patches of a clone of the VAE's patcher."""
    vae = load_vae(SD)
    quantized = quantize(vae)
    key = "encoder.conv_in.weight"
    difference = torch.randn(128, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.05

    def encode_patched(vae):
        patched = copy.copy(vae)
        patched.patcher = vae.patcher.clone()
        assert patched.patcher.add_patches({key: (difference,)}) == [key]
        return patched.encode(SD.images())

    plain, before = vae.encode(SD.images()), quantized.encode(SD.images())
    exact, ours = encode_patched(vae) - plain, encode_patched(quantized) - before
    assert torch.cosine_similarity(ours.flatten(), exact.flatten(), 0).item() > 0.99
    assert torch.equal(quantized.encode(SD.images()), before)
    assert torch.equal(vae.encode(SD.images()), plain)


def test_a_vae_saved_by_comfyui_loads_without_this_pack(load_vae, tmp_path):
    import comfy.sd
    import comfy.utils

    vae = load_vae(SD)
    quantized = quantize(vae)
    state = quantized.get_sd()
    plain = vae.get_sd()
    assert {key: (part.shape, part.dtype) for key, part in state.items()} == {
        key: (part.shape, part.dtype) for key, part in plain.items()
    }
    assert all(type(part) in (torch.Tensor, nn.Parameter) for part in state.values())
    save_file({key: part.contiguous() for key, part in state.items()}, tmp_path / "vae.safetensors")
    loaded = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(tmp_path / "vae.safetensors")))
    assert torch.equal(loaded.decode(SD.latents()), quantized.decode(SD.latents()))


def test_an_independent_patcher_decodes_the_same(load_vae):
    """Select VAE Device asks for one, on another GPU."""
    quantized = quantize(load_vae(WAN))
    rebuild, arguments = quantized.patcher.cached_patcher_init
    other = copy.copy(quantized)
    other.patcher = rebuild(*arguments, disable_dynamic=True)
    other.first_stage_model = other.patcher.model
    assert other.first_stage_model is not quantized.first_stage_model
    assert torch.equal(other.decode(WAN.latents()), quantized.decode(WAN.latents()))


def test_what_refers_to_the_vae_refers_to_the_copy(load_vae):
    vae = with_closures(load_vae(TAESD))
    quantized = quantize(vae)
    model = quantized.first_stage_model
    assert quantized.patcher.model is model is not vae.first_stage_model
    assert quantized.autoencoder is model.taesd_decoder
    assert quantized.format_encoded.__self__ is model
    quantized.latent_channels = 3
    assert quantized.memory_used_decode((1,), torch.float32) == 12
    assert vae.memory_used_decode((1,), torch.float32) == 64


def test_the_original_is_freed_when_nothing_else_holds_it(load_vae):
    import comfy.model_management

    vae = with_closures(load_vae(TAESD))
    vae.decode(TAESD.latents())
    quantized = quantize(vae)
    quantized.decode(TAESD.latents())
    weight = weakref.ref(vae.first_stage_model.taesd_decoder[1].weight)
    original = weakref.ref(vae)
    del vae
    gc.collect()
    comfy.model_management.cleanup_models_gc()
    assert original() is None and weight() is None
    assert quantized.decode(TAESD.latents()).isfinite().all()


class AudioVae(nn.Module):
    """Weight norm beside plain convolutions, as in ComfyUI's audio VAEs."""

    def __init__(self):
        import comfy.ops

        super().__init__()
        ops = comfy.ops.disable_weight_init
        self.decoder = nn.Sequential(
            parametrizations.weight_norm(ops.Conv1d(64, 64, 7, padding=3)),
            ops.Conv1d(64, 64, 7, padding=3),
        )

    def forward(self, x):
        return self.decoder(x)


def test_layers_with_weight_norm_are_kept_and_copied(inference_mode):
    from comfy.model_patcher import ModelPatcher

    from graphquant.nodes.bridge.model.quantize_patcher import quantize_patcher

    torch.manual_seed(0)
    model = AudioVae().eval().requires_grad_(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 64, 32)
    exact = model(x)
    plan = plan_component(model, "int8", "vae")
    assert [layer.action for layer in plan.layers] == ["keep", "quantize"]
    quantized, _ = quantize_patcher(
        ModelPatcher(model, CPU, CPU), {"": plan}, compute_dtype=torch.float32
    )
    result = quantized.model(x)
    assert 1e-4 < ((result - exact).norm() / exact.norm()).item() < 0.01
    assert torch.equal(model(x), exact)
    theirs, ours = model.decoder[0], quantized.model.decoder[0]
    assert ours.parametrizations is not theirs.parametrizations
    assert torch.equal(ours.weight, theirs.weight)


def test_only_the_class_tells_a_quantized_vae_from_another(load_vae):
    vae = load_vae(TAESD)
    quantized = quantize(vae)
    assert isinstance(quantized, type(vae)) and type(quantized).__name__ == "QuantizedVAE"
    assert vars(quantized).keys() == vars(vae).keys()
    shared = {"first_stage_model", "patcher", "size"}
    for name in vars(vae).keys() - shared:
        value = getattr(vae, name)
        if not isinstance(value, types.FunctionType):
            assert getattr(quantized, name) == value, name
