"""Stock nodes that users put before or after Quantize Model, each as a function MODEL -> MODEL.

Their import paths are those of ComfyUI 0.30.0; call after ``import_comfyui``. FreeU is for UNets
and refuses a Flux, quantized or not; TorchCompileModel and the merges have tests of their own.
"""

from __future__ import annotations

from collections.abc import Callable

COMPANY: dict[str, Callable] = {}


def company(function: Callable) -> Callable:
    COMPANY[function.__name__] = function
    return function


@company
def EasyCache(model):
    from comfy_extras.nodes_easycache import EasyCacheNode

    return EasyCacheNode.execute(model, 0.5, 0.15, 0.95, False)[0]


@company
def LazyCache(model):
    from comfy_extras.nodes_easycache import LazyCacheNode

    return LazyCacheNode.execute(model, 0.5, 0.15, 0.95, False)[0]


@company
def ModelSamplingFlux(model):
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    return ModelSamplingFlux().patch(model, 1.15, 0.5, 128, 128)[0]


@company
def RescaleCFG(model):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    return RescaleCFG().patch(model, 0.7)[0]


@company
def ModelComputeDtype(model):
    from comfy_extras.nodes_model_advanced import ModelComputeDtype

    return ModelComputeDtype().patch(model, "fp32")[0]


@company
def DifferentialDiffusion(model):
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    return DifferentialDiffusion.execute(model)[0]


@company
def SkipLayerGuidanceDiT(model):
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

    return SkipLayerGuidanceDiT.execute(model, 2.0, 0.0, 1.0, "1", "2")[0]


@company
def PerturbedAttentionGuidance(model):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    return PerturbedAttentionGuidance.execute(model, 2.0)[0]


@company
def CFGZeroStar(model):
    from comfy_extras.nodes_cfg import CFGZeroStar

    return CFGZeroStar.execute(model)[0]


@company
def APG(model):
    from comfy_extras.nodes_apg import APG

    return APG.execute(model, 1.0, 5.0, 0.0)[0]


@company
def TCFG(model):
    from comfy_extras.nodes_tcfg import TCFG

    return TCFG.execute(model)[0]


@company
def FreSca(model):
    from comfy_extras.nodes_fresca import FreSca

    return FreSca.execute(model, 1.0, 1.25, 20)[0]


@company
def MultiGPU_WorkUnits(model):
    from comfy_extras.nodes_multigpu import MultiGPUCFGSplitNode

    return MultiGPUCFGSplitNode.execute(model, 2)[0]
