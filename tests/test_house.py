"""The house's own rules: which room may know which, and how large a room may grow."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lab.pack import ROOT

NOT_OURS = {".git", ".venv", ".venv-newest", ".comfyui", ".demo", ".ruff_cache", "node_modules"}
COMFYUI = ("comfy", "comfy_api", "comfy_execution", "comfy_extras", "comfy_kitchen", "folder_paths")


def ours(pattern, under="."):
    paths = sorted((ROOT / under).rglob(pattern))
    return [path.relative_to(ROOT) for path in paths if not NOT_OURS & set(path.parts)]


def imports(path: Path) -> set[str]:
    """Dotted names of all imports of a file, wherever they stand, relative ones made absolute."""
    package = path.with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *filter(None, [node.module])))
            found |= {f"{stem}.{alias.name}" for alias in node.names}
    return {name.removeprefix("graphquant.") for name in found}


def leads_into(name: str, *rooms: str) -> bool:
    return any(f"{name}.".startswith(f"{room}.") for room in rooms)


def trespassers(under: str, *rooms: str, but: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{path}: {name}"
        for path in ours("*.py", under)
        for name in sorted(imports(path))
        if leads_into(name, *rooms) and not leads_into(name, *but)
    ]


def test_imports_are_read_absolute_and_relative():
    """The tests below would pass on nothing at all."""
    bridge = imports(Path("nodes/bridge/tensor/quantized_layer.py"))
    assert "quant_core.formats.QuantizedWeight" in bridge
    assert "quant_core.errors.NonFiniteWeightError" in imports(Path("quant_core/codes/extremes.py"))
    assert "comfy.ops" in bridge
    assert trespassers("nodes/bridge", "comfy") != []
    assert leads_into("nodes.bridge.tensor", "nodes") and not leads_into("nodesx", "nodes")


def test_quant_core_knows_neither_comfyui_nor_the_other_rooms():
    assert trespassers("quant_core", *COMFYUI, "nodes", "lab", "tests", "benchmarks") == []


def test_the_bridge_knows_quant_core_and_comfyui_and_no_node():
    assert trespassers("nodes/bridge", "nodes", but=("nodes.bridge", "nodes.capability")) == []


# Each room may import those before it in its list, and no other room of that list.
FLOORS = {
    "quant_core": (
        ("errors", "detect", "timing", "version"),
        ("patterns",),
        ("kernels", "presets"),
        ("codes",),
        ("formats", "hardware"),
        ("layers", "methods", "storage", "carriers", "sources"),
        ("machine", "calibration"),
        ("planning",),
        ("rounding",),
        ("fit",),
        ("config", "report"),
        ("applying", "measure"),
        ("conversion",),
        ("cli",),
    ),
    "nodes": (("compatibility", "capability"), ("bridge",), ("shared",)),
    "nodes/bridge": (
        ("architecture", "copying"),
        ("lora",),
        ("tensor",),
        ("files",),
        ("cache",),
        ("model",),
        ("loading", "measure"),
        ("saving",),
    ),
}


def rooms_of(house: str) -> dict[str, int]:
    """The floor of each room, counted from the ground."""
    return {room: number for number, rooms in enumerate(FLOORS[house]) for room in rooms}


@pytest.mark.parametrize("house", FLOORS)
def test_no_arrow_runs_up(house):
    floors, dotted, up = rooms_of(house), house.replace("/", "."), []
    for path in ours("*.py", house):
        room = path.relative_to(house).parts[0].removesuffix(".py")
        for name in imports(path):
            other = name.removeprefix(f"{dotted}.").partition(".")[0]
            leads_up = leads_into(name, dotted) and floors.get(other, -1) >= floors.get(room, 99)
            if leads_up and other != room:
                up.append(f"{path}: {name}")
    assert up == []


@pytest.mark.parametrize("house", ["quant_core", "nodes/bridge"])
def test_every_room_has_its_floor(house):
    found = {path.name.removesuffix(".py") for path in (ROOT / house).iterdir()}
    assert set(rooms_of(house)) == found - {"__init__", "__pycache__"}


MANY = {Path("nodes"), Path("quant_core/formats")}


@pytest.mark.parametrize("house", ["nodes", "quant_core"])
def test_a_folder_holds_at_most_13_files(house):
    """But for the nodes and the formats, which may be many."""
    count = Counter(path.parent for path in ours("*.py", house) if path.name != "__init__.py")
    assert {room: n for room, n in count.items() if n > 13 and room not in MANY} == {}


FORMATS = Path("quant_core/formats")


def format_classes() -> set[str]:
    """The names of all concrete formats."""
    return {
        node.name
        for path in ours("*.py", FORMATS)
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.ClassDef)
        and "register_format" in map(ast.unparse, node.decorator_list)
    }


def asks_for_a_format(node: ast.AST, formats: set[str]) -> bool:
    """Whether ``node`` decides by the class of a format: isinstance, type(x) is, case, dispatch."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
        asked = node.args[1:]
    elif isinstance(node, ast.Compare) and "type(" in ast.unparse(node):
        asked = node.comparators
    elif isinstance(node, ast.MatchClass):
        asked = [node.cls]
    elif isinstance(node, ast.FunctionDef) and any(
        ".register" in ast.unparse(decorator) for decorator in node.decorator_list
    ):
        asked = [*node.decorator_list, *(each.annotation for each in node.args.args[:1])]
    else:
        return False
    names = {each for part in asked if part for each in ast.walk(part)}
    return bool({each.id for each in names if isinstance(each, ast.Name)} & formats)


