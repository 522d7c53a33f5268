"""Quantizes any ``nn.Module``: plan, apply, report. Knows torch and torchao, never ComfyUI."""

from .applying.component import quantize_component, quantize_vae
from .applying.layerwise import apply_layerwise_casting, remove_layerwise_casting
from .config import ComponentConfig, DefaultsConfig, QuantConfig, SectionConfig, config_from_text
from .errors import (
    CastingError,
    ConfigError,
    NonFiniteWeightError,
    NothingToQuantizeError,
    PatternError,
    QuantizationError,
    TorchAOError,
    UnknownNameError,
    UnsupportedMethodError,
)
from .hardware import Hardware, check_fp8_support, get_recommended_method, hardware_of
from .layers import is_fp8_compatible_layer
from .machine.compile_warnings import COMPILE_MODES, get_quant_compile_warnings
from .methods import ALIASES, GRANULARITIES, METHODS, VALID_METHODS, resolve_method
from .planning.layerwise_plan import plan_layerwise
from .planning.plan import LayerPlan, Plan, plan_component
from .report import Report

__all__ = [
    "ALIASES",
    "COMPILE_MODES",
    "GRANULARITIES",
    "METHODS",
    "VALID_METHODS",
    "CastingError",
    "ComponentConfig",
    "ConfigError",
    "DefaultsConfig",
    "Hardware",
    "LayerPlan",
    "NonFiniteWeightError",
    "NothingToQuantizeError",
    "PatternError",
    "Plan",
    "QuantConfig",
    "QuantizationError",
    "Report",
    "SectionConfig",
    "TorchAOError",
    "UnknownNameError",
    "UnsupportedMethodError",
    "apply_layerwise_casting",
    "check_fp8_support",
    "config_from_text",
    "get_quant_compile_warnings",
    "get_recommended_method",
    "hardware_of",
    "is_fp8_compatible_layer",
    "plan_component",
    "plan_layerwise",
    "quantize_component",
    "quantize_vae",
    "remove_layerwise_casting",
    "resolve_method",
]
