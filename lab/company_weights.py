"""Stock nodes that save, merge, extract, train or read weights, run on quantized models.

    python -m lab.company_weights [--rows ControlNet Extract]

Each row is a stock node on the tiny Flux (SD 1.5 for ControlNets), each column what it is given; a
figure is the relative L2 difference from the same node on the plain model with the same LoRA, of
saved files from the quantized model itself. The table goes to docs/company.md, between its marks;
with ``--rows`` only those lines are run anew whose name has one of the words.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from .comfyui import import_comfyui
from .company import LoraLoaderModelOnly, ModelMergeAdd, ModelMergeSimple, lora
from .pack import ROOT, load_pack
from .sampling import relative_l2, sample
from .tiny_controlnet import sd15_control
from .tiny_models import FLUX, SD15, tiny_flux, tiny_sd15

PAGE = ROOT / "docs" / "company.md"
START, END = "<!-- weights -->\n", "<!-- /weights -->\n"
LAYER = "double_blocks.0.img_attn.qkv"


def quantized(model, method: str):
    from graphquant.nodes.layerwise_fp8_cast import GQLayerwiseFP8Cast
    from graphquant.nodes.quantize_model import GQQuantizeModel

    if method == "layerwise cast":
        return GQLayerwiseFP8Cast.execute(model=model, storage_dtype="float8_e4m3fn")[0]
    return GQQuantizeModel.execute(model=model, method=method)[0]


COLUMNS: dict[str, Callable] = {
    method: lambda model, method=method: quantized(model, method)
    for method in ("int8", "fp8-weight-only", "fp8-dynamic", "int4", "nf4")
}
COLUMNS["int8, LoRA after"] = lambda model: LoraLoaderModelOnly(quantized(model, "int8"))
COLUMNS["layerwise cast"] = lambda model: quantized(model, "layerwise cast")


def flux(model) -> torch.Tensor:
    return sample(model, FLUX, steps=2)


def unet_latent(model) -> torch.Tensor:
    return sample(model, SD15, steps=1)


def saved(node: str) -> Callable:
    """How far what stock loads from the file of ``node`` is from the model that was saved."""

    def run(model, plain) -> str:
        import comfy.sd
        from comfy_extras import nodes_model_merging

        with tempfile.TemporaryDirectory() as folder:
            writer = getattr(nodes_model_merging, node)()
            writer.output_dir = folder
            options = {"clip": None, "vae": None} if node == "CheckpointSave" else {}
            writer.save(model, filename_prefix="saved", **options)
            file = next(Path(folder).glob("saved*"))
            found = flux(comfy.sd.load_diffusion_model(str(file)))
            size = file.stat().st_size / 2**20
        return f"{relative_l2(found, flux(model)):.2%}, {size:.1f} MiB"

    return run


def merged(node: Callable) -> Callable:
    def run(model, plain) -> str:
        return f"{relative_l2(flux(node(model)), flux(node(plain))):.2%}"

    return run


def saved_merge(model, plain) -> str:
    return saved("ModelSave")(ModelMergeSimple(model), plain)


def extracted(model, plain) -> str:
    """The cosine of the extracted LoRA with the one that was added."""
    from comfy_extras.nodes_lora_extract import LORAType, calc_lora_model
    from comfy_extras.nodes_model_merging import ModelSubtract

    difference = ModelSubtract().merge(LoraLoaderModelOnly(model), model, 1.0)[0]
    block, name = LAYER.rsplit(".", 1)
    prefix = f"diffusion_model.{block}."  # a singular value decomposition of each layer is slow
    found = calc_lora_model(difference, 4, prefix, prefix, {}, LORAType.STANDARD)
    true = lora(model)
    products = [
        (
            of[f"{prefix}{name}.lora_up.weight"].float()
            @ of[f"{prefix}{name}.lora_down.weight"].float()
        )
        for of in (found, true)
    ]
    return f"cosine {torch.cosine_similarity(*(p.flatten() for p in products), 0):.4f}"


def controlled(kind: str) -> Callable:
    def run(model, plain) -> str:
        results = [sample(m, SD15, steps=1, control=sd15_control(m, kind)) for m in (model, plain)]
        return f"{relative_l2(*results):.2%}"

    return run


FLUX_ROWS = {
    "ModelSave": saved("ModelSave"),
    "CheckpointSave": saved("CheckpointSave"),
    "ModelMergeSimple, a LoRA in the other half": merged(ModelMergeSimple),
    "ModelMergeSubtract and ModelMergeAdd": merged(ModelMergeAdd),
    "ModelMergeSimple, then ModelSave": saved_merge,
    "Extract and Save LoRA": extracted,
}
SD15_ROWS = {
    "Apply ControlNet, a Control-LoRA (SD 1.5)": controlled("Control-LoRA"),
    "Apply ControlNet, of differences (SD 1.5)": controlled("difference"),
}


def line(name: str, node: Callable, plain, run: Callable, columns) -> str:
    before, cells = run(plain), []
    for column, make in columns.items():
        if "LoRA" in column and name in SD15_ROWS:
            cells.append("not run")  # the LoRA is of the Flux
            continue
        try:
            model = make(plain)
            other = LoraLoaderModelOnly(plain) if "LoRA" in column else plain
            kept = run(model)
            cells.append(node(model, other))
            assert torch.equal(run(model), kept), f"{name} changed its input"
        except Exception as error:  # whatever a node raises belongs into the table
            cells.append(f"refused: {str(error).splitlines()[0]}")
        print(name, column, cells[-1], flush=True)
    assert torch.equal(run(plain), before), f"{name} changed the plain model"
    return f"| {name} | {' | '.join(cells)} |"


def lines_of(rows: list[str]) -> Iterator[tuple[str, str]]:
    """The names and lines of those of ``rows``, each as soon as it was run."""
    import comfy.sd

    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        if any(name in FLUX_ROWS for name in rows):
            path = tiny_flux(Path(folder) / FLUX.file, hidden=256)
            model = comfy.sd.load_diffusion_model(str(path))
        if any(name in SD15_ROWS for name in rows):
            unet = comfy.sd.load_diffusion_model(str(tiny_sd15(Path(folder) / SD15.file)))
        for name in rows:
            if name in FLUX_ROWS:
                yield name, line(name, FLUX_ROWS[name], model, flux, COLUMNS)
            else:
                yield name, line(name, SD15_ROWS[name], unet, unet_latent, COLUMNS)


def write(name: str, line: str) -> None:
    """Put ``line`` into the table of the page, in the place of the line of that name."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START)
    table, after = rest.split(END)
    lines = table.splitlines()
    at = [i for i, old in enumerate(lines) if old.startswith(f"| {name} |")]
    lines[at[0] if at else len(lines) :] = [line, *(lines[at[0] + 1 :] if at else [])]
    PAGE.write_text(before + START + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", nargs="*", default=[""], help="words of the rows' names")
    words = parser.parse_args().rows
    import_comfyui()
    load_pack()
    chosen = [n for n in (*FLUX_ROWS, *SD15_ROWS) if any(word in n for word in words)]
    for name, made in lines_of(chosen):
        write(name, made)


if __name__ == "__main__":
    main()
