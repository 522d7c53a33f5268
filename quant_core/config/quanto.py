"""optimum-quanto, as diffusers writes it down: weights only.

Tested by tests/quant_core/config/test_quant_config.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .fields import choice, names
from .quant_config import Meaning, QuantConfig, QuantizationMethod, register_config

_DTYPES = ("float8", "int8", "int4", "int2")


@register_config
@dataclass(frozen=True)
class QuantoConfig(QuantConfig):
    """optimum-quanto's configuration; fields and defaults are those of diffusers' class of this
    name."""

    quant_method: ClassVar[str] = QuantizationMethod.QUANTO
    method_key: ClassVar[str] = "weights_dtype"

    weights_dtype: str = choice(_DTYPES, "int8")
    modules_to_not_convert: tuple[str, ...] | None = names()

    def meaning(self) -> Meaning:
        return Meaning(self.weights_dtype, exclude=self.modules_to_not_convert or ())
