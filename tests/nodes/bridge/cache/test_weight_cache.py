"""Quantized weights on disk: the same bits without quantizing, and never for another model."""

import json
from functools import partial

import pytest
import torch

from graphquant.quant_core import plan_component
from lab.tiny_models import FLUX, tiny_flux

pytestmark = pytest.mark.usefixtures("comfy")

PREFIX = "diffusion_model."
LAYERS = ("double_blocks.0.img_attn.qkv", "single_blocks.0.linear1")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(patcher, method)`` -> patcher, layers that were quantized, notes."""
    from graphquant.nodes.bridge.cache.weight_cache import WeightCache
    from graphquant.nodes.bridge.model import quantize_patcher as module

    def quantize(patcher, method="int8", include=LAYERS, **options):
        done = []

        def counted(plan, *args, **kwargs):
            done.extend(plan.quantized)
            return quantize_plan(plan, *args, **kwargs)

        with monkeypatch.context() as patch:
            quantize_plan = module.quantize_plan
            patch.setattr(module, "quantize_plan", counted)
            cache = WeightCache(tmp_path / "cache")
            plan = plan_component(patcher.model.diffusion_model, method, include=include, **options)
            quantized, _ = module.quantize_patcher(
                patcher, {PREFIX: plan}, compute_dtype=torch.float32, cache=cache
            )
        return quantized, len(done), " ".join([*cache.warnings, *cache.notes])

    return quantize


@pytest.fixture
def flux(tiny_flux_file, inference_mode):
    """``flux()``: the tiny Flux, loaded anew, as by another start of ComfyUI."""
    import comfy.sd

    return partial(comfy.sd.load_diffusion_model, str(tiny_flux_file))


def weights(patcher):
    model = patcher.model.diffusion_model
    return [model.get_submodule(layer).weight for layer in LAYERS]


def same(one, other):
    return all(
        a._params.format == b._params.format
        and all(torch.equal(x, b.state_dict("")[name]) for name, x in a.state_dict("").items())
        for a, b in zip(weights(one), weights(other), strict=True)
    )


def entries(tmp_path):
    return sorted((tmp_path / "cache").glob("*.safetensors"))


@pytest.mark.parametrize(
    "method", ["fp8-dynamic", "int8", "int8-dynamic", "int4", "int8-convrot", "w4a8", "w6a8"]
)
def test_the_second_time_nothing_is_quantized_and_every_bit_is_the_same(
    run, flux, tmp_path, method
):
    first, done, notes = run(flux(), method)
    assert done == len(LAYERS) and "cache: wrote " in notes and str(tmp_path) in notes
    second, done, notes = run(flux(), method)
    assert done == 0 and "cache: read from " in notes
    assert same(first, second)


def test_the_size_is_said_in_words(run, flux, tmp_path):
    _, _, notes = run(flux())
    (entry,) = entries(tmp_path)
    size = entry.stat().st_size / 1024**2
    assert f"cache: wrote {size:.1f} MiB" in notes
    assert f"1 such files take {size:.1f} MiB in " in notes


@pytest.mark.parametrize(
    "options",
    [{"method": "int4"}, {"granularity": "per-tensor"}, {"include": LAYERS[:1]}],
    ids=lambda options: next(iter(options)),
)
def test_another_choice_has_an_entry_of_its_own(run, flux, tmp_path, options):
    run(flux())
    _, done, _ = run(flux(), **options)
    assert done and len(entries(tmp_path)) == 2


def test_a_lora_before_the_node_or_another_strength_is_never_a_stale_hit(
    run, flux, with_lora, tmp_path
):
    def patched(scale):
        return with_lora(flux(), LAYERS[:1], scale=scale)[0]

    plain, _, _ = run(flux())
    strong, done, _ = run(patched(0.2))
    assert done == len(LAYERS) and not same(plain, strong)
    weak, done, _ = run(patched(0.1))
    assert done == len(LAYERS) and not same(weak, strong)
    again, done, _ = run(patched(0.2))
    assert done == 0 and same(again, strong)
    assert len(entries(tmp_path)) == 3


def test_another_file_of_the_same_name_is_another_model(run, tmp_path, inference_mode):
    import comfy.sd

    path = tmp_path / FLUX.file
    for seed in (0, 1):
        path.unlink(missing_ok=True)
        tiny_flux(path, hidden=256, seed=seed)
        _, done, _ = run(comfy.sd.load_diffusion_model(str(path)))
        assert done == len(LAYERS)


def test_weights_that_were_changed_in_memory_are_another_model(run, flux):
    run(flux())
    patcher = flux()
    layer = patcher.model.diffusion_model.get_submodule(LAYERS[0])
    layer.weight = torch.nn.Parameter(layer.weight * 1.01, requires_grad=False)
    _, done, _ = run(patcher)
    assert done == len(LAYERS)


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "no safetensors"])
def test_a_damaged_entry_is_made_anew(run, flux, tmp_path, damage):
    first, _, _ = run(flux())
    (entry,) = entries(tmp_path)
    whole = bytearray(entry.read_bytes())
    broken = {
        "a flipped bit": whole[:-7] + bytes([whole[-7] ^ 4]) + whole[-6:],
        "cut short": whole[:-100],
        "no safetensors": b"\x10" * 40,
    }[damage]
    entry.write_bytes(broken)
    again, done, notes = run(flux())
    assert done == len(LAYERS) and "is damaged and was made anew" in notes
    assert same(first, again) and entry.read_bytes() == bytes(whole)


def test_a_merge_that_can_not_be_hashed_is_quantized_without_the_cache(run, flux, tmp_path):
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    merged = ModelMergeSimple().merge(flux(), flux(), 0.5)[0]
    _, done, notes = run(merged)
    assert done == len(LAYERS) and "cache: not used, because a pending patch holds a " in notes
    assert entries(tmp_path) == []


def test_the_source_is_hashed_once_and_a_damaged_index_is_not_an_error(run, flux, tmp_path):
    from graphquant.quant_core.conversion import metadata

    run(flux())
    index = tmp_path / "cache" / "source_hashes.json"
    ((_, (size, _, digest)),) = json.loads(index.read_text()).items()
    assert size > 0 and len(digest) == 64
    metadata._HASHES.clear()  # as a new process
    assert run(flux())[1] == 0 and metadata._HASHES == {}
    index.write_text("{")
    assert run(flux())[1] == 0


def test_a_folder_that_can_not_be_written_is_said_and_no_error(run, flux, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    _, done, notes = run(flux())
    assert done == len(LAYERS) and "cache: not used, because " in notes


def test_the_node_keeps_its_entries_beside_the_models_when_told(flux, tmp_path, monkeypatch):
    import folder_paths

    from graphquant.nodes.quantize_model import GQQuantizeModel

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    GQQuantizeModel.execute(model=flux(), method="int8")
    assert not (tmp_path / "graphquant_cache").exists()
    reports = [GQQuantizeModel.execute(model=flux(), method="int8", cache=True)[1] for _ in "12"]
    (entry,) = (tmp_path / "graphquant_cache").glob("*.safetensors")
    assert f"MiB, {entry.name}. 1 such files take" in reports[0]
    assert f"cache: read from {entry.name}, every byte verified." in reports[1]
