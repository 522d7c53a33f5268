"""What the pack adds to ComfyUI's start: as few modules as its nodes' inputs need."""

import subprocess
import sys

import pytest

from lab.pack import ROOT

SCRIPT = """
import asyncio, sys
from lab.comfyui import import_comfyui
import_comfyui()
import comfy.sample, comfy.sd, server
from lab.pack import load_pack
pack = load_pack()
before = set(sys.modules)

async def start():
    extension = await pack.comfy_entrypoint()
    return [node.define_schema().node_id for node in await extension.get_node_list()]

nodes = asyncio.run(start())
print("found:", len(nodes), *sorted(set(sys.modules) - before))
"""
# Imported by the node that runs them.
LATER = (
    "nodes.bridge.loading.load_model",
    "nodes.bridge.loading.load_foreign",
    "nodes.bridge.measure.comparing",
    "nodes.bridge.measure.layer_report",
    "quant_core.measure.layer_table",
    "quant_core.storage.foreign",
    "quant_core.kernels.triton.decode",
    "quant_core.kernels.triton.products",
)


@pytest.fixture(scope="module")
def imported(comfy):
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (line,) = (line for line in process.stdout.splitlines() if line.startswith("found:"))
    count, *modules = line.split()[1:]
    assert int(count) >= 11
    return modules


@pytest.mark.parametrize("module", LATER)
def test_what_only_runs_later_is_imported_later(module, imported):
    assert f"graphquant.{module}" not in imported


def test_a_start_imports_few_modules_and_no_other_package(imported):
    """Each costs a millisecond or two."""
    ours = [module for module in imported if module.startswith("graphquant.")]
    assert 50 < len(ours) <= 150
    others = {module.partition(".")[0] for module in imported} - {"graphquant", "comfy_api"}
    assert others <= {"comfy", "comfy_extras"}, others
