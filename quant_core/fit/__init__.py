"""The method "fit": from a size to the format of each layer, by what each does to the picture."""

from .candidates import WIDTHS, format_error, widths_for
from .effects import effect_lines, expected_effects, in_all
from .fitting import Fit, FitOutcome, Fitted, with_fit
from .knapsack import Option, choose
from .recipe import Recipe
from .sensitivity import Sensitivity, architecture_hash

__all__ = [
    "WIDTHS",
    "Fit",
    "FitOutcome",
    "Fitted",
    "Option",
    "Recipe",
    "Sensitivity",
    "architecture_hash",
    "choose",
    "effect_lines",
    "expected_effects",
    "format_error",
    "in_all",
    "widths_for",
    "with_fit",
]
