"""Methods: the names that users choose among, and the format that each gives a layer.

Importing this package registers them.
"""

from . import low_bit, low_rank_methods, measured, rotated_methods, standard
from .aliases import ALIASES
from .low_rank_methods import CALIBRATED, RANK, require_rank, with_rank
from .measured import FASTEST, FIT, MEASURED
from .method import GRANULARITIES, METHODS, ORDER, Choice, Method, register_method
from .names import (
    Named,
    choose_for_convolution,
    choose_for_table,
    get_method,
    method_for,
    named_method,
    resolve_method,
)
from .standard import with_algorithm

VALID_METHODS = tuple(METHODS)

SIZED = tuple(name for name in METHODS if name not in ("none", *MEASURED) or name in CALIBRATED)
"""The methods whose sizes are known before anything is measured."""

__all__ = [
    "ALIASES",
    "CALIBRATED",
    "FASTEST",
    "FIT",
    "GRANULARITIES",
    "MEASURED",
    "METHODS",
    "ORDER",
    "RANK",
    "SIZED",
    "VALID_METHODS",
    "Choice",
    "Method",
    "Named",
    "choose_for_convolution",
    "choose_for_table",
    "get_method",
    "low_bit",
    "low_rank_methods",
    "measured",
    "method_for",
    "named_method",
    "register_method",
    "require_rank",
    "resolve_method",
    "rotated_methods",
    "standard",
    "with_algorithm",
    "with_rank",
]
