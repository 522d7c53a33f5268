"""Files that name a model's layers as diffusers does: the rows that make ComfyUI's layers.

ComfyUI converts such names where it knows the model (FLUX, SD 3, AuraFlow, PixArt, Z-Image), and
joins weights on the way: q, k and v to one. Its conversion runs here on labels instead of weights,
one for each row of each tensor; where the labels end up, the rows belong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import comfy.model_detection
import torch

from ....quant_core.errors import StorageError
from ....quant_core.formats import QuantizedWeight
from ....quant_core.formats.base.stack_rows import stack_rows
from .layers_in_file import Contents, LayerInFile

_WEIGHT = ".weight"
_ROW_BITS = 32


@dataclass(frozen=True)
class Rows:
    """The rows from ``start`` to before ``stop`` of the file's tensor ``source``."""

    source: str
    start: int
    stop: int


@dataclass(frozen=True)
class JoinedLayer:
    """A layer of ComfyUI's whose rows are those of several of the file's.

    file: its name, for errors. name: the layer's. rows: in their order. sources: the file's layers
    by name.
    """

    file: str
    name: str
    rows: tuple[Rows, ...]
    sources: Mapping[str, LayerInFile]

    @property
    def shape(self) -> tuple[int, ...]:
        """The joined weight's, [N, ...]."""
        return (_count(self.rows), *self.sources[_layer(self.rows[0])].shape[1:])

    def read(self, dtype: torch.dtype) -> QuantizedWeight:
        """The weight, of rows put together. StorageError where their formats do not allow it."""
        found = {row.source: self.sources[_layer(row)].read(dtype) for row in self.rows}
        try:
            return stack_rows([(found[r.source], slice(r.start, r.stop)) for r in self.rows])
        except ValueError as error:
            raise StorageError(
                f"{self.file} can't be loaded quantized: ComfyUI joins {_told(self.rows)} in "
                f"{self.name}, and {error}. Quantize the original in the graph."
            ) from None


def by_comfyuis_names(file: str, contents: Contents) -> Contents:
    """``contents`` as ComfyUI names and joins them, or as they are where it has nothing to convert.

    StorageError, naming ``file``: a tensor has no place in the model, or only some of those that
    make one layer are there or are quantized.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in contents.state.items()}
    shapes |= {name + _WEIGHT: layer.shape for name, layer in contents.layers.items()}
    sources = conversion(file, shapes)
    if sources is None:
        return contents
    state: dict[str, torch.Tensor] = {}
    layers: dict[str, LayerInFile] = {}
    for name, rows in sources.items():
        if not _is_quantized(file, name, rows, contents.layers):
            state[name] = _joined(contents.state, rows)
        elif rows == (Rows(rows[0].source, 0, shapes[rows[0].source][0]),):
            layers[name.removesuffix(_WEIGHT)] = contents.layers[_layer(rows[0])]
        else:
            layer = name.removesuffix(_WEIGHT)
            layers[layer] = JoinedLayer(file, layer, rows, contents.layers)
    joined = sum(isinstance(la, JoinedLayer) and len(la.rows) > 1 for la in layers.values())
    return Contents(state, layers, joined)


def conversion(
    file: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[Rows, ...]] | None:
    """ComfyUI's name of each tensor -> the rows of the file's that make it, in their order. None
    where it converts no such names. shapes: of the file's tensors."""
    names = list(shapes)
    labels = {
        name: (number << _ROW_BITS) + torch.arange((shapes[name] or (1,))[0])
        for number, name in enumerate(names)
    }
    left = dict(labels)
    try:
        made = comfy.model_detection.convert_diffusers_mmdit(left)
    except KeyError:  # it looks into tensors that no whole file lacks
        return None
    if made is None:
        return None
    if left:
        raise StorageError(
            f"{file} has {len(left)} tensors that do not belong to the model that ComfyUI makes of "
            f"it, such as {next(iter(left))}. Choose a file with the original names."
        )
    # Of rows that are missing ComfyUI leaves what the memory held.
    if not torch.equal(_sorted(made.values()), _sorted(labels.values())):
        raise StorageError(f"{file} lacks some of q, k and v in a layer. Download it again.")
    return {target: tuple(_runs(rows, names)) for target, rows in made.items()}


def _is_quantized(
    file: str, name: str, rows: tuple[Rows, ...], layers: Mapping[str, LayerInFile]
) -> bool:
    quantized = {_layer(row) in layers for row in rows}
    if len(quantized) > 1:
        raise StorageError(
            f"{file} can't be loaded quantized: ComfyUI joins {_told(rows)} in {name}, and only "
            "some of them are quantized. Quantize the original in the graph."
        )
    return quantized == {True}


def _joined(state: Mapping[str, torch.Tensor], rows: tuple[Rows, ...]) -> torch.Tensor:
    first = rows[0]
    if len(rows) == 1 and _count(rows) == (*state[first.source].shape, 1)[0]:
        return state[first.source]
    return torch.cat([state[row.source][row.start : row.stop] for row in rows])


def _runs(labels: torch.Tensor, names: list[str]) -> Iterator[Rows]:
    """Consecutive rows of one tensor, as they follow each other."""
    ends = (labels.diff() != 1).nonzero().flatten().tolist()
    for first, last in zip([0, *(end + 1 for end in ends)], [*ends, len(labels) - 1], strict=True):
        number, start = divmod(labels[first].item(), 1 << _ROW_BITS)
        yield Rows(names[number], start, start + last - first + 1)


def _sorted(labels: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(labels)).sort().values


def _layer(row: Rows) -> str:
    return row.source.removesuffix(_WEIGHT)


def _count(rows: tuple[Rows, ...]) -> int:
    return sum(row.stop - row.start for row in rows)


def _told(rows: tuple[Rows, ...]) -> str:
    return ", ".join(dict.fromkeys(row.source for row in rows))
