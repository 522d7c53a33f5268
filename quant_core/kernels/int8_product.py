"""INT8 times INT8, scaled: by the library and a kernel that scales, or by one kernel alone.

``torch._int_mm`` writes 32 bits for each product, which a second kernel reads again: for a FLUX
layer that is as many bytes as all else together. Our Triton kernel scales before it writes, but its
matmul may be slower than the library's. So both are timed once on each GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..timing import seconds_in_turn
from . import launch_matmul, plain
from .blocks import is_traced
from .dispatch import scale_products, triton_works, with_index
from .launch_matmul import CHOSEN_TILES, TILES, Tile

log = logging.getLogger(__name__)

# What they are timed on, M, K and N of an image model's size: long beside the start of a kernel.
_M, _K, _N = 4096, 3072, 6144
_ROUNDS, _SHORTEST_SAMPLE = 5, 2e-3


def int8_product(
    x: Tensor,
    codes: Tensor,
    row_scale: Tensor,
    column_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """See ``plain.int8_product``."""
    if not x.is_cuda:
        return plain.int8_product(x, codes, row_scale, column_scale, bias, dtype)
    arguments = (x, codes, row_scale, column_scale, bias, dtype)
    if is_traced(x):  # nothing can be tried
        known = CHOSEN_TILES.get(x.device)
        way = by_library if known is None else torch.ops.graphquant.int8_product
        return way(*arguments)
    tile = int8_tile(x.device)
    if tile is None:
        return by_library(*arguments)
    return launch_matmul.int8_product(*arguments, tile)


def by_library(
    x: Tensor,
    codes: Tensor,
    row_scale: Tensor,
    column_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """As ``plain.int8_product``, by the library's matmul and a kernel that scales its result."""
    products = torch._int_mm(x, codes.t())
    return scale_products(products, row_scale, column_scale, bias, dtype)


def int8_tile(device: torch.device) -> Tile | None:
    """The tile with which our one kernel is quicker on ``device`` than the library, measured once;
    None where the library is."""
    device = with_index(device)
    if device not in CHOSEN_TILES:
        runs = device.type == "cuda" and torch.cuda.is_available() and triton_works(device)
        CHOSEN_TILES[device] = _quickest(device) if runs else None
    return CHOSEN_TILES[device]


def _quickest(device: torch.device) -> Tile | None:
    arguments = _example(device)
    expected = by_library(*arguments)
    ways: dict[Tile | None, Callable[[], Tensor]] = {None: partial(by_library, *arguments)}
    for tile in TILES:
        try:
            y = launch_matmul.int8_product(*arguments, tile)
        except Exception as problem:  # too much shared memory, or a compiler's no, of any type
            log.debug("%s does not run on %s: %s", tile, device, problem)
            continue
        if torch.allclose(y, expected, rtol=1e-2):
            ways[tile] = partial(launch_matmul.int8_product, *arguments, tile)
    seconds = seconds_in_turn(ways, device, _ROUNDS, _SHORTEST_SAMPLE)
    log.debug("INT8 products on %s, seconds: %s", device, seconds)
    return min(seconds, key=seconds.__getitem__)


def _example(device: torch.device) -> tuple:
    """Arguments of ``int8_product``."""
    generator = torch.Generator(device).manual_seed(0)
    x, codes = (
        torch.randint(-127, 128, (size, _K), generator=generator, device=device).char()
        for size in (_M, _N)
    )
    scales = (torch.full(shape, 0.01, device=device) for shape in ((_M, 1), (1, _N)))
    return x, codes, *scales, None, torch.bfloat16
