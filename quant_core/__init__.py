"""Quantizes any ``nn.Module``: plan, apply, report. Knows torch and torchao, never ComfyUI.

The names of ``__all__`` are imported when they are first asked for: a start of ComfyUI needs few.
"""

from importlib import import_module

_ROOMS = {
    "applying.component": ("quantize_component", "quantize_vae"),
    "applying.pipeline": ("quantize_pipeline",),
    "conversion.pipeline_files": ("load_pipeline", "save_pipeline"),
    "applying.layerwise": ("apply_layerwise_casting", "remove_layerwise_casting"),
    "calibration": ("Calibration", "load_calibration", "observe", "save_calibration"),
    "config": (
        "BitsAndBytesConfig",
        "ComponentConfig",
        "DefaultsConfig",
        "GGUFQuantizationConfig",
        "GraphQuantConfig",
        "NVIDIAModelOptConfig",
        "QuantConfig",
        "QuantizationConfigMixin",
        "QuantizationMethod",
        "QuantoConfig",
        "SectionConfig",
        "TorchAoConfig",
        "VLLMOmniConfig",
        "config_from_text",
    ),
    "conversion.sizes": ("estimate",),
    "errors": (
        "ArgumentError",
        "CastingError",
        "ConfigError",
        "FitError",
        "NonFiniteWeightError",
        "NothingToQuantizeError",
        "PatternError",
        "QuantizationError",
        "TorchAOError",
        "UnknownNameError",
        "UnsupportedMethodError",
    ),
    "fit": ("Fit", "Recipe", "Sensitivity"),
    "hardware": ("Hardware", "check_fp8_support", "get_recommended_method", "hardware_of"),
    "layers": ("is_fp8_compatible_layer",),
    "machine.compile_warnings": ("COMPILE_MODES", "get_quant_compile_warnings"),
    "methods": ("ALIASES", "GRANULARITIES", "METHODS", "VALID_METHODS", "resolve_method"),
    "planning.layerwise_plan": ("plan_layerwise",),
    "planning.plan": ("LayerPlan", "Plan", "plan_component"),
    "report": ("Report",),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
