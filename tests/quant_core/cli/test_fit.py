"""The method fit on the command line: files within a size, recipes saved and applied."""

import json

import pytest
from safetensors.torch import load_file, save_file

from graphquant.quant_core import Recipe
from graphquant.quant_core.cli.__main__ import main
from graphquant.quant_core.storage import STOCK_MARKER

GIB = 1024**3


@pytest.fixture
def model(tmp_path):
    """As the tests of conversion have it, with more blocks."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shapes = {"img_in": (128, 64), "txt_in": (128, 96), "final_layer.linear": (64, 128)}
    for n in range(6):
        shapes[f"double_blocks.{n}.img_attn.qkv"] = (768, 256)
        shapes[f"single_blocks.{n}.linear1"] = (1792, 256)
    tensors = {
        f"{name}.weight": torch.randn(*shape, generator=generator).bfloat16()
        for name, shape in shapes.items()
    }
    tensors["double_blocks.0.img_attn.norm.key_norm.scale"] = torch.ones(32).bfloat16()
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def run(capsys):
    def call(*arguments):
        code = main([str(each) for each in arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


@pytest.mark.parametrize("share", [0.3, 0.45, 0.7])
@pytest.mark.parametrize("kind", ["auto", "stock", "graphquant"])
def test_the_file_itself_is_never_larger_than_asked(model, tmp_path, run, share, kind):
    size, out = model.stat().st_size * share, tmp_path / "out.safetensors"
    code, _, told = run("convert", model, out, "--size-gib", size / GIB, "--format", kind)
    assert code == 0, told
    assert 0.9 * size < out.stat().st_size <= size
    stock = any(name.endswith(STOCK_MARKER) for name in load_file(out))
    assert stock == (kind == "stock") or kind == "auto"


def test_a_saved_recipe_makes_the_same_file_of_a_sibling(model, tmp_path, run):
    one, other, recipe = (tmp_path / name for name in ("1.safetensors", "2.safetensors", "r.json"))
    half = model.stat().st_size / 2 / GIB
    assert run("convert", model, one, "--size-gib", half, "--save-recipe", recipe)[0] == 0
    assert run("convert", model, other, "--recipe", recipe)[0] == 0
    assert load_file(one).keys() == load_file(other).keys()
    assert one.stat().st_size == pytest.approx(other.stat().st_size, abs=400)
    assert len(Recipe.load(recipe).formats) == 15


def test_estimate_tells_what_a_size_would_give(model, run):
    size = model.stat().st_size // 2
    values = json.loads(run("estimate", model, "--size-gib", size / GIB, "--json")[1])["methods"]
    fit = next(each for each in values if each["method"] == "fit")
    assert 0.85 * size < fit["nbytes"] <= size


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--size-gib", "1e-9"), "the smallest possible size is"),
        (("--method", "fit"), "fit needs a size"),
        (("--method", "int8", "--size-gib", "1"), "--method is int8, but --size-gib"),
        (("--recipe", "none.json"), "Can't read none.json"),
        (("--recipe", "none.json", "--size-gib", "1"), "--recipe says the widths"),
        (("--sensitivity", "none.json", "--method", "fit"), "--sensitivity is for a size"),
        (("--size-gib", "1", "--sensitivity", "none.json"), "Can't read none.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_in_words(model, tmp_path, run, arguments, words):
    code, _, told = run("convert", model, tmp_path / "out.safetensors", *arguments)
    assert code == 1 and words in told
    assert not (tmp_path / "out.safetensors").exists()
