"""torchao, as diffusers writes it down: a shorthand with options, or a torchao configuration."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from ..errors import ConfigError, QuantizationError, UnknownNameError
from ..methods import named_method
from .fields import json_object, names
from .quant_config import Meaning, QuantConfig, QuantizationMethod, register_config
from .torchao_types import meaning_of_type

# diffusers' shorthands but for fp3_e1m1 and its like, and the options that each takes here.
_GROUP = ("group_size",)
SHORTHANDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("int4wo", "int4_weight_only", "int_a16w4"), (*_GROUP, "inner_k_tiles", "use_hqq")
    ),
    **dict.fromkeys(("int4dq", "int8_dynamic_activation_int4_weight", "int_a8w4"), ()),
    **dict.fromkeys(("int8wo", "int8_weight_only", "int_a16w8"), ()),
    **dict.fromkeys(("int8dq", "int8_dynamic_activation_int8_weight", "int_a8w8"), ()),
    **dict.fromkeys(("float8wo", "float8_weight_only", "float8wo_e5m2", "float8wo_e4m3"), ()),
    **dict.fromkeys(("float8dq", "float8_dynamic_activation_float8_weight"), ()),
    **dict.fromkeys(("float8dq_tensor", "float8dq_row", "float8dq_e4m3"), ()),
    **dict.fromkeys(("float8dq_e4m3_tensor", "float8dq_e4m3_row"), ()),
    **dict.fromkeys(("float8_e4m3_tensor", "float8_e4m3_row"), ()),
    **dict.fromkeys(("float8_e5m2_a16w8", "float8_e4m3_a16w8", "float_a8w8", "float_a16w8"), ()),
    **dict.fromkeys(("float8sq", "float8_static_activation_float8_weight"), ()),
    **dict.fromkeys((f"fp{bits}" for bits in range(3, 8)), ()),
    **dict.fromkeys((f"float_a16w{bits}" for bits in range(3, 8)), ()),
    "fpx_weight_only": ("ebits", "mbits"),
    **dict.fromkeys((f"uint{bits}wo" for bits in range(1, 8)), (*_GROUP, "use_hqq")),
    **dict.fromkeys((f"uint_a16w{bits}" for bits in range(1, 8)), (*_GROUP, "use_hqq")),
    "uintx_weight_only": ("dtype", *_GROUP, "use_hqq"),
}
_FLOAT = re.compile(r"fp(\d)_e(\d)[mw](\d)")
_UINTS = tuple(f"uint{bits}" for bits in range(1, 8))
# What each option may be, and in words.
_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "group_size": (lambda value: type(value) is int and value > 0, "32, 64 or 128"),
    "inner_k_tiles": (lambda value: type(value) is int and value in (2, 4, 8), "2, 4 or 8"),
    "use_hqq": (lambda value: type(value) is bool, "true or false"),
    "dtype": (lambda value: isinstance(value, str) and value in _UINTS, "uint1 to uint7"),
    "ebits": (lambda value: type(value) is int and 1 <= value <= 6, "1 to 6"),
    "mbits": (lambda value: type(value) is int and 0 <= value <= 5, "0 to 5"),
}
# What they mean to diffusers, where this pack's own names mean something else.
_MEANT = {"fp4": "fp4_e2m1"}


def _quant_type(key: str, value: Any) -> str | Mapping[str, Any]:
    """A shorthand; or a configuration of torchao's, as an object of its AOBaseConfig or as the
    dictionary of one, which diffusers wraps as {"default": ...}."""
    if is_torchao_config(value):
        value = _as_dictionary(key, value)
    if isinstance(value, Mapping):
        meaning_of_type(value, (key,))
        return json_object(key, value)
    if not isinstance(value, str):
        raise ConfigError(
            f"{key} is {value!r:.80}. It has to be a shorthand, such as int8wo, or a configuration "
            "of torchao's, such as Int8WeightOnlyConfig().",
            (key,),
        )
    if _FLOAT.fullmatch(value):
        try:
            named_method(value)
        except QuantizationError as error:
            raise ConfigError(str(error), (key,)) from None
    elif value not in SHORTHANDS:
        valid = (*SHORTHANDS, "fp6_e3m2")
        raise ConfigError(str(UnknownNameError(key, value, valid)), (key,))
    return value


def config_of(value: Any) -> QuantConfig | None:
    """The configuration that ``value`` is, or is written as: a QuantConfig, a library's dictionary,
    or one of torchao's own objects. None for anything else, such as a method's name.
    ConfigError for a dictionary that is not a configuration."""
    if isinstance(value, Mapping):
        return QuantConfig.from_dict(value)
    if is_torchao_config(value):
        return TorchAoConfig(value)
    return value if isinstance(value, QuantConfig) else None


def is_torchao_config(value: Any) -> bool:
    """Whether ``value`` is an AOBaseConfig. Whoever has one has imported torchao."""
    module = sys.modules.get("torchao.core.config")
    return module is not None and isinstance(value, module.AOBaseConfig)


def _as_dictionary(key: str, value: Any) -> dict[str, Any]:
    from torchao.core.config import config_to_dict

    try:
        return {"default": config_to_dict(value)}
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{key} is a {type(value).__name__} that torchao cannot serialize: {error}. "
            "Give a shorthand instead, such as int8wo.",
            (key,),
        ) from None


def _options(key: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return json_object(key, {})
    options = json_object(key, value)
    return json_object(key, {name: _plain_dtype(option) for name, option in options.items()})


def _plain_dtype(value: Any) -> Any:
    """diffusers passes dtypes, and a file has their names."""
    named = isinstance(value, torch.dtype) or (
        isinstance(value, str) and value.startswith("torch.")
    )
    return str(value).removeprefix("torch.") if named else value


@register_config
@dataclass(frozen=True, init=False)
class TorchAoConfig(QuantConfig):
    """torchao's configuration as diffusers writes it.

    quant_type: a shorthand such as "int8wo", or a torchao configuration as a dictionary.
    quant_type_kwargs: options of the shorthand.
    """

    quant_method: ClassVar[str] = QuantizationMethod.TORCHAO
    method_key: ClassVar[str] = "quant_type"

    quant_type: str | Mapping[str, Any] = field(hash=False, metadata={"check": _quant_type})
    modules_to_not_convert: tuple[str, ...] | None = names()
    quant_type_kwargs: Mapping[str, Any] = field(
        default_factory=dict, hash=False, metadata={"check": _options}
    )

    def __init__(
        self,
        quant_type: Any,
        modules_to_not_convert: Iterable[str] | None = None,
        quant_type_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        """quant_type: a shorthand, a torchao configuration (AOBaseConfig), or its dictionary.
        kwargs: options of the shorthand, as group_size; ``quant_type_kwargs`` takes them too."""
        options = quant_type_kwargs
        if kwargs:
            options = {**_options("quant_type_kwargs", quant_type_kwargs), **kwargs}
        for name, value in (
            ("quant_type", quant_type),
            ("modules_to_not_convert", modules_to_not_convert),
            ("quant_type_kwargs", options),
        ):
            object.__setattr__(self, name, value)
        self.__post_init__()

    def check(self) -> None:
        valid = () if isinstance(self.quant_type, Mapping) else self._options_of_shorthand()
        for key, value in self.quant_type_kwargs.items():
            path = ("quant_type_kwargs", key)
            if key not in valid:
                unknown = UnknownNameError(f"option of {self._name()}", key, valid)
                raise ConfigError(str(unknown), path, at_key=True)
            holds, words = _OPTIONS[key]
            if not holds(value):
                raise ConfigError(f"{key} is {value!r}. It has to be {words}.", path)
        bits = 1 + sum(self.quant_type_kwargs.get(key, 0) for key in ("ebits", "mbits"))
        if bits > 7:
            raise ConfigError(
                f"ebits, mbits and a sign make {bits} bits. Use 7 or fewer, as ebits 3, mbits 2.",
                ("quant_type_kwargs", "mbits"),
            )

    def _options_of_shorthand(self) -> tuple[str, ...]:
        return SHORTHANDS.get(self.quant_type, ())

    def _name(self) -> str:
        return self.quant_type if isinstance(self.quant_type, str) else "a torchao configuration"

    def meaning(self) -> Meaning:
        exclude = self.modules_to_not_convert or ()
        if isinstance(self.quant_type, Mapping):
            method, granularity, notes = meaning_of_type(self.quant_type, ("quant_type",))
            return Meaning(method, granularity, exclude=exclude, notes=notes)
        notes = []
        if self.quant_type_kwargs.get("use_hqq"):
            notes.append("use_hqq has no effect: the range of a group is searched.")
        if "inner_k_tiles" in self.quant_type_kwargs:
            notes.append("inner_k_tiles has no effect: it is a memory layout of torchao's.")
        return Meaning(self._method(), exclude=exclude, notes=tuple(notes))

    def _method(self) -> str:
        name, options = self.quant_type, self.quant_type_kwargs
        if name == "fpx_weight_only" and {"ebits", "mbits"} <= options.keys():
            exponent, mantissa = options["ebits"], options["mbits"]
            return f"fp{exponent + mantissa + 1}-e{exponent}m{mantissa}"
        bits = re.fullmatch(r"u?int_a16w(\d)|u?int(\d)(?:wo|_weight_only)", name)
        number = next(filter(None, bits.groups())) if bits else None
        if name == "uintx_weight_only":
            number = options.get("dtype", "uint4").removeprefix("uint")
        if number and (name == "uintx_weight_only" or "group_size" in options):
            return f"int{number}-g{options.get('group_size', 64)}"
        return _MEANT.get(name, name)

    def to_dict(self) -> dict[str, Any]:
        """Every setting as diffusers writes it; a torchao configuration has no options beside
        it."""
        values = super().to_dict()
        beside = isinstance(self.quant_type, Mapping) and not self.quant_type_kwargs
        return {k: v for k, v in values.items() if not (beside and k == "quant_type_kwargs")}

    @classmethod
    def all_keys(cls) -> frozenset[str]:
        return super().all_keys().union(*SHORTHANDS.values())

    @classmethod
    def read(cls, values: dict[str, Any]) -> dict[str, Any]:
        """diffusers takes options beside the keys as well as in ``quant_type_kwargs``."""
        options = {key for known in SHORTHANDS.values() for key in known}
        beside = {key: value for key, value in values.items() if key in options}
        if not beside:
            return values
        kept = {key: value for key, value in values.items() if key not in beside}
        options = _options("quant_type_kwargs", values.get("quant_type_kwargs"))
        return {**kept, "quant_type_kwargs": {**options, **beside}}
