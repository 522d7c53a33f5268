"""vLLM-Omni's FP8: dynamic or static activation scales, whole rows or blocks of the weight.

Tested by tests/quant_core/config/test_quant_config.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError
from .fields import checked_by, choice, names
from .quant_config import METHOD_KEY, Meaning, QuantConfig, QuantizationMethod, register_config

_BLOCK = (128, 128)


def _block_size(key: str, value: Any) -> tuple[int, int] | None:
    if value is not None and (not isinstance(value, list | tuple) or tuple(value) != _BLOCK):
        raise ConfigError(
            f"{key} is {value!r}. Only blocks of {list(_BLOCK)} are known; leave it out for one "
            "scale a row.",
            (key,),
        )
    return None if value is None else _BLOCK


@register_config
@dataclass(frozen=True)
class VLLMOmniConfig(QuantConfig):
    """vLLM-Omni's FP8 configuration. ignored_layers: patterns of the layers that stay
    unquantized."""

    quant_method: ClassVar[str] = QuantizationMethod.VLLM_OMNI
    method_key: ClassVar[str] = "activation_scheme"

    method: str = choice(("fp8",))
    ignored_layers: tuple[str, ...] = names(())
    activation_scheme: str = choice(("dynamic", "static"), "dynamic")
    weight_block_size: tuple[int, int] | None = checked_by(_block_size, None)

    def check(self) -> None:
        if self.activation_scheme == "static" and self.weight_block_size:
            raise ConfigError(
                "activation_scheme is static and weight_block_size is set. Block-wise FP8 scales "
                "its activations dynamically: leave one of them out.",
                ("activation_scheme",),
            )

    def meaning(self) -> Meaning:
        method = "fp8-static" if self.activation_scheme == "static" else "fp8-dynamic"
        return Meaning(
            "fp8-block" if self.weight_block_size else method, exclude=self.ignored_layers
        )

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in super().to_dict().items() if key != METHOD_KEY}

    @classmethod
    def read(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A config.json says ``quant_method`` where vLLM-Omni says ``method``."""
        return {"method": cls.quant_method, **values}
