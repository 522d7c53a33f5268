"""Whether the convolutions of a model that is not a VAE are stored quantized.

They are never multiplied in 8 bits here: a quantized one is dequantized before it runs, which saves
memory and no time.
"""

from __future__ import annotations

from torch import nn

from ..detect import module_bytes, stored_bytes
from ..errors import UnknownNameError, UnsupportedMethodError
from ..layers import CONVOLUTIONS
from ..methods import FIT, named_method

AUTO, KEEP, QUANTIZE = "auto", "keep", "quantize"
CHOICES = (AUTO, KEEP, QUANTIZE)

# In INT8 the convolutions of the tiny SD 1.5 take the latent's error after 4 steps from 0.0026 to
# 0.0067, in FP8 from 0.0097 to 0.0211, and the model from 113 MiB to 53. So INT8 takes them where
# they are a large part: SD 1.5 68 %, SD 2 65 %, SVD 46 %, ACE-Step 36 %; SDXL's 13 % stay.
_LARGE_PART = 0.25


def with_convolutions(model: nn.Module, choice: str, method: str) -> tuple[bool, tuple[str, ...]]:
    """Whether ``method`` (a name) also takes the convolutions of ``model``, and notes for the
    report.

    choice: "keep", "quantize", or "auto": by the method ``int8`` where they hold a quarter of the
    model's bytes or more. UnknownNameError; UnsupportedMethodError for "quantize" with fit.
    """
    if choice not in CHOICES:
        raise UnknownNameError("convolutions", choice, CHOICES)
    name = named_method(method).method.name
    if choice == QUANTIZE and name == FIT:
        raise UnsupportedMethodError(
            "convolutions is 'quantize', and fit has formats for Linear layers alone. Set "
            "convolutions to auto or keep, or choose the method int8."
        )
    if choice != AUTO:
        return choice == QUANTIZE, ()
    weights = {
        id(module.weight): stored_bytes(module.weight)
        for module in model.modules()
        if isinstance(module, CONVOLUTIONS) and "weight" in module._parameters
    }
    share = sum(weights.values()) / max(1, module_bytes(model))
    if name != "int8" or share < _LARGE_PART:
        return False, ()
    note = (
        f"convolutions: auto quantizes them in {name}, because they hold {share:.0%} of the "
        "model's bytes. keep leaves them as they are."
    )
    return True, (note,)
