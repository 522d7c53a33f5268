"""The page docs/presets.md, made from the presets, the measured sizes and the names of diffusers.

    python -m lab.presets_page

writes it anew; ``python -m benchmarks.coverage`` before that, where a list of layers was changed.
Tested by tests/lab/test_presets_page.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from .diffusers_names import NAMES
from .pack import ROOT, load_pack

PAGE = ROOT / "docs" / "presets.md"
SIZES = ROOT / "benchmarks" / "results" / "coverage.json"
# Bits a weight, scales included, of the methods that the columns stand for.
SIX, FOUR = 6.51, 4.25

HEAD = """# What stays in full precision

<!-- Written by `python -m lab.presets_page`: change the data, not this page. -->

The input `preset` of Quantize Model and Quantize Text Encoder says which layers of an
architecture are kept. On `auto` it is the architecture's own; a model without one gets
`generic`: the Linears of its repeated blocks are quantized and nothing else. `none` leaves it to
the component's filter alone, as `quant_core.quantize_component` does unless a `preset` is named.

Before any preset the component's filter keeps, of a transformer, everything named after a norm;
of a text encoder also `embed_tokens`, `lm_head` and `rotary_emb`. After it come `include` and
`exclude`. The nodes and the command line let embeddings of 16 million weights or more pass, and
store them in INT8 by any method: `embed_tokens` (or T5's `shared`) in `exclude` keeps them.

Why these layers: **embedders** (`*_in`, `*embedder`) are what all blocks build on; **time and
modulation** layers scale every activation of a block; **final layers** draw the picture.
Together they are small: of FLUX.1 0.6 % of the bytes, of Z-Image 2.3 %. Where they are not, as
with the modulation of FLUX.1, they are quantized unless you choose a `_quality` preset.

## Diffusion models

Patterns are whole parts of a layer's name in ComfyUI's model, or globs over the whole name.
*Kept* holds for every method. With fewer bits some layers are stored in INT8 instead, which
costs little: the columns say which, with 6-bit methods (`w6a8`, `int6`, `fp6`) and with 4-bit
ones (`nf4-fine`, `int4`, `nvfp4` and all of up to 5 bits). The source is where a list comes
from, not a measurement of this project.
"""

ENCODERS_HEAD = """
## Text encoders and ControlNets
"""

SIZES_HEAD = """
## How large a model is then

GiB in memory and in a file, by [module trees at their released
sizes](../benchmarks/results/coverage.md) in bf16, with the preset above and all else on `auto`.
`fp8-weight-only`, `fp8-dynamic`, `int8-dynamic` and `int8-convrot` weigh what `int8` does,
`nf4-fine` what `int4` does; `nf4` and `fp4` weigh what `nvfp4` does. In UNets whose convolutions
hold a quarter of the bytes or more, `int8` takes those too.
"""

NAMES_HEAD = """
## The same layers in diffusers and vLLM-Omni

[Configurations](configs.md) of these libraries name layers as diffusers does. vLLM-Omni has
diffusers' names, but for layers that it joins: `to_qkv` is `to_q`, `to_k` and `to_v`,
`add_kv_proj` is `add_q_proj`, `add_k_proj` and `add_v_proj`, and Z-Image's `w13` is `w1` and
`w3`. Where a preset is not in the table, diffusers has no such model, or the names are
ComfyUI's. Names were compared with diffusers 0.42's own classes.
"""


def page() -> str:
    """The text of docs/presets.md."""
    from graphquant.quant_core.presets import ENCODER_PRESETS, PRESETS
    from graphquant.quant_core.presets.control import CONTROL

    kept = [_kept_row(each) for each in PRESETS.values()]
    others = [
        [_code([each.name]), each.title, _code(each.keep), each.source]
        for each in (*ENCODER_PRESETS.values(), CONTROL)
    ]
    header = ("preset", "models", "kept", "in INT8 at 6 bits", "in INT8 at 4 bits", "source")
    sizes = json.loads(SIZES.read_text())
    return "\n".join(
        [
            HEAD,
            *_table(header, kept),
            ENCODERS_HEAD,
            *_table(("preset", "models", "kept", "source"), others),
            SIZES_HEAD,
            *_sizes(sizes),
            NAMES_HEAD,
            *_table(("preset", "ComfyUI", "diffusers"), _names()),
            "",
        ]
    )


def _kept_row(preset) -> list[str]:
    kept = _code(preset.keep)
    if preset.only:
        kept = f"{kept}; all but " if kept else "all but "
        kept += _code(preset.only)
    raised = [[rule for rule in preset.raised if rule.bits >= bits] for bits in (SIX, FOUR)]
    sources = [f"In INT8: {rule.source}" for rule in raised[1]]
    return [
        _code([preset.name]),
        preset.title,
        kept,
        *(_code(pattern for rule in rules for pattern in rule.layers) or "-" for rules in raised),
        ". ".join([preset.source, *sources]),
    ]


def _sizes(rows: Sequence[dict]) -> list[str]:
    header = ("model", "preset", "Linears quantized", *rows[0]["gib"])
    cells = [
        [
            f"`{row['name']}`",
            f"`{row['preset']}`",
            f"{row['layers'][0]} of {row['layers'][1]}",
            *(f"{size:.2f}" for size in row["gib"].values()),
        ]
        for row in rows
    ]
    return _table(header, cells, numbers=1 + len(rows[0]["gib"]))


def _names() -> list[list[str]]:
    return [
        [_code([preset]), _code([ours]), _code(theirs)]
        for preset, names in NAMES.items()
        for ours, theirs in names.patterns.items()
        if theirs != (ours,)
    ]


def _code(patterns: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in patterns)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> list[str]:
    rules = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    return [f"| {' | '.join(row)} |" for row in (header, rules, *rows)]


if __name__ == "__main__":
    load_pack()
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
