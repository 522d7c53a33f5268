"""What a user writes down: defaults by architecture, and one quantization in a library's words."""

from .bitsandbytes import BitsAndBytesConfig
from .defaults import BUILT_IN, INHERIT, SETTINGS, ComponentConfig, DefaultsConfig, SectionConfig
from .gguf import GGUFQuantizationConfig
from .graphquant import GraphQuantConfig
from .json_text import config_from_text
from .modelopt import NVIDIAModelOptConfig
from .quant_config import CONFIGS, Meaning, QuantConfig, QuantizationMethod
from .quanto import QuantoConfig
from .torchao import TorchAoConfig, config_of
from .vllm import VLLMOmniConfig

# diffusers' name of the base class.
QuantizationConfigMixin = QuantConfig

__all__ = [
    "BUILT_IN",
    "CONFIGS",
    "INHERIT",
    "SETTINGS",
    "BitsAndBytesConfig",
    "ComponentConfig",
    "DefaultsConfig",
    "GGUFQuantizationConfig",
    "GraphQuantConfig",
    "Meaning",
    "NVIDIAModelOptConfig",
    "QuantConfig",
    "QuantizationConfigMixin",
    "QuantizationMethod",
    "QuantoConfig",
    "SectionConfig",
    "TorchAoConfig",
    "VLLMOmniConfig",
    "config_from_text",
    "config_of",
]
