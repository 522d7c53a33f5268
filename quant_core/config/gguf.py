"""GGUF, as diffusers writes it down: it describes files that are quantized already.

Tested by tests/quant_core/config/test_quant_config.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..errors import ConfigError
from .fields import checked_by, dtype, names
from .quant_config import Meaning, QuantConfig, QuantizationMethod, register_config


def _only_true(key: str, value: Any) -> bool:
    if value is not True:
        raise ConfigError(
            f"{key} is {value!r}. It has to be true: GGUF files are quantized already.", (key,)
        )
    return value


@register_config
@dataclass(frozen=True)
class GGUFQuantizationConfig(QuantConfig):
    """diffusers' configuration of GGUF files. It cannot quantize anything: ``meaning`` always
    raises ConfigError."""

    quant_method: ClassVar[str] = QuantizationMethod.GGUF

    compute_dtype: torch.dtype = dtype(torch.float32)  # noqa: RUF009 - a field
    pre_quantized: bool = checked_by(_only_true, True)
    modules_to_not_convert: tuple[str, ...] | None = names()

    def meaning(self) -> Meaning:
        raise ConfigError(
            "A configuration of gguf describes a file that is quantized already. "
            "Load the file with Load Quantized Model."
        )
