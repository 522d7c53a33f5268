"""Stock nodes that users put before or after Quantize Model, each as a function MODEL -> MODEL.

Their import paths are those of ComfyUI 0.30.0; call after ``import_comfyui``. What each did is
printed by ``python -m lab.company_table``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

# For the tiny Flux, and for the tiny SD 1.5 with levels of 320 and 640 channels.
COMPANY: dict[str, Callable] = {}
UNET_COMPANY: dict[str, Callable] = {}
# How ``lab.sampling.sample`` must be called for the node to have something to do, by its name.
SAMPLED: dict[str, dict] = {}
# Nodes that change nothing on a machine with one device.
IDLE = ("MultiGPU_WorkUnits", "SelectModelDevice")


def company(nodes: dict[str, Callable] = COMPANY, **sampled) -> Callable:
    """A decorator: its function is one of ``nodes``, sampled with the options ``sampled``."""

    def add(function: Callable) -> Callable:
        nodes[function.__name__] = function
        SAMPLED[function.__name__] = sampled
        return function

    return add


@company(steps=8)
def EasyCache(model):
    from comfy_extras.nodes_easycache import EasyCacheNode

    return EasyCacheNode.execute(model, 0.5, 0.0, 1.0, False)[0]


@company()
def LazyCache(model):
    from comfy_extras.nodes_easycache import LazyCacheNode

    return LazyCacheNode.execute(model, 0.5, 0.15, 0.95, False)[0]


@company()
def ModelSamplingFlux(model):
    from comfy_extras.nodes_model_advanced import ModelSamplingFlux

    return ModelSamplingFlux().patch(model, 1.15, 0.5, 128, 128)[0]


@company(cfg=3.0)
def RescaleCFG(model):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    return RescaleCFG().patch(model, 0.7)[0]


@company()
def ModelComputeDtype(model):
    from comfy_extras.nodes_model_advanced import ModelComputeDtype

    return ModelComputeDtype().patch(model, "bf16")[0]


@company(masked=True)
def DifferentialDiffusion(model):
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

    return DifferentialDiffusion.execute(model)[0]


@company()
def SkipLayerGuidanceDiT(model):
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

    return SkipLayerGuidanceDiT.execute(model, 2.0, 0.0, 1.0, "1", "2")[0]


@company(UNET_COMPANY)
def PerturbedAttentionGuidance(model):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    return PerturbedAttentionGuidance.execute(model, 2.0)[0]


@company(cfg=3.0)
def CFGZeroStar(model):
    from comfy_extras.nodes_cfg import CFGZeroStar

    return CFGZeroStar.execute(model)[0]


@company()
def APG(model):
    from comfy_extras.nodes_apg import APG

    return APG.execute(model, 1.0, 5.0, 0.0)[0]


@company(cfg=3.0)
def TCFG(model):
    from comfy_extras.nodes_tcfg import TCFG

    return TCFG.execute(model)[0]


@company(cfg=3.0)
def FreSca(model):
    from comfy_extras.nodes_fresca import FreSca

    return FreSca.execute(model, 1.0, 1.25, 3)[0]


@company()
def MultiGPU_WorkUnits(model):
    from comfy_extras.nodes_multigpu import MultiGPUCFGSplitNode

    return MultiGPUCFGSplitNode.execute(model, 2)[0]


@company()
def SelectModelDevice(model):
    from comfy_extras.nodes_multigpu import SelectModelDeviceNode

    return SelectModelDeviceNode.execute(model, "default")[0]


@company()
def LoraLoaderModelOnly(model):
    import comfy.sd

    return comfy.sd.load_lora_for_models(model, None, lora(model), 1.0, 0.0)[0]


@company()
def LoraLoaderBypassModelOnly(model):
    import comfy.sd

    return comfy.sd.load_bypass_lora_for_models(model, None, lora(model), 1.0, 0.0)[0]


@company()
def ModelMergeSimple(model):
    """Half the model and half the same with a LoRA."""
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    return ModelMergeSimple().merge(model, LoraLoaderModelOnly(model), 0.5)[0]


@company()
def ModelMergeAdd(model):
    """The model and what a LoRA adds to it."""
    from comfy_extras.nodes_model_merging import ModelAdd, ModelSubtract

    difference = ModelSubtract().merge(LoraLoaderModelOnly(model), model, 1.0)[0]
    return ModelAdd().merge(model, difference)[0]


@company()
def ScaleROPE(model):
    from comfy_extras.nodes_rope import ScaleROPE

    return ScaleROPE.execute(model, 1.2, 0.0, 1.2, 0.0, 1.0, 0.0)[0]


@company(cfg=3.0)
def NAGuidance(model):
    from comfy_extras.nodes_nag import NAGuidance

    return NAGuidance.execute(model, 5.0, 0.5, 1.5)[0]


@company(UNET_COMPANY)
def FreeU_V2(model):
    """It acts on levels of 640 and 1280 channels."""
    from comfy_extras.nodes_freelunch import FreeU_V2

    return FreeU_V2.execute(model, 1.3, 1.4, 0.9, 0.2)[0]


def lora(model) -> dict[str, torch.Tensor]:
    """A LoRA of rank 4 on one layer of a Flux, as its file has it."""
    layer = "double_blocks.0.img_attn.qkv"
    generator = torch.Generator().manual_seed(1)
    n, k = model.model.diffusion_model.get_submodule(layer).weight.shape
    key = f"diffusion_model.{layer}"
    return {
        f"{key}.lora_up.weight": torch.randn(n, 4, generator=generator) * 0.1,
        f"{key}.lora_down.weight": torch.randn(4, k, generator=generator) * 0.1,
    }
