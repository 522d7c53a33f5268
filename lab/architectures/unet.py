"""Stable Diffusion's UNets at their real sizes."""

from __future__ import annotations

from .tree import Tree, vary

# fmt: off
_SD15 = Tree("sd15_sdxl", 0.86, dict(
    use_checkpoint=False, image_size=32, in_channels=4, out_channels=4, model_channels=320,
    num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 2, 4, 4],
    transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_middle=1,
    transformer_depth_output=[1] * 9 + [0] * 3, context_dim=768, adm_in_channels=None,
    use_spatial_transformer=True, use_linear_in_transformer=False, use_temporal_attention=False,
    use_temporal_resblock=False, legacy=False,
))
_SD21 = vary(_SD15, 0.87, use_linear_in_transformer=True, context_dim=1024)
_SDXL = vary(
    _SD21, 2.57, num_classes="sequential", adm_in_channels=2816, context_dim=2048,
    num_res_blocks=[2, 2, 2], channel_mult=[1, 2, 4], transformer_depth=[0, 0, 2, 2, 10, 10],
    transformer_depth_middle=10, transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
)

UNET_TREES = {
    "sd15": _SD15,
    "sd21": _SD21,
    "sdxl": _SDXL,
    "sdxl_refiner": vary(
        _SDXL, 2.26, model_channels=384, adm_in_channels=2560, context_dim=1280,
        num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 2, 4, 4],
        transformer_depth=[0, 0, 4, 4, 4, 4, 0, 0], transformer_depth_middle=4,
        transformer_depth_output=[0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
    ),
    "svd": vary(
        _SD21, 1.52, in_channels=8, num_classes="sequential", adm_in_channels=768,
        extra_ff_mix_layer=True, use_spatial_context=True, merge_strategy="learned_with_images",
        merge_factor=0.0, video_kernel_size=[3, 1, 1], use_temporal_resblock=True,
        use_temporal_attention=True, disable_temporal_crossattention=False,
    ),
}
