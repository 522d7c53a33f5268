"""LPIPS fetches nothing: what it lacks is said with the remedy."""

import sys
from types import ModuleType

import torch

from graphquant.quant_core.measure import lpips
from graphquant.quant_core.measure.lpips import WEIGHTS, lpips_measure, missing


def test_without_the_package_the_line_tells_how_to_get_it(monkeypatch):
    monkeypatch.setattr(lpips, "find_spec", lambda name: None)
    assert missing() == "LPIPS was not measured: the package is not there (pip install lpips)."


def test_without_the_weights_the_line_tells_where_they_belong(monkeypatch, tmp_path):
    monkeypatch.setattr(lpips, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    folder = tmp_path / "checkpoints"
    assert (
        missing() == f"LPIPS was not measured: AlexNet's weights, {WEIGHTS}, are not in {folder}."
    )
    folder.mkdir()
    (folder / WEIGHTS).touch()
    assert missing() is None


def test_pictures_go_in_between_minus_one_and_one_and_a_number_each_comes_out(monkeypatch):
    """The network stands in: its package is not among what the tests need."""

    class Network(torch.nn.Module):
        def forward(self, result, reference):
            assert (result.min(), result.max()) == (-1, 1)
            return (result - reference).abs().mean((1, 2, 3), keepdim=True)

    package = ModuleType("lpips")
    package.LPIPS = lambda net, verbose: Network()
    monkeypatch.setitem(sys.modules, "lpips", package)
    white, black = torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    black[1] = 1
    black[0, 0, 0, 0] = 1
    distance = lpips_measure()(black, white)
    assert distance.shape == (2,) and distance[1] == 0
    assert distance[0].item() > 1.9
