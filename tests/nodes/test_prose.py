"""What users and readers are told: tooltips, descriptions and docstrings."""

import ast
import asyncio
import re

import pytest

from lab.pack import ROOT

# What ComfyUI's node classes define: its documentation says what they are.
CONTRACT = {"define_schema", "execute", "fingerprint_inputs", "on_load", "get_node_list"}


@pytest.fixture
def schemas(comfy):
    from graphquant.nodes.extension import GraphQuantExtension

    kinds = asyncio.run(GraphQuantExtension().get_node_list())
    return [kind.define_schema() for kind in kinds]


def test_every_input_and_output_has_a_tooltip_that_is_a_sentence_or_two(schemas):
    tooltips = {
        f"{schema.node_id}.{each.id or each.display_name}": each.tooltip or ""
        for schema in schemas
        for each in (*schema.inputs, *schema.outputs)
    }
    assert len(tooltips) > 60
    words = {name: len(tooltip.split()) for name, tooltip in tooltips.items()}
    assert {name: count for name, count in words.items() if not 3 <= count < 40} == {}
    assert [name for name, tooltip in tooltips.items() if not tooltip.endswith(".")] == []


def test_every_description_is_short(schemas):
    words = {schema.node_id: len(schema.description.split()) for schema in schemas}
    assert {name: count for name, count in words.items() if not 5 <= count <= 40} == {}


def public(body, above=""):
    """The public classes and functions of a module or class, by dotted name."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield f"{above}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{above}{node.name}.")


def test_every_public_name_of_the_nodes_says_in_its_first_sentence_what_it_is():
    """And not first what its arguments are ("layers: by name")."""
    silent, count = [], 0
    for path in sorted((ROOT / "nodes").rglob("*.py")):
        for name, node in public(ast.parse(path.read_text(encoding="utf-8")).body):
            count += 1
            said = ast.get_docstring(node) or ""
            starts_well = said and not re.match(r"[a-z_]+(, [a-z_]+)*: ", said)
            if not starts_well and node.name not in CONTRACT:
                silent.append(f"{path.relative_to(ROOT)}: {name}")
    assert count > 150 and silent == []
