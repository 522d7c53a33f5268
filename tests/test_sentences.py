"""What the server says and a panel shows is there in Chinese and Japanese: warnings, notes,
reasons, kernels and errors. The sentences are read off the pack's source."""

import ast
import json
import re

import pytest

from lab.pack import ROOT

TRANSLATIONS = ("zh", "ja")

# Where sentences stand that no panel shows: files and folders, and why.
ELSEWHERE = {
    "quant_core/cli/": "the command line",
    "quant_core/conversion/": "the command line",
    "quant_core/config/": "the node Quantization Config, which has no panel",
    "quant_core/presets/": "the sources of presets",
    "quant_core/measure/": "the text output",
    "quant_core/report.py": "the text output",
    "quant_core/rounding/outcome.py": "the text output",
    "quant_core/carriers/": "Python",
    "quant_core/applying/": "Python",
    "quant_core/calibration/observe.py": "Python",
    "quant_core/fit/recipe.py": "Python",
    "quant_core/__init__.py": "Python",
    "quant_core/layers.py": "Python",
    "quant_core/kernels/dispatch.py": "signatures of operators",
    "quant_core/kernels/race.py": "keys of a table on disk",
    "quant_core/kernels/weight_only.py": "keys of a table on disk",
    "quant_core/methods/method.py": "for whoever adds a method",
    "quant_core/fit/knapsack.py": "Python",
    "nodes/bridge/files/estimates.py": "an answer of the server",
    "nodes/bridge/files/file_report.py": "a node's name",
    "nodes/bridge/lora/search.py": "the log",
    "nodes/bridge/measure/latent_effects.py": "the text output",
    "nodes/bridge/tensor/placeholder.py": "a fault of the pack's own",
    "nodes/capability/": "the text output",
    "nodes/shared/bar_chart.py": "a picture",
    "nodes/shared/fit_chart.py": "a picture",
    "nodes/shared/node_inputs.py": "tooltips",
    "nodes/shared/sampling_inputs.py": "tooltips",
    "nodes/quantization_config.py": "a node without a panel",
    "nodes/compatibility.py": "the log",
}
# What of these a panel shows all the same.
SHOWN = {
    "quant_core/applying/component.py",
    "quant_core/applying/quantize_plan.py",
    "quant_core/config/defaults.py",
    "quant_core/measure/pictures.py",
}
# Functions and variables that hold a node's schema, the text output, a chart or a name, or check
# what Python gives.
NOT_FOR_A_PANEL = re.compile(
    r"define_schema|_METHODS|PROMPTS|\w*TOOLTIP|LOADERS|loader"
    r"|to_markdown|describe|announced|summary|(_count)?_?facts|_left_out|_notes|report|total|told"
    r"|_headline|headline|_call_chart|draw|title|reasons|told"
    r"|__str__|__repr__|__post_init__|tell_progress|in_words|words_of"
)
CALLS = re.compile(r"log\.\w+|register_\w+|Method|Preset")
LINES_OF_TEXT = ("- ", "## ", "| ", "\n")
EXACTLY = {
    # Pieces of sentences that are in the tables as a whole.
    ", which cannot be read here",
    "; {} beyond the error of {}",
    " (assumed, to compare by)",
    "int8 x int8 matmul (",
    # Errors of Python's arguments, which no node gives.
    "calibration is {}. Give a Calibration, from observe or load_calibration.",
    "fit is {}. Give Fit(size=...), in bytes, or a Recipe.",
    "{} of {} is {}.",
    "Give a Calibration, from observe or load_calibration.",
    "Give the path as a text or a pathlib.Path.",
    "{} is {}. Give a function, or None.",
    "Give a Hardware, such as hardware_of('cuda').",
    "Give True or False.",
    "Give a Search, such as Search(max_error=0.02).",
    "rows {} to {} are not in groups of {}",
    # Words of the table of layers, and what stands in the text output or the log.
    "stack of matrices",
    "No reference is connected: errors were not measured.",
    "about {} left",
    "{}\n- read from {}",
    "{} steps of {}, {}, cfg {}.",
    "MS-SSIM needs pictures of {} pixels a side.",
    "the model has no Linear layer",
}
# Too short to be told from names; the plan's own.
SHORT = (
    *("not included", "excluded by norm", "unchanged", "method none", "transformer filter: norm"),
    *("default: transformer = int8, per-row (built in: a.toml does not say).",),
    *("Unknown method 'int9'. Did you mean int8? Valid: int8, int4.", "line 3: no such key"),
    *("cpu x cpu matmul", "is 12 too long", "ComfyUI's own", "rotated by 256: K = 512"),
)


def _template(node):
    """A text with its values as {}; None for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        values = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        return "".join(values)
    return None


def _texts(node):
    """Every text below ``node`` that some panel may show."""
    named = getattr(node, "name", None) or getattr(node, "arg", None)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        named = ast.unparse(target)
    if named and NOT_FOR_A_PANEL.fullmatch(named):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # a docstring
        return
    if isinstance(node, ast.Call) and CALLS.fullmatch(ast.unparse(node.func)):
        return
    text = _template(node)
    if text is not None:
        yield text
        return
    for child in ast.iter_child_nodes(node):
        yield from _texts(child)


def _is_sentence(text):
    words = re.findall(r"[A-Za-z']{2,}", text)
    return len(words) >= 2 and len(text.split()) >= 3 and not text.startswith(LINES_OF_TEXT)


def _sentences():
    for folder in ("quant_core", "nodes"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            if name.startswith(tuple(ELSEWHERE)) and name not in SHOWN:
                continue
            for text in _texts(ast.parse(file.read_text(encoding="utf-8"))):
                if _is_sentence(text):
                    yield name, text


def _said(language):
    file = ROOT / "locales" / language / "main.json"
    return json.loads(file.read_text(encoding="utf-8"))["graphquant_said"]


def _pattern(template):
    """As web/said.js reads a template."""
    return re.compile(re.sub(r"\\\{\w+\\\}", "(.*?)", re.escape(template)), re.DOTALL)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_sentence_that_a_panel_can_show_is_translated(language):
    patterns = [_pattern(template) for template in _said(language)]
    missing = [
        (name, text)
        for name, text in _sentences()
        if text not in EXACTLY and not any(pattern.fullmatch(text) for pattern in patterns)
    ]
    assert missing == []


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_short_ones_are_translated_too(language):
    patterns = [_pattern(template) for template in _said(language)]
    assert [text for text in SHORT if not any(each.fullmatch(text) for each in patterns)] == []


def test_both_languages_have_the_same_sentences_with_their_values():
    chinese, japanese = map(_said, TRANSLATIONS)
    assert list(chinese) == list(japanese)
    for said in (chinese, japanese):
        for template, translation in said.items():
            values = re.findall(r"\{\w+\}", template)
            assert sorted(re.findall(r"\{\w+\}", translation)) == sorted(values), template
            assert len(set(values)) == len(values), template


def test_what_is_excepted_exists():
    """An exception for a sentence or file that is gone goes too."""
    texts = {text for _, text in _sentences()}
    assert EXACTLY - texts == set()
    assert [name for name in (*ELSEWHERE, *SHOWN) if not (ROOT / name).exists()] == []
