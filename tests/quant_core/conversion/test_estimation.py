"""An estimate of a file is the file that convert writes, to the byte of its tensors."""

import pytest

from graphquant.quant_core import NothingToQuantizeError, QuantizationError
from graphquant.quant_core.conversion.convert import convert
from graphquant.quant_core.conversion.estimation import estimate_file
from graphquant.quant_core.fit import Fit
from graphquant.quant_core.methods import SIZED
from graphquant.quant_core.storage import TensorFiles


@pytest.mark.parametrize("method", ["int8", "int4", "fp8-weight-only"])
def test_the_estimate_is_the_size_of_what_convert_writes(model_file, tmp_path, method):
    (estimate,) = estimate_file(model_file, [method])
    written = convert(model_file, tmp_path / "out.safetensors", method)
    with TensorFiles(written.target) as files:
        markers = ("comfy_quant", "graphquant")
        parts = sum(s.nbytes for n, s in files.specs.items() if n.rpartition(".")[2] not in markers)
    assert estimate.nbytes == parts
    assert (estimate.layers, estimate.stock) == (4, not written.private)
    assert 4 < estimate.bits < 8.6


def test_every_method_has_an_estimate_or_its_problem(model_file):
    found = estimate_file(model_file)
    assert [each.method for each in found] == list(SIZED)
    assert all(bool(each.nbytes) != bool(each.problem) for each in found)
    sizes = {each.method: each.nbytes for each in found}
    assert sizes["int4"] < sizes["int6"] < sizes["int8"] < model_file.stat().st_size


def test_a_method_that_is_named_raises_what_is_wrong_with_it(model_file):
    with pytest.raises(QuantizationError, match="int9"):
        estimate_file(model_file, ["int9"])
    with pytest.raises(NothingToQuantizeError):
        estimate_file(model_file, exclude="*")


def test_fit_is_estimated_at_the_size_that_it_is_asked_for(model_file):
    (int8,) = estimate_file(model_file, ["int8"])
    size = int8.nbytes - 40_000
    *_, fit = estimate_file(model_file, ["int8"], fit=Fit(size=size))
    assert fit.method == "fit" and 0.8 * size < fit.nbytes <= size
