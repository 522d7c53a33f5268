"""NVIDIA ModelOpt, as diffusers writes it down: WEIGHT or WEIGHT_ACTIVATION."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError, UnknownNameError
from .fields import axis, checked_by, choice, document, flag, names, nothing, size
from .quant_config import Meaning, QuantConfig, register_config

TYPES = ("FP8", "INT8", "INT4", "NF4", "NVFP4")
# What a block of weights has to be; INT4 has groups of this or a smaller size.
_BLOCKS = {"NF4": 64, "NVFP4": 16, "INT4": 128}


def _quant_type(key: str, value: Any) -> str:
    parts = value.split("_") if isinstance(value, str) else [value]
    for part in parts:
        if part not in TYPES:
            raise ConfigError(str(UnknownNameError(f"type in {key}", part, TYPES)), (key,))
    if len(parts) > 2:
        raise ConfigError(f"{key} is {value!r}. It has to be WEIGHT or WEIGHT_ACTIVATION.", (key,))
    return value


@register_config
@dataclass(frozen=True)
class NVIDIAModelOptConfig(QuantConfig):
    quant_method: ClassVar[str] = "modelopt"
    method_key: ClassVar[str] = "quant_type"

    quant_type: str = checked_by(_quant_type)
    modules_to_not_convert: tuple[str, ...] | None = names()
    weight_only: bool = flag(True)
    channel_quantize: int | None = axis()
    block_quantize: int | None = size()
    scale_channel_quantize: int | None = axis()
    scale_block_quantize: int | None = size()
    algorithm: str = choice(("max",), "max")
    forward_loop: None = nothing()
    modelopt_config: Mapping[str, Any] | None = document()
    disable_conv_quantization: bool = flag(False)

    def check(self) -> None:
        weights = self._types()[0]
        if self.block_quantize is not None and self.channel_quantize is None:
            raise ConfigError(
                "block_quantize needs channel_quantize, the axis of the blocks. Add it: -1.",
                ("block_quantize",),
            )
        if (self.scale_block_quantize or self.scale_channel_quantize) and weights not in (
            "NF4",
            "NVFP4",
        ):
            key = "scale_block_quantize" if self.scale_block_quantize else "scale_channel_quantize"
            raise ConfigError(
                f"{key} is for NF4 and NVFP4, whose scales have scales; quant_type is "
                f"{self.quant_type}. Leave it out.",
                (key,),
            )

    def _types(self) -> tuple[str, str | None]:
        weights, _, activations = self.quant_type.partition("_")
        return weights, (activations or None) if not self.weight_only else None

    def meaning(self) -> Meaning:
        weights, activations = self._types()
        if not self.weight_only and activations is None:
            raise ConfigError(
                f"weight_only is false, but {self.quant_type} names no type for activations. "
                f"Write {self.quant_type}_{self.quant_type}, or weight_only true.",
                ("weight_only",),
            )
        return Meaning(
            weights if activations is None else self.quant_type,
            self._granularity(weights),
            exclude=self.modules_to_not_convert or (),
            notes=tuple(self._notes(weights)),
        )

    def _granularity(self, weights: str) -> str | None:
        if weights not in ("FP8", "INT8"):
            return None
        return "per-tensor" if self.channel_quantize is None else "per-row"

    def _notes(self, weights: str) -> Iterator[str]:
        block = _BLOCKS.get(weights)
        if self.block_quantize is not None and self.block_quantize != block:
            stored = f"blocks of {block}" if block else "one scale a row"
            yield f"block_quantize {self.block_quantize} has no effect: {weights} has {stored}."
        if self.scale_block_quantize is not None:
            yield f"scale_block_quantize has no effect: {weights} has a format of its own."
        if self.modelopt_config is not None:
            yield "modelopt_config has no effect: the other keys are read."

    @classmethod
    def read(cls, values: dict[str, Any]) -> dict[str, Any]:
        """diffusers writes ``algorithm`` as ``calib_cfg``."""
        known = {key: value for key, value in values.items() if key != "calib_cfg"}
        calibration = values.get("calib_cfg")
        if calibration is None:
            return known
        if not isinstance(calibration, dict) or set(calibration) != {"method"}:
            raise ConfigError('calib_cfg has to be {"method": "max"}.', ("calib_cfg",))
        return {"algorithm": calibration["method"], **known}
