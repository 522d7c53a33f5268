"""torchao's configuration classes as ``torchao.core.config.config_to_dict`` writes them: what each
means here.

{"_type": "Int8WeightOnlyConfig", "_version": 2, "_data": {...}}; values that are objects have the
same shape. Keys that choose a kernel or a memory layout change no number and are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, UnknownNameError

Answer = tuple[str, str | None, tuple[str, ...]]
Path = tuple[str | int, ...]

_NEUTRAL = frozenset(
    (
        "alg_id",
        "int4_choose_qparams_algorithm",
        "int4_packing_format",
        "int4_tile_packed_ntile",
        "intx_choose_qparams_algorithm",
        "intx_packing_format",
        "kernel_preference",
        "layout",
        "mm_config",
        "packing_format",
        "preserve_zero",
        "scale_dtype",
        "set_inductor_config",
        "use_dynamic_per_tensor_scale",
        "use_triton_kernel",
        "version",
        "weight_only_decode",
        "weight_scale_dtype",
    )
)


_SEARCHED = "the range of a group is searched"
_OWN_SCALES = "a format has its own dtype of scales"
# Of those the ones that may move a number, and what holds instead.
_NOTED = {
    "int4_choose_qparams_algorithm": _SEARCHED,
    "intx_choose_qparams_algorithm": _SEARCHED,
    "mm_config": "products are accumulated in float32",
    "preserve_zero": _SEARCHED,
    "scale_dtype": _OWN_SCALES,
    "use_dynamic_per_tensor_scale": "the whole tensor always has a scale",
    "weight_scale_dtype": _OWN_SCALES,
}


def _is_in(value: Any, valid: Any) -> bool:
    """Whether ``value`` is a text or None, and among ``valid``. A list has no hash to look up."""
    return (value is None or isinstance(value, str)) and value in valid


@dataclass(frozen=True)
class _Data:
    """The ``_data`` of a configuration. path: where it stands."""

    name: str
    values: Mapping[str, Any]
    path: Path

    def get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key, default)
        return value.get("_data") if isinstance(value, Mapping) and "_type" in value else value

    def type_of(self, key: str) -> str | None:
        value = self.values.get(key)
        value = value[-1] if isinstance(value, list | tuple) and value else value
        return value.get("_type") if isinstance(value, Mapping) else None

    def inside(self, key: str, inner: str) -> Any:
        value = self.values.get(key)
        value = value[-1] if isinstance(value, list | tuple) and value else value
        data = value.get("_data") if isinstance(value, Mapping) else None
        return data.get(inner) if isinstance(data, Mapping) else None

    def refuse(self, key: str, words: str) -> ConfigError:
        return ConfigError(f"{key} of {self.name} is {words}.", (*self.path, "_data", key))

    def require(self, key: str, value: Any) -> None:
        """ConfigError where ``key`` is there and something else."""
        found = self.get(key, value)
        if found != value:
            raise self.refuse(key, f"{found!r}, and only {value!r} is known")

    def granularity(self, default: str) -> str:
        kinds = {"PerRow": "per-row", "PerTensor": "per-tensor", None: default}
        kind = self.type_of("granularity")
        if not _is_in(kind, kinds):
            raise self.refuse("granularity", f"{kind}, and only PerRow and PerTensor are known")
        return kinds[kind]

    def bits(self, key: str) -> int:
        name = str(self.get(key))
        number = name.removeprefix("u").removeprefix("int")
        if not (number.isdecimal() and 1 <= int(number) <= 8):
            raise self.refuse(key, f"{name}, and only int1 to int8 are known")
        return int(number)

    def group(self, key: str) -> int:
        if self.type_of(key) != "PerGroup":
            raise self.refuse(key, f"{self.type_of(key)}, and only PerGroup is known")
        size = self.inside(key, "group_size")
        if type(size) is not int or size < 1:
            raise self.refuse(key, f"groups of {size!r}")
        return size


# By class: the function that gives its meaning, and the keys that it reads.
_TYPES: dict[str, tuple[Callable[[_Data], tuple[str, str | None]], frozenset[str]]] = {}


def _register(name: str, *keys: str) -> Callable:
    def register(answer: Callable[[_Data], tuple[str, str | None]]) -> Callable:
        _TYPES[name] = (answer, frozenset(keys))
        return answer

    return register


def meaning_of_type(values: Mapping[str, Any], path: Path) -> Answer:
    """The method, granularity and notes that a torchao configuration means. ConfigError for an
    unknown class or key."""
    if set(values) == {"default"} and isinstance(values["default"], Mapping):
        values, path = values["default"], (*path, "default")
    name, data = values.get("_type"), values.get("_data", {})
    if not _is_in(name, _TYPES):
        raise ConfigError(str(UnknownNameError("torchao type", name, _TYPES)), (*path, "_type"))
    if not isinstance(data, Mapping):
        raise ConfigError(f"_data of {name} is not an object {{ }}.", (*path, "_data"))
    answer, keys = _TYPES[name]
    for key in data:
        if key not in keys and key not in _NEUTRAL:
            unknown = UnknownNameError(f"key of {name}", key, sorted(keys | _NEUTRAL))
            raise ConfigError(str(unknown), (*path, "_data", key), at_key=True)
    method, granularity = answer(_Data(name, data, path))
    return method, granularity, tuple(_notes(data))


def _notes(data: Mapping[str, Any]) -> Iterator[str]:
    for key, instead in _NOTED.items():
        if data.get(key) is not None:
            yield f"{key} has no effect here: {instead}."
    layouts = sorted((_NEUTRAL - {*_NOTED, "version"}) & data.keys())
    if layouts:
        yield f"These have no effect on any number: {', '.join(layouts)}."


@_register("Int8WeightOnlyConfig", "group_size", "granularity")
def _int8(data: _Data) -> tuple[str, str | None]:
    if data.get("group_size") is not None:
        raise data.refuse("group_size", f"{data.get('group_size')}, and INT8 has no groups here")
    return "int8", data.granularity("per-row")


@_register(
    "Int8DynamicActivationInt8WeightConfig", "act_mapping_type", "granularity", "reduce_range"
)
def _int8_dynamic(data: _Data) -> tuple[str, str | None]:
    if data.get("act_mapping_type", "SYMMETRIC") != "SYMMETRIC":
        raise data.refuse("act_mapping_type", "ASYMMETRIC, and only SYMMETRIC is known")
    if data.get("reduce_range"):
        raise data.refuse("reduce_range", "true, and only false is known")
    return "int8-dynamic", data.granularity("per-row")


@_register("Int4WeightOnlyConfig", "group_size")
def _int4(data: _Data) -> tuple[str, str | None]:
    size = data.get("group_size", 128)
    if type(size) is not int or size < 1:
        raise data.refuse("group_size", f"{size!r}, which is not a size")
    return f"int4-g{size}", None


@_register("Float8WeightOnlyConfig", "weight_dtype", "granularity")
def _float8(data: _Data) -> tuple[str, str | None]:
    methods = {"float8_e4m3fn": "fp8-weight-only", "float8_e5m2": "fp8-e5m2"}
    dtype = data.get("weight_dtype", "float8_e4m3fn")
    if not _is_in(dtype, methods):
        raise data.refuse("weight_dtype", f"{dtype}, and only {', '.join(methods)} are known")
    return methods[dtype], data.granularity("per-row")


@_register(
    "Float8DynamicActivationFloat8WeightConfig",
    *("activation_dtype", "weight_dtype", "granularity"),
    *("activation_value_lb", "activation_value_ub"),
)
def _float8_dynamic(data: _Data) -> tuple[str, str | None]:
    for key in ("activation_dtype", "weight_dtype"):
        data.require(key, "float8_e4m3fn")
    for key in ("activation_value_lb", "activation_value_ub"):
        data.require(key, None)
    if data.type_of("granularity") == "PerBlock":
        return "fp8-block", None
    return "fp8-dynamic", data.granularity("per-tensor")


@_register("IntxWeightOnlyConfig", "weight_dtype", "granularity", "mapping_type")
def _int_x(data: _Data) -> tuple[str, str | None]:
    bits = data.bits("weight_dtype")
    symmetric = data.get("mapping_type", "SYMMETRIC") == "SYMMETRIC"
    if bits == 8 and data.type_of("granularity") in ("PerAxis", None) and symmetric:
        return "int8", "per-row"
    if bits == 8:
        raise data.refuse("granularity", f"{data.type_of('granularity')}, and INT8 has no groups")
    kind = "-symmetric" if symmetric else ""
    return f"int{bits}{kind}-g{data.group('granularity')}", None


@_register(
    "Int8DynamicActivationIntxWeightConfig",
    "weight_dtype",
    "weight_granularity",
    "weight_mapping_type",
    "act_mapping_type",
)
def _int_x_dynamic(data: _Data) -> tuple[str, str | None]:
    size = data.group("weight_granularity")
    if data.bits("weight_dtype") != 4 or size != 32:
        raise data.refuse("weight_dtype", f"{data.get('weight_dtype')} in groups of {size}, and "
                          "only int4 in groups of 32 is known")  # fmt: skip
    if data.get("weight_mapping_type", "SYMMETRIC") != "SYMMETRIC":
        raise data.refuse("weight_mapping_type", "ASYMMETRIC, and only SYMMETRIC is known")
    return "int4-dynamic", None


@_register("Int8DynamicActivationInt4WeightConfig", "group_size", "mapping_type")
def _int4_dynamic(data: _Data) -> tuple[str, str | None]:
    if data.get("group_size", 32) != 32:
        raise data.refuse("group_size", f"{data.get('group_size')}, and only 32 is known")
    return "int4-dynamic", None


@_register("UIntXWeightOnlyConfig", "dtype", "group_size")
def _uint_x(data: _Data) -> tuple[str, str | None]:
    return f"int{data.bits('dtype')}-g{data.get('group_size', 64)}", None


@_register("FPXWeightOnlyConfig", "ebits", "mbits")
def _fp_x(data: _Data) -> tuple[str, str | None]:
    exponent, mantissa = data.get("ebits"), data.get("mbits")
    if type(exponent) is not int or type(mantissa) is not int:
        raise data.refuse("ebits", f"{exponent!r}, mbits {mantissa!r}: two numbers are needed")
    return f"fp{exponent + mantissa + 1}-e{exponent}m{mantissa}", None


@_register("NVFP4WeightOnlyConfig")
def _nvfp4(data: _Data) -> tuple[str, str | None]:
    return "nvfp4-weight-only", None


@_register("NVFP4DynamicActivationNVFP4WeightConfig", "step")
def _nvfp4_dynamic(data: _Data) -> tuple[str, str | None]:
    return "nvfp4", None


@_register(
    "MXDynamicActivationMXWeightConfig",
    "activation_dtype",
    "block_size",
    "scaling_mode",
    "weight_dtype",
)
def _mx(data: _Data) -> tuple[str, str | None]:
    for key in ("activation_dtype", "weight_dtype"):
        data.require(key, "float8_e4m3fn")
    data.require("block_size", 32)
    data.require("scaling_mode", "RCEIL")
    return "mxfp8", None


@_register(
    "Float8StaticActivationFloat8WeightConfig",
    *("act_quant_scale", "activation_dtype", "granularity", "output_act_quant_scale"),
    *("quantize_and_dequantize_output", "step", "weight_dtype"),
)
def _float8_static(data: _Data) -> tuple[str, str | None]:
    for key in ("activation_dtype", "weight_dtype"):
        data.require(key, "float8_e4m3fn")
    data.require("act_quant_scale", None)
    data.require("quantize_and_dequantize_output", False)
    if data.granularity("per-tensor") != "per-tensor":
        raise data.refuse("granularity", "PerRow, and only PerTensor has a static scale")
    return "fp8-static", None


@_register("NF4WeightOnlyConfig")
def _nf4(data: _Data) -> tuple[str, str | None]:
    return "nf4", None
