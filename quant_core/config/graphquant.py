"""A quantization in this pack's own words.

Tested by tests/quant_core/config/test_quant_config.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError, QuantizationError
from ..methods import GRANULARITIES, named_method
from .fields import checked_by, names
from .quant_config import Meaning, QuantConfig, QuantizationMethod, register_config


def _method(key: str, value: Any) -> str:
    try:
        named_method(value)
    except QuantizationError as error:
        raise ConfigError(str(error), (key,)) from None
    return value


def _granularity(key: str, value: Any) -> str | None:
    known = isinstance(value, str) and value in GRANULARITIES
    if value is not None and not known:
        raise ConfigError(f"{key} is {value!r}. Valid: {', '.join(GRANULARITIES)}.", (key,))
    return value


@register_config
@dataclass(frozen=True)
class GraphQuantConfig(QuantConfig):
    """A quantization in this pack's own words.

    method: the name of a method or an alias. granularity: None for what the method's name implies.
    include, exclude: patterns of layer names.
    """

    quant_method: ClassVar[str] = QuantizationMethod.GRAPHQUANT
    method_key: ClassVar[str] = "method"

    method: str = checked_by(_method)
    granularity: str | None = checked_by(_granularity, None)
    include: tuple[str, ...] = names(())
    exclude: tuple[str, ...] = names(())

    def meaning(self) -> Meaning:
        return Meaning(self.method, self.granularity, self.include, self.exclude)
