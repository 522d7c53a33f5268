"""Methods: the names that users choose among, and the format that each gives a layer.

Importing this package registers them.
"""

from . import low_bit, measured, rotated_methods, standard
from .aliases import ALIASES
from .measured import FASTEST, FIT, MEASURED
from .method import GRANULARITIES, METHODS, ORDER, Choice, Method, register_method
from .names import (
    Named,
    choose_for_convolution,
    get_method,
    method_for,
    named_method,
    resolve_method,
)
from .standard import with_algorithm

VALID_METHODS = tuple(METHODS)

__all__ = [
    "ALIASES",
    "FASTEST",
    "FIT",
    "GRANULARITIES",
    "MEASURED",
    "METHODS",
    "ORDER",
    "VALID_METHODS",
    "Choice",
    "Method",
    "Named",
    "choose_for_convolution",
    "get_method",
    "low_bit",
    "measured",
    "method_for",
    "named_method",
    "register_method",
    "resolve_method",
    "rotated_methods",
    "standard",
    "with_algorithm",
]
