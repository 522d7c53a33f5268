"""Methods: what a user can choose, and the format that each gives a layer. Importing registers."""

# The order of registration is the order of the choice.
# isort: off
from . import standard
from . import low_bit
from . import measured

# isort: on
from .aliases import ALIASES
from .measured import FASTEST, MEASURED
from .method import GRANULARITIES, METHODS, Choice, Method, register_method
from .names import Named, get_method, method_for, named_method, resolve_method
from .standard import with_algorithm

VALID_METHODS = tuple(METHODS)

__all__ = [
    "ALIASES",
    "FASTEST",
    "GRANULARITIES",
    "MEASURED",
    "METHODS",
    "VALID_METHODS",
    "Choice",
    "Method",
    "Named",
    "get_method",
    "low_bit",
    "measured",
    "method_for",
    "named_method",
    "register_method",
    "resolve_method",
    "standard",
    "with_algorithm",
]
