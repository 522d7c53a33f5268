"""torch.compile after Quantize Model, of the whole model and of each block: the same output, no
more graph breaks than without, and no recompilation when a seed or a LoRA's strength changes."""

from dataclasses import replace

import pytest
import torch

from lab.sampling import sample as sample_with
from lab.tiny_models import FLUX

pytestmark = pytest.mark.usefixtures("comfy")

LAYER = "double_blocks.0.img_attn.qkv"


@pytest.fixture(autouse=True, scope="module")
def attention_of_pytorch(comfy):
    """What ComfyUI takes on NVIDIA. Its choice on a CPU asks how much memory is free, which breaks
    the graph, and compiles another where the answer is another: as many as chance would have it."""
    import comfy.ldm.flux.math
    from comfy.ldm.modules.attention import attention_pytorch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comfy.ldm.flux.math, "optimized_attention", attention_pytorch)
        yield


def with_lora(patcher, strength):
    import comfy.lora

    generator = torch.Generator().manual_seed(1)
    n, k = patcher.model.diffusion_model.get_submodule(LAYER).weight.shape
    name = f"diffusion_model.{LAYER}"
    lora = {
        f"{name}.lora_up.weight": torch.randn(n, 4, generator=generator) * 0.1,
        f"{name}.lora_down.weight": torch.randn(4, k, generator=generator) * 0.1,
    }
    patched = patcher.clone()
    keys = comfy.lora.model_lora_keys_unet(patcher.model, {})
    patched.add_patches(comfy.lora.load_lora(lora, keys), strength)
    return patched


def graphs_and_breaks():
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.fixture
def without_vectors():
    """Inductor's C++ without vector instructions, which it would try out by compiling for each, and
    which take g++ several times as long."""
    from torch._inductor import config

    with config.patch({"cpp.simdlen": 1}):
        yield


@pytest.fixture
def short_flux(comfy, tmp_path, inference_mode):
    """A Flux of one block of each kind: a third of the code to generate, three times."""
    import comfy.sd

    from lab.tiny_models import tiny_flux

    path = tiny_flux(tmp_path / "short.safetensors", hidden=256, depth=1, singles=1)
    return comfy.sd.load_diffusion_model(str(path))


def test_compiling_changes_nothing_but_speed(short_flux, without_vectors):
    from comfy_extras.nodes_torch_compile import TorchCompileModel
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    from graphquant.nodes.quantize_model import GQQuantizeModel

    def compiled(model, backend="inductor"):
        # "eager" generates no code, for what is asked of the graphs alone.
        reset()
        counters.clear()
        return TorchCompileModel.execute(model, backend)[0]

    run(compiled(short_flux, "eager"))
    plain = graphs_and_breaks()
    assert plain == (1, 0)

    quantized = GQQuantizeModel.execute(model=short_flux, method="int8")[0]
    fast = compiled(quantized, "eager")
    assert relative(run(fast), run(quantized)) < 1e-4
    first = graphs_and_breaks()
    assert first == plain

    run(fast, seed=5)
    assert graphs_and_breaks() == first

    run(with_lora(fast, 1.0))
    after_lora = graphs_and_breaks()
    assert after_lora[0] - first[0] <= 1

    weak = run(with_lora(fast, 0.5))
    assert graphs_and_breaks() == after_lora

    # The one graph that is generated has layers with a LoRA and without.
    strong = run(compiled(with_lora(quantized, 1.0)))
    assert graphs_and_breaks() == plain
    assert relative(strong, run(with_lora(quantized, 1.0))) < 1e-4
    assert relative(weak, strong) > 1e-3


def block_compiled(model):
    """As KJNodes compiles: a torch.compile for each block, set by ComfyUI's own wrapper."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from torch._dynamo import reset
    from torch._dynamo.utils import counters

    reset()
    counters.clear()
    compiled = model.clone()
    blocks = [f"diffusion_model.double_blocks.{index}" for index in range(2)]
    blocks += [f"diffusion_model.single_blocks.{index}" for index in range(4)]
    # What is compiled to does not matter to graphs and breaks; "eager" is quick.
    set_torch_compile_wrapper(compiled, backend="eager", keys=blocks)
    return compiled


def run(model, seed=0, side=16):
    return sample_with(model, replace(FLUX, latent=(16, side, side)), steps=1, seed=seed)


def new_graphs(action):
    before = graphs_and_breaks()[0]
    action()
    return graphs_and_breaks()[0] - before


@pytest.fixture(scope="module")
def plain_blocks(tiny_flux_file, attention_of_pytorch):
    """Graphs and breaks of the unquantized blocks, and graphs more for each of two resolutions."""
    import comfy.sd

    with torch.inference_mode():
        model = block_compiled(comfy.sd.load_diffusion_model(str(tiny_flux_file)))
        run(model)
        first = graphs_and_breaks()
        assert first == (2, 0)
        return first, [new_graphs(lambda side=side: run(model, side=side)) for side in (20, 24)]


@pytest.mark.parametrize(
    "method", ["int8", "int4", "fp8-weight-only", "int8-dynamic", "int8-convrot", "w4a8", "w6a8"]
)
def test_compiled_blocks_are_compiled_as_often_as_without_quantizing(
    flux_patcher, plain_blocks, method
):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    (graphs, breaks), resolutions = plain_blocks
    quantized = GQQuantizeModel.execute(model=flux_patcher, method=method)[0]
    fast = block_compiled(quantized)
    assert relative(run(fast), run(quantized)) < 1e-4
    found = graphs_and_breaks()
    assert found[0] <= graphs and found[1] <= breaks
    assert new_graphs(lambda: run(fast, seed=5)) == 0

    # A resolution: at most one more of each graph, and from then on none.
    more = [new_graphs(lambda side=side: run(fast, side=side)) for side in (20, 24)]
    assert more[0] <= graphs and more <= resolutions and more[1] == 0

    first = new_graphs(lambda: run(with_lora(fast, 1.0)))
    assert first <= graphs
    assert new_graphs(lambda: run(with_lora(fast, 0.5))) == 0
    assert relative(run(with_lora(fast, 0.5)), run(with_lora(quantized, 0.5))) < 1e-4
