"""The formats that the method "fit" chooses among, and the error of each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch

from ..formats import Format
from ..methods import named_method

# Those of least error at their bytes (Gaussian weights). Integers have one scale a group and no
# zero point: at equal bytes that errs less than affine groups, by 7 %.
WIDTHS = (
    "int3-symmetric",
    "int3",
    "nf4-fine",
    "nf4-fine-g16",
    "int5-symmetric",
    "int6-symmetric",
    "int7-symmetric",
    "int8",
)
STOCK_WIDTHS = ("nvfp4-weight-only", "int8")
"""Those that ComfyUI loads without this pack, and that lose least at their size."""

_SAMPLE = (64, 1024)


def widths_for(stock_only: bool) -> tuple[str, ...]:
    """The names of the methods to choose among, beside leaving a layer as it is."""
    return STOCK_WIDTHS if stock_only else WIDTHS


def formats_of(shape: tuple[int, ...], widths: tuple[str, ...]) -> Iterator[tuple[str, Format]]:
    """The format that each of ``widths`` gives a weight of ``shape``, each format once."""
    seen = set()
    for name in widths:
        fmt = named_method(name).method.choose(shape, "per-row").format
        if fmt is not None and fmt not in seen:
            seen.add(fmt)
            yield name, fmt


@lru_cache(maxsize=256)
def format_error(fmt: Format | None) -> float:
    """Relative L2 of a Gaussian weight in ``fmt``; 0 for None, which leaves it as it is."""
    if fmt is None:
        return 0.0
    with torch.inference_mode(False), torch.no_grad():
        weight = torch.randn(_SAMPLE, generator=torch.Generator().manual_seed(0))
        stored = fmt.quantize(weight).dequantize(torch.float32)
    return (torch.linalg.vector_norm(stored - weight) / torch.linalg.vector_norm(weight)).item()
