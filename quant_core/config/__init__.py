"""What a user writes down: defaults by architecture, and one quantization in a backend's words."""

from .defaults import BUILT_IN, INHERIT, SETTINGS, ComponentConfig, DefaultsConfig, SectionConfig

__all__ = [
    "BUILT_IN",
    "INHERIT",
    "SETTINGS",
    "ComponentConfig",
    "DefaultsConfig",
    "SectionConfig",
]
