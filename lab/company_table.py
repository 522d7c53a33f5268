"""Run every node of ``lab.company`` before and after Quantize Model, and write what happened.

    python -m lab.company_table [--method int8]

GRAPHQUANT_COMFYUI names a ComfyUI; ``python3 dev.py`` fetches one. The table goes to
docs/company.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from .comfyui import import_comfyui
from .company import COMPANY, SAMPLED, UNET_COMPANY
from .pack import ROOT, load_pack
from .sampling import relative_l2, sample
from .tiny_controlnet import tiny_controlnet
from .tiny_models import FLUX, SD15, TinyModel, tiny_flux, tiny_sd15

TABLE = ROOT / "docs" / "company.md"
# ``lab.company_weights`` writes what stands from here to the ending.
WEIGHTS = "## Nodes that save"
INTRODUCTION = """# In company

What ComfyUI's own nodes do to a quantized model, and what Quantize Model does to a model they have
been at. Each row was run: a tiny {names} of seeded weights, `{method}`, 4 steps
(EasyCache: 8), ComfyUI {version} on the CPU. The figures are the relative L2 difference of the
sampled latent from the same node on the unquantized model; quantizing alone makes {errors}.
`python -m lab.company_table` writes this page anew, and `tests/nodes/test_company.py` fails where a
figure passes three times the error of quantizing alone in the same run, or where a node changes
nothing. Only the two nodes for several GPUs have nothing to do here. Cfg is 1, or 3 where a node
guides by a negative prompt; quantizing alone changes about twice as much at cfg 3.

| node | what the node itself changes | after Quantize Model | before Quantize Model |
|---|---|---|---|
"""
ENDING = """
Not in the table, with tests of their own:

- **TorchCompileModel** and block-wise compiling as in KJNodes (`test_compile.py`): the same output,
  as many graphs and breaks as without quantizing, no recompilation for a seed or a LoRA's strength.
  Before Quantize Model, the quantized model is compiled in the original's place; a compiled module
  that lies in the object patches is refused in words (`test_rebinding.py`).
- **LoRA hooks** (`test_hooks.py`): scheduled strengths act as on the plain model and leave nothing
  behind.
- **MultiGPU CFG Split** was run with one device, where it has nothing to split. A second GPU's copy
  is made from the quantized model (`test_dynamic_patcher.py`, on a CPU).
- **ModelSave**, CheckpointSave, CLIPSave, VAESave ([saving.md](saving.md)): the file holds what the
  model computes, LoRA included (`test_stock_saving.py`, every method).
"""


def row(name: str, node: Callable, run: Callable, model, quantize: Callable) -> str:
    """One line of the table; an error is written down as what happened."""
    plain, expected = run(model), run(node(model))
    figures = [f"{relative_l2(expected, plain):.1%}"]
    for chain in (lambda: node(quantize(model)), lambda: quantize(node(model))):
        try:
            figures.append(f"{relative_l2(run(chain()), expected):.2%}")
        except Exception as error:  # whatever a node raises belongs into the table
            figures.append(f"refused: {str(error).splitlines()[0]}")
    return f"| {name} | {' | '.join(figures)} |"


def rows(folder: Path, method: str, errors: list[str]) -> Iterator[str]:
    """The lines, and in ``errors`` what quantizing alone changes, by architecture."""
    import comfy.sd

    from graphquant.nodes.quantize_model import GQQuantizeModel

    def quantize(model):
        return GQQuantizeModel.execute(model=model, method=method)[0]

    def load(tiny: TinyModel, write: Callable):
        model = comfy.sd.load_diffusion_model(str(write(folder / tiny.file)))
        run = partial(sample, tiny=tiny)
        return model, run, relative_l2(run(quantize(model)), run(model))

    flux, run, error = load(FLUX, partial(tiny_flux, hidden=256))
    errors.append(f"{error:.2%} (Flux)")
    for name, node in COMPANY.items():
        yield row(name, node, partial(run, **SAMPLED[name]), flux, quantize)
    control = tiny_controlnet()
    steered = partial(sample, tiny=FLUX, control=control)
    expected, plain = steered(flux), run(flux)
    figures = (
        f"{relative_l2(expected, plain):.1%} | {relative_l2(steered(quantize(flux)), expected):.2%}"
    )
    yield f"| ControlNetApplyAdvanced (a ControlNet of XLabs' kind) | {figures} | not a MODEL |"
    unet, run, error = load(SD15, partial(tiny_sd15, widths=(1, 2)))
    errors.append(f"{error:.2%} (SD 1.5)")
    for name, node in UNET_COMPANY.items():
        yield row(f"{name} (SD 1.5)", node, partial(run, **SAMPLED[name]), unet, quantize)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", default="int8")
    method = parser.parse_args().method
    import_comfyui()
    load_pack()
    from comfyui_version import __version__ as version

    torch.set_num_threads(2)
    errors: list[str] = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        lines = list(rows(Path(folder), method, errors))
    introduction = INTRODUCTION.format(
        names="Flux (or SD 1.5)", method=method, version=version, errors=", ".join(errors)
    )
    page = TABLE.read_text(encoding="utf-8")
    weights = page[page.index(WEIGHTS) : page.index(ENDING.strip().partition("\n")[0])]
    table = "\n".join(lines)
    TABLE.write_text(f"{introduction}{table}\n\n{weights}{ENDING.lstrip()}", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
