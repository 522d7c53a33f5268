"""Quantization of any ``nn.Module``: plan, apply, report. Knows torch and torchao, never ComfyUI."""

from .compile_warnings import COMPILE_MODES, get_quant_compile_warnings
from .component import quantize_component, quantize_vae
from .errors import (
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
from .methods import ALIASES, GRANULARITIES, METHODS, VALID_METHODS, resolve_method
from .plan import LayerPlan, Plan, plan_component
from .report import Report

__all__ = [
    "ALIASES",
    "COMPILE_MODES",
    "GRANULARITIES",
    "METHODS",
    "VALID_METHODS",
    "Hardware",
    "LayerPlan",
    "NonFiniteWeightError",
    "NothingToQuantizeError",
    "PatternError",
    "Plan",
    "QuantizationError",
    "Report",
    "TorchAOError",
    "UnknownNameError",
    "UnsupportedMethodError",
    "check_fp8_support",
    "get_quant_compile_warnings",
    "get_recommended_method",
    "hardware_of",
    "is_fp8_compatible_layer",
    "plan_component",
    "quantize_component",
    "quantize_vae",
    "resolve_method",
]
