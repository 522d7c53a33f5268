"""Whether two MODELs can be compared, and what a comparison of them would be worth.

Tested by tests/nodes/test_compare_models.py.
"""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ....quant_core.detect import quantized_as


def doubts(reference: ModelPatcher, quantized: ModelPatcher) -> list[str]:
    """Reasons why a comparison says less than it seems to, as sentences.

    ValueError where it would be meaningless: the same MODEL twice, the two swapped, or models of
    different architectures.
    """
    architectures = [type(each.model.model_config).__name__ for each in (reference, quantized)]
    if architectures[0] != architectures[1] or _widths(reference) != _widths(quantized):
        raise ValueError(
            f"reference is {_words(reference)}, quantized is {_words(quantized)}: they can't be "
            "compared. Connect the same model before and after Quantize Model."
        )
    if _same(reference, quantized):
        raise ValueError(
            "reference and quantized are the same MODEL: nothing would be compared. Connect the "
            "output of Quantize Model to quantized, and check that it is not bypassed."
        )
    before, after = (_is_quantized(each) for each in (reference, quantized))
    if before and not after:
        raise ValueError(
            "reference is quantized and quantized is not: the two are swapped. Connect the "
            "unquantized MODEL to reference."
        )
    if before:
        return ["Both MODELs are quantized: the errors are the difference between the two."]
    if not after:
        return ["Neither MODEL is quantized: whatever differs, quantization is not the reason."]
    return []


def _same(first: ModelPatcher, second: ModelPatcher) -> bool:
    """Whether both are one model with the same patches, so that they sample alike."""
    return (
        first.model is second.model
        and first.patches_uuid == second.patches_uuid
        and first.object_patches.keys() == second.object_patches.keys()
        and first.model_options == second.model_options
    )


def _is_quantized(patcher: ModelPatcher) -> bool:
    return any(quantized_as(each) for each in patcher.model.diffusion_model.parameters())


def _widths(patcher: ModelPatcher) -> dict[str, tuple[int, ...]]:
    """The shapes of the vectors among the weights, which quantization does not touch: norms and
    biases differ between sizes of one architecture."""
    named = patcher.model.diffusion_model.named_parameters()
    return {name: tuple(each.shape) for name, each in named if each.dim() == 1}


def _words(patcher: ModelPatcher) -> str:
    """The model's architecture and size, as "Flux (12.0 billion weights)"."""
    weights = sum(each.numel() for each in patcher.model.diffusion_model.parameters())
    return f"{type(patcher.model.model_config).__name__} ({weights / 1e9:.3g} billion weights)"
