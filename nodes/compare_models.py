"""The node "Compare Quantized"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io, ui

from ..quant_core.measure.comparison import LEVELS, Comparison
from .shared.aligned import aligned
from .shared.bar_chart import Bar, bar_chart
from .shared.sampling_inputs import sampler_inputs
from .shared.verdict import BAD, GOOD, verdict

if TYPE_CHECKING:
    from .bridge.measure.comparing import Pictures

DIFFERENCE_GAIN = 8
LEVEL_TOOLTIP = (
    "How strict the verdict is. smoke: latent L2 0.20, PSNR 20 dB, MAE 12. good: 0.20, 25 dB, 6. "
    "strict: 0.08, 30 dB, 3. LPIPS 0.15 in all."
)


class GQCompareModels(io.ComfyNode):
    """The node that compares a quantized model with the one it was made from."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GQCompareModels",
            display_name="Compare Quantized",
            category="model/quantization",
            description=(
                "Two MODELs on the same noise, conditioning and seeds: the error of single calls "
                "on the same inputs, of the latents, and with a VAE of the pictures, with pass or "
                "fail. Three runs a seed. No MODEL is changed."
            ),
            search_aliases=["compare", "quant", "PSNR", "SSIM", "LPIPS", "A/B", "difference"],
            inputs=[
                io.Model.Input("reference", tooltip="The MODEL before it was quantized."),
                io.Model.Input("quantized", tooltip="The MODEL to judge."),
                io.Conditioning.Input("positive", tooltip="The same for both."),
                io.Latent.Input("latent_image", tooltip="What both start from."),
                *sampler_inputs(steps=20, cfg=1.0, optional=False),
                io.Int.Input(
                    "seeds",
                    default=2,
                    min=1,
                    max=64,
                    tooltip="How many seeds: seed, seed + 1 and so on. One picture proves nothing.",
                ),
                io.Combo.Input(
                    "level",
                    options=list(LEVELS),
                    default="good",
                    optional=True,
                    tooltip=LEVEL_TOOLTIP,
                ),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="Needed only where cfg is not 1."
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Decodes both latents, to compare pictures."
                ),
            ],
            outputs=[
                io.String.Output(display_name="report", tooltip="The verdict and its figures."),
                io.String.Output(display_name="json", tooltip="The same as JSON."),
                io.Image.Output(
                    display_name="image",
                    tooltip="Reference, quantized, and their difference made "
                    f"{DIFFERENCE_GAIN} times as strong. Without a VAE: the error of each call.",
                ),
                io.Boolean.Output(display_name="passes", tooltip="Whether every seed passes."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        reference,
        quantized,
        positive,
        latent_image,
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        seeds,
        level="good",
        negative=None,
        vae=None,
    ) -> io.NodeOutput:
        from ..quant_core.measure import lpips
        from ..quant_core.measure.pictures import SMALLEST_SIDE
        from .bridge.measure.comparable import doubts
        from .bridge.measure.comparing import compare_seeds
        from .bridge.measure.sampling import Sampling

        doubtful = doubts(reference, quantized)
        sampling = Sampling(positive, negative, latent_image, steps, cfg, sampler_name, scheduler)
        lacking = lpips.missing() if vae is not None else None
        measure = lpips.lpips_measure() if vae is not None and lacking is None else None
        results, pictures = compare_seeds(
            reference, quantized, sampling, range(seed, seed + seeds), vae, measure
        )
        notes = [f"{steps} steps of {sampler_name}, {scheduler}, cfg {cfg:g}.", lacking, *doubtful]
        if pictures and min(pictures[0].reference.shape[1:3]) < SMALLEST_SIDE:
            notes.append(f"MS-SSIM needs pictures of {SMALLEST_SIDE} pixels a side.")
        comparison = Comparison(tuple(results), level, tuple(filter(None, notes)))
        report = aligned(comparison.to_markdown())
        image = side_by_side(pictures) if pictures else _call_chart(comparison)
        shown = ui.PreviewImage(image, cls=cls).as_dict() | ui.PreviewText(report).as_dict()
        outputs = (report, comparison.to_json(), image, comparison.passes)
        return io.NodeOutput(*outputs, ui=shown | _verdict(comparison))


def _verdict(comparison: Comparison) -> dict[str, list[dict]]:
    """Pass or fail, and the figure that it rests on."""
    values = {"level": comparison.level, "worst": f"{comparison.worst:.4f}"}
    if comparison.passes:
        return verdict("verdictPass", GOOD, **values)
    return verdict("verdictFail", BAD, **values)


def side_by_side(pictures: Sequence[Pictures]) -> torch.Tensor:
    """The pictures of all seeds as one IMAGE [N, H, 3 W, 3]: reference, quantized, difference."""
    rows = []
    for each in pictures:
        difference = (each.quantized - each.reference).abs() * DIFFERENCE_GAIN
        rows.append(torch.cat((each.reference, each.quantized, difference.clamp(max=1)), dim=2))
    return torch.cat(rows)


def _call_chart(comparison: Comparison) -> torch.Tensor:
    bars = [
        Bar(f"call {call}, sigma {sigma:.3g}", relative, f"{relative:.4f}")
        for call, (sigma, relative, _) in enumerate(comparison.mean_call_errors(), start=1)
    ]
    return bar_chart("relative L2 of calls on the same inputs, mean over the seeds", bars)