def test_a_question_for_a_format_is_seen_in_every_guise():
    guises = (
        "isinstance(fmt, (Int4, Int8))",
        "type(fmt) is Int8",
        "match fmt:\n case Int8(): pass",
        "@carry.register(Int8)\ndef _(fmt, weight): pass",
        "@carry.register\ndef _(fmt: Int8, weight): pass",
    )
    for guise in guises:
        assert any(asks_for_a_format(n, {"Int8"}) for n in ast.walk(ast.parse(guise))), guise
    made = "fmt = Int8(); isinstance(fmt, Format)"
    assert not any(asks_for_a_format(node, {"Int8"}) for node in ast.walk(ast.parse(made)))


@pytest.mark.parametrize("house", ["nodes", "quant_core"])
def test_nobody_outside_the_formats_asks_which_format_it_is(house):
    """What they need to know is a property or a method of Format, so that a format is one file."""
    formats = format_classes()
    assert {"Int8", "NVFP4", "GGUF"} <= formats
    asking = [
        f"{path}:{node.lineno}"
        for path in ours("*.py", house)
        if FORMATS not in path.parents
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if asks_for_a_format(node, formats)
    ]
    assert asking == []


@pytest.mark.parametrize("room", ["nodes", "quant_core"])
def test_what_ships_knows_nothing_of_what_tests_it(room):
    assert trespassers(room, "lab", "tests", "benchmarks", "dev", "pytest") == []


def test_dev_py_needs_the_standard_library_alone():
    top = {name.partition(".")[0] for name in imports(Path("dev.py"))}
    assert top <= sys.stdlib_module_names


def test_python_files_are_ascii():
    """Windows reads them as cp1252."""
    assert [path for path in ours("*.py") if not (ROOT / path).read_bytes().isascii()] == []


def test_no_room_is_larger_than_300_lines():
    sizes = {path: len((ROOT / path).read_text().splitlines()) for path in ours("*.py")}
    assert len(sizes) > 50
    assert {path: size for path, size in sizes.items() if size > 300} == {}


@pytest.mark.parametrize("room", ["nodes", "quant_core"])
def test_what_ships_prints_nothing_and_reads_no_environment(room):
    calls = [
        f"{path}: {text}"
        for path in ours("*.py", room)
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.Call | ast.Attribute)
        and (text := ast.unparse(node)).startswith(("print(", "os.environ", "os.getenv"))
    ]
    assert calls == []


IMPORT_QUANT_CORE = """
import sys
from lab.pack import load_pack
load_pack()
import graphquant.quant_core as core
for name in core.__all__:  # each imports the room that it lives in
    getattr(core, name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_importing_quant_core_imports_neither_comfyui_nor_torchao_and_prints_nothing():
    process = subprocess.run(
        [sys.executable, "-c", IMPORT_QUANT_CORE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stderr == ""
    (line,) = process.stdout.splitlines()
    imported = set(line.split())
    assert {"torch", "graphquant"} <= imported
    assert not imported & {*COMFYUI, "nodes", "torchao", "triton"}


def public_definitions(house: str):
    """(path, class or None, node) of every public class, function and method under ``house``."""
    for path in ours("*.py", house):
        for node in ast.parse((ROOT / path).read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                yield path, None, node
                for each in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
                        yield path, node, each


def undocumented(house: str) -> list[str]:
    """Public definitions without a docstring; a method may have it from a class it derives from."""
    definitions = list(public_definitions(house))
    bases = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for _, _, node in definitions
        if isinstance(node, ast.ClassDef)
    }
    told = {(cls.name, n.name) for _, cls, n in definitions if cls and ast.get_docstring(n)}

    def is_told(cls: str, name: str) -> bool:
        return (cls, name) in told or any(is_told(base, name) for base in bases.get(cls, ()))

    return [
        f"{path}: {node.name}"
        for path, cls, node in definitions
        if not (is_told(cls.name, node.name) if cls else ast.get_docstring(node))
    ]


@pytest.mark.parametrize("house", ["quant_core"])
def test_every_public_class_and_function_says_what_it_is(house):
    assert len(list(public_definitions(house))) > 100
    assert undocumented(house) == []
