"""What only a CUDA GPU shows: dynamic VRAM, and peaks of its memory. Skipped without one."""

import re

import pytest
import torch

from lab import workflows
from lab.sampling import relative_l2
from lab.tiny_models import FLUX, tiny_flux

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("comfy")]

METHODS = ["fp8-weight-only", "int8", "int4"]


@pytest.mark.parametrize("method", METHODS)
def test_dynamic_vram_runs_a_quantized_model_again_bit_by_bit(server, method):
    assert re.search(r"DynamicVRAM support detected|DynamicVRAM.*enabled", server.log.read_text())
    first = server.latents(server.run(workflows.quantized(FLUX, method)))
    server.run(workflows.plain(FLUX))
    again = server.latents(server.run(workflows.quantized(FLUX, method)))
    assert torch.equal(first[workflows.QUANTIZED], again[workflows.QUANTIZED])


def on_the_gpu(path, method=None):
    """Peak of allocated bytes from the load to after one step, and the latent."""
    import comfy.model_management
    import comfy.sd

    from graphquant.nodes.quantize_model import GQQuantizeModel
    from lab.sampling import sample

    comfy.model_management.unload_all_models()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    model = comfy.sd.load_diffusion_model(str(path))
    if method:
        model = GQQuantizeModel.execute(model=model, method=method)[0]
    latent = sample(model, FLUX, steps=1)
    return torch.cuda.max_memory_allocated() - before, latent.cpu(), model


@pytest.mark.parametrize("method, share", [("fp8-weight-only", 0.7), ("int8", 0.7), ("int4", 0.5)])
def test_a_quantized_model_peaks_lower_than_bf16(tmp_path, inference_mode, method, share):
    path = tiny_flux(tmp_path / FLUX.file, hidden=1536, depth=4, singles=8)
    plain, expected, model = on_the_gpu(path)
    del model
    peak, latent, _ = on_the_gpu(path, method)
    assert peak < share * plain
    assert relative_l2(latent, expected) < 0.2


@pytest.mark.parametrize("method", METHODS)
def test_a_partial_load_on_a_gpu_computes_what_a_full_load_does(flux_patcher, method):
    import comfy.model_management

    from graphquant.nodes.quantize_model import GQQuantizeModel

    quantized = GQQuantizeModel.execute(model=flux_patcher, method=method)[0]
    quantized = quantized.clone(disable_dynamic=True)
    comfy.model_management.load_models_gpu([quantized])
    full = call(quantized)
    comfy.model_management.unload_all_models()
    quantized.load(quantized.load_device, lowvram_model_memory=quantized.model_size() // 3)
    assert any(getattr(m, "comfy_cast_weights", False) for m in quantized.model.modules())
    assert relative_l2(call(quantized), full) < 1e-2
    quantized.detach()


def call(patcher):
    """One call of the diffusion model as it is loaded now, on the CPU again."""
    generator = torch.Generator().manual_seed(3)
    inputs = (
        torch.randn(1, *FLUX.latent, generator=generator),
        torch.tensor([0.7]),
        torch.randn(1, FLUX.context_length, FLUX.context_width, generator=generator),
        torch.randn(1, FLUX.pooled_width, generator=generator),
        torch.tensor([FLUX.guidance]),
    )
    dtype = patcher.model.get_dtype_inference()
    moved = [value.to(patcher.load_device, dtype) for value in inputs]
    return patcher.model.diffusion_model(*moved).float().cpu()
