"""NVIDIA ModelOpt, as diffusers writes it down: WEIGHT or WEIGHT_ACTIVATION."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..errors import ConfigError, QuantizationError, UnknownNameError
from ..methods import named_method
from .fields import axis, checked_by, choice, document, flag, function, names, size
from .quant_config import Meaning, QuantConfig, QuantizationMethod, register_config

TYPES = ("FP8", "INT8", "INT4", "NF4", "NVFP4")
# The block sizes of types that have only one.
_BLOCKS = {"NF4": 64, "NVFP4": 16}
# ModelOpt's algorithms; only "max" gives the same numbers as this pack.
_ALGORITHMS = ("max", "mse", "smoothquant", "awq_lite", "awq_clip", "awq_full", "svdquant")
_WEIGHTS = "weight_only is true, so that activations stay as they are"


def _quant_type(key: str, value: Any) -> str:
    parts = value.split("_") if isinstance(value, str) else [value]
    for part in parts:
        if not isinstance(part, str) or part not in TYPES:
            raise ConfigError(str(UnknownNameError(f"type in {key}", part, TYPES)), (key,))
    if len(parts) > 2:
        raise ConfigError(f"{key} is {value!r}. It has to be WEIGHT or WEIGHT_ACTIVATION.", (key,))
    return value


@register_config
@dataclass(frozen=True)
class NVIDIAModelOptConfig(QuantConfig):
    """NVIDIA ModelOpt's configuration; fields and defaults are those of diffusers' class of this
    name.

    quant_type: a weight type, or WEIGHT_ACTIVATION when ``weight_only`` is false. forward_loop: a
    function of the model that runs it on some inputs, which gives FP8 activations static scales;
    only Python can give one, no file holds it.
    """

    quant_method: ClassVar[str] = QuantizationMethod.MODELOPT
    method_key: ClassVar[str] = "quant_type"

    quant_type: str = checked_by(_quant_type)
    modules_to_not_convert: tuple[str, ...] | None = names()
    weight_only: bool = flag(True)
    channel_quantize: int | None = axis()
    block_quantize: int | None = size()
    scale_channel_quantize: int | None = axis()
    scale_block_quantize: int | None = size()
    algorithm: str = choice(_ALGORITHMS, "max")
    forward_loop: Callable | None = function()  # noqa: RUF009 - a field
    modelopt_config: Mapping[str, Any] | None = document()
    disable_conv_quantization: bool = flag(False)

    def check(self) -> None:
        weights, activations = self._types()
        if self.block_quantize is not None and self.channel_quantize is None:
            raise ConfigError(
                "block_quantize needs channel_quantize, the axis of the blocks. Add it: -1.",
                ("block_quantize",),
            )
        if (
            self.scale_block_quantize or self.scale_channel_quantize is not None
        ) and weights not in (
            "NF4",
            "NVFP4",
        ):
            key = "scale_block_quantize" if self.scale_block_quantize else "scale_channel_quantize"
            raise ConfigError(
                f"{key} is for NF4 and NVFP4, whose scales have scales; quant_type is "
                f"{self.quant_type}. Leave it out.",
                (key,),
            )
        if self.weight_only:
            return
        if activations is None:
            raise ConfigError(
                f"weight_only is false, but {self.quant_type} names no type for activations. "
                f"Write {self.quant_type}_{self.quant_type}, or weight_only true.",
                ("weight_only",),
            )
        try:
            named_method(self.quant_type)
        except QuantizationError as error:
            raise ConfigError(str(error), ("quant_type",)) from None

    def _types(self) -> tuple[str, str | None]:
        weights, _, activations = self.quant_type.partition("_")
        return weights, (activations or None) if not self.weight_only else None

    def meaning(self) -> Meaning:
        weights, activations = self._types()
        return Meaning(
            self._method(weights) if activations is None else self._with_activations(),
            self._granularity(weights),
            exclude=self.modules_to_not_convert or (),
            notes=tuple(self._notes(weights)),
        )

    def _with_activations(self) -> str:
        static = self.quant_type == "FP8_FP8" and self.forward_loop is not None
        return "fp8-static" if static else self.quant_type

    def _method(self, weights: str) -> str:
        """Blocks lie along one axis: of a Linear's weight -1 is its inputs."""
        block = self.block_quantize
        if weights == "NF4":
            return "nf4-double"  # ModelOpt's has scales of eight bits
        if block is None:
            return weights
        if weights == "INT4" and self._along_inputs():
            return f"int4-g{block}"
        if weights == "FP8":
            return f"fp8-block-1x{block}" if self._along_inputs() else f"fp8-block-{block}x1"
        return weights

    def _along_inputs(self) -> bool:
        return self.channel_quantize in (-1, 1)

    def _granularity(self, weights: str) -> str | None:
        if weights not in ("FP8", "INT8") or self._method(weights) != weights:
            return None
        return "per-tensor" if self.channel_quantize is None else "per-row"

    def _notes(self, weights: str) -> Iterator[str]:
        block, fixed = self.block_quantize, _BLOCKS.get(weights)
        if block is not None and self._method(weights) == weights and block != fixed:
            stored = f"blocks of {fixed}" if fixed else "one scale a row"
            stored = "groups along the inputs" if weights == "INT4" else stored
            yield f"block_quantize {block} has no effect: {weights} has {stored}."
        elif weights == "NF4" and block not in (None, fixed):
            yield f"block_quantize {block} has no effect: NF4 has blocks of {fixed}."
        elif block is None and self.channel_quantize is not None and weights not in ("FP8", "INT8"):
            yield f"channel_quantize has no effect: {weights} has blocks along the inputs."
        elif block is None and self.channel_quantize not in (None, 0, -2):
            yield "channel_quantize has no effect, except that every output row has a scale."
        for key in ("scale_block_quantize", "scale_channel_quantize"):
            if getattr(self, key) is not None:
                yield f"{key} has no effect: {weights} has a format of its own."
        if self.weight_only and "_" in self.quant_type:
            yield f"{self.quant_type.partition('_')[2]} of quant_type has no effect: {_WEIGHTS}."
        if self.algorithm != "max":
            yield f"algorithm {self.algorithm} has no effect: the format finds its own scales."
        if self.forward_loop is not None and self._types()[1] != "FP8":
            yield "forward_loop has no effect: only FP8_FP8 without weight_only calibrates."
        if self.disable_conv_quantization:
            yield (
                "disable_conv_quantization has no effect: convolutions of a VAE alone are "
                "quantized, and of a transformer none."
            )
        if self.modelopt_config is not None:
            yield "modelopt_config has no effect: the other keys are read."

    def to_dict(self) -> dict[str, Any]:
        """``algorithm`` stands there also as diffusers keeps it, ``calib_cfg``. No file holds a
        forward_loop: it is null."""
        if self.forward_loop is not None:
            return replace(self, forward_loop=None).to_dict()
        return {**super().to_dict(), "calib_cfg": {"method": self.algorithm}}

    def to_diff_dict(self) -> dict[str, Any]:
        values = super().to_diff_dict()
        return {k: v for k, v in values.items() if k not in ("calib_cfg", "forward_loop")}

    @classmethod
    def all_keys(cls) -> frozenset[str]:
        return super().all_keys() | {"calib_cfg"}

    @classmethod
    def read(cls, values: dict[str, Any]) -> dict[str, Any]:
        """diffusers writes ``algorithm`` as ``calib_cfg``."""
        known = {key: value for key, value in values.items() if key != "calib_cfg"}
        calibration = values.get("calib_cfg")
        if calibration is None:
            return known
        if not isinstance(calibration, Mapping) or set(calibration) != {"method"}:
            raise ConfigError('calib_cfg has to be {"method": "max"}.', ("calib_cfg",))
        if known.setdefault("algorithm", calibration["method"]) != calibration["method"]:
            raise ConfigError(
                "calib_cfg and algorithm differ. Leave calib_cfg out.", ("calib_cfg",)
            )
        return known
