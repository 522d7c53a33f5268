"""What the registry packs: the runtime files alone, and they are enough, under any folder name."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

from lab import workflows
from lab.pack import ROOT
from lab.sampling import relative_l2
from lab.server import Server
from lab.tiny_models import FLUX

# A space, a hyphen and a dot, as an unpacked release has one.
FOLDER = "my quant-pack-0.1"


def _tracked(*options: str) -> set[str]:
    command = ["git", "ls-files", "-z", *options]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if process.returncode:
        pytest.skip(f"only a git checkout tells what is packed: {process.stderr.strip()}")
    return {name for name in process.stdout.split("\0") if name}


@pytest.fixture(scope="module")
def archived():
    """The names in the archive: what git tracks, less what .comfyignore names."""
    return _tracked() - _tracked("--cached", "--ignored", "--exclude-from=.comfyignore")


def test_it_holds_the_runtime_files_and_what_a_user_reads(archived):
    assert {name.partition("/")[0] for name in archived} == {
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        "__init__.py",
        "example_workflows",
        "locales",
        "nodes",
        "pyproject.toml",
        "quant_core",
        "requirements.txt",
        "subgraphs",
        "web",
    }
    assert {"web/docs/GQQuantizeModel.md", "locales/zh/nodeDefs.json"} < archived


def test_scripts_leave_the_pages_body_and_head_to_others(archived):
    scripts = [name for name in archived if name.endswith(".js")]
    assert len(scripts) > 10
    for name in scripts:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"document\.(body|head)\b", text), name


def test_what_is_installed_is_said_once():
    tomllib = pytest.importorskip("tomllib", reason="Python reads TOML since 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "requirements.txt").read_text().split() == project["dependencies"]


@pytest.fixture(scope="module")
def packed_server(archived, tiny_flux_file, tmp_path_factory):
    """A server with the archive's files in that folder, without Triton."""
    base = tmp_path_factory.mktemp("packed")
    for name in archived:
        target = base / "unpacked" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    server = Server(base / "ComfyUI", FOLDER, pack=base / "unpacked")
    server.models.mkdir(parents=True)
    shutil.copy(tiny_flux_file, server.models)
    no_triton = base / "no_triton" / "triton.py"
    no_triton.parent.mkdir()
    no_triton.write_text("raise ImportError('as on Windows: no Triton')\n")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(no_triton.parent))
        server.start()
    yield server
    server.stop()


def _get(server: Server, path: str) -> str:
    with urllib.request.urlopen(server.url + path, timeout=60) as answer:
        return answer.read().decode()


def test_every_node_comes_from_the_folder_with_its_help(packed_server, archived):
    pages = sorted(Path(name).stem for name in archived if name.startswith("web/docs/GQ"))
    kinds = sorted({page for page in pages if f"web/docs/{page}.md" in archived})
    assert len(kinds) >= 7
    for kind in kinds:
        info = packed_server.object_info(kind)
        assert info["python_module"] == f"custom_nodes.{FOLDER}"
        assert info["search_aliases"] and info["category"] == "model/quantization"
        page = _get(packed_server, f"/extensions/{quote(FOLDER)}/docs/{kind}.md")
        # A page is called by the node's name; the formats after it are there to be searched for.
        assert page.startswith(f"# {info['display_name'].split(' (')[0]}\n")
        # ComfyUI's Info panel takes the folder's name up to the first dot.
        asked = FOLDER.partition(".")[0]
        assert _get(packed_server, f"/extensions/{quote(asked)}/docs/{kind}.md") == page


def test_quantize_model_is_found_by_the_words_that_users_search_for(packed_server):
    aliases = packed_server.object_info("GQQuantizeModel")["search_aliases"]
    assert {"fp8", "int8", "int4", "torchao", "quant", "low vram", "low memory"} <= set(aliases)


def test_scripts_templates_subgraphs_and_words_are_served(packed_server, archived):
    served = json.loads(_get(packed_server, "/extensions"))
    scripts = [path for path in served if "quant-pack" in path]
    assert len(scripts) == len([name for name in archived if name.endswith(".js")])
    assert all(" from " in _get(packed_server, path) for path in scripts if "graphquant.js" in path)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        _get(packed_server, f"/extensions/{quote(FOLDER)}/..%2Fpyproject.toml")
    templates = json.loads(_get(packed_server, "/workflow_templates"))[FOLDER]
    assert {f"example_workflows/{name}.json" for name in templates} < archived
    for name in templates:
        opened = f"/api/workflow_templates/{quote(FOLDER)}/{quote(name)}"
        assert json.loads(_get(packed_server, f"{opened}.json"))["nodes"]
    subgraphs = json.loads(_get(packed_server, "/global_subgraphs")).values()
    assert [each["name"] for each in subgraphs if FOLDER in each["info"]["node_pack"]]
    assert "graphquant" in json.loads(_get(packed_server, "/i18n"))["zh"]


@pytest.mark.parametrize("method", ["fp8-weight-only", "int8-dynamic", "int4"])
def test_it_quantizes_and_samples_there(packed_server, method):
    entry = packed_server.run({**workflows.both(FLUX, method)})
    latents = packed_server.latents(entry)
    error = relative_l2(latents[workflows.QUANTIZED], latents[workflows.PLAIN])
    assert 1e-4 < error < 0.10
    log = packed_server.log.read_text()
    assert "no Triton" in log and "Traceback" not in log
