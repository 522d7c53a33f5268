"""bitsandbytes: LLM.int8(), NF4 and FP4, as diffusers and transformers write them down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..errors import ConfigError
from .fields import STORAGE_DTYPES, choice, dtype, flag, names, number
from .quant_config import Meaning, QuantConfig, QuantizationMethod, register_config

# diffusers writes these two beside the public ones.
_TWINS = ("_load_in_4bit", "_load_in_8bit")


@register_config
@dataclass(frozen=True)
class BitsAndBytesConfig(QuantConfig):
    """bitsandbytes' configuration; fields and defaults are those of diffusers' class of this
    name."""

    quant_method: ClassVar[str] = QuantizationMethod.BITS_AND_BYTES

    load_in_8bit: bool = flag(False)
    load_in_4bit: bool = flag(False)
    llm_int8_threshold: float = number(6.0)
    llm_int8_skip_modules: tuple[str, ...] | None = names()
    llm_int8_enable_fp32_cpu_offload: bool = flag(False)
    llm_int8_has_fp16_weight: bool = flag(False)
    bnb_4bit_compute_dtype: torch.dtype = dtype(torch.float32)  # noqa: RUF009 - a field
    bnb_4bit_quant_type: str = choice(("fp4", "nf4"), "fp4")
    bnb_4bit_use_double_quant: bool = flag(False)
    bnb_4bit_quant_storage: torch.dtype = dtype(torch.uint8, STORAGE_DTYPES)  # noqa: RUF009 - a field

    def check(self) -> None:
        if self.load_in_4bit and self.load_in_8bit:
            raise ConfigError(
                "load_in_4bit and load_in_8bit are both true. Leave one of them out.",
                ("load_in_8bit",),
            )

    def meaning(self) -> Meaning:
        exclude = self.llm_int8_skip_modules or ()
        return Meaning(self._method(), exclude=exclude, notes=tuple(self._notes()))

    def _method(self) -> str:
        if self.load_in_8bit:
            return "llm.int8"
        if self.load_in_4bit:
            double = "-double" if self.bnb_4bit_use_double_quant else ""
            return f"{self.bnb_4bit_quant_type}{double}"
        return "none"

    def _notes(self) -> Iterator[str]:
        if not (self.load_in_4bit or self.load_in_8bit):
            yield "load_in_4bit and load_in_8bit are both false: nothing is quantized."
        if self.load_in_8bit and self.llm_int8_threshold != 6.0:
            yield (
                f"llm_int8_threshold {self.llm_int8_threshold} has no effect: columns with an "
                "activation of 6 or more are computed in the model's dtype."
            )
        if self.llm_int8_has_fp16_weight:
            yield "llm_int8_has_fp16_weight has no effect: it is for training."
        if self.llm_int8_enable_fp32_cpu_offload:
            yield (
                "llm_int8_enable_fp32_cpu_offload has no effect: what is offloaded stays "
                "quantized, and every layer is."
            )
        if self.bnb_4bit_compute_dtype != torch.float32:
            yield (
                "bnb_4bit_compute_dtype has no effect: a layer computes in the dtype of its input."
            )
        if self.bnb_4bit_quant_storage != torch.uint8:
            yield "bnb_4bit_quant_storage has no effect: codes are stored as uint8."

    def to_dict(self) -> dict[str, Any]:
        values = super().to_dict()
        return {**values, **{twin: values[twin.removeprefix("_")] for twin in _TWINS}}

    def to_diff_dict(self) -> dict[str, Any]:
        values = super().to_diff_dict()
        return {key: value for key, value in values.items() if key not in _TWINS}

    @classmethod
    def all_keys(cls) -> frozenset[str]:
        return super().all_keys() | {*_TWINS}

    @classmethod
    def read(cls, values: dict[str, Any]) -> dict[str, Any]:
        public = {key: value for key, value in values.items() if key not in _TWINS}
        for twin in _TWINS:
            key = twin.removeprefix("_")
            if twin in values and public.setdefault(key, values[twin]) != values[twin]:
                raise ConfigError(f"{twin} and {key} differ. Leave {twin} out.", (twin,))
        return public
