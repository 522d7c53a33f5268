"""Measuring and saving nodes say on themselves what they found, not only in their outputs."""

import re

from lab import workflows
from lab.tiny_models import FLUX
from lab.ui_workflow import ui_workflow

SAMPLING = {
    "positive": ["condition", 0],
    "latent_image": ["empty", 0],
    "steps": 1,
    "cfg": 1.0,
    "sampler_name": "euler",
    "scheduler": "simple",
}
PLAIN, QUANTIZED = ["load", 0], [workflows.QUANTIZE, 0]
# What each says.
SAID = {
    "compare": r"\u2713 pass \(smoke\): worst latent L2 0\.0\d+",
    "check": r"\d+ of \d+ methods run natively on CPU\. Start with int8\.",
    "calibrate": r"\u2713 42 layers calibrated\. Largest activation: [\d.]+ in \S+\.",
    "report": r"Worst of 32 layers: \S+, error 0\.0\d+\.",
    "sensitivity": r"\u2713 \d+ layers measured\. Most sensitive: \S+, effect 0\.\d{4}\. "
    r"Kept in graphquant_sensitivity/\S+\.json\.",
    "save": r"\u2713 Saved diffusion_models/verdict-\w+\.safetensors: \d+\.\d MiB in the file\.\n"
    r"Load it with Load Diffusion Model\.",
}


def _prompt(name):
    shared = workflows.quantized(FLUX, "int8", seed=71)
    shared = {key: shared[key] for key in ("load", "condition", "empty", workflows.QUANTIZE)}
    nodes = {
        "compare": (
            "GQCompareModels",
            {
                "reference": PLAIN,
                "quantized": QUANTIZED,
                "negative": ["condition", 0],
                "seeds": 1,
                "level": "smoke",
                **SAMPLING,
            },
        ),
        "check": ("GQFP8CapabilityCheck", {}),
        "calibrate": ("GQCalibrateActivations", {"model": PLAIN, "rows": 0, **SAMPLING}),
        "report": ("GQQuantizationReport", {"model": QUANTIZED, "reference": PLAIN, **SAMPLING}),
        "sensitivity": ("GQMeasureSensitivity", {"model": PLAIN, **SAMPLING}),
        "save": ("GQSaveQuantizedModel", {"model": QUANTIZED, "filename_prefix": name}),
    }
    texts = {
        f"text_{key}": ("PreviewAny", {"source": [key, output]})
        for key, output in (("check", 2), ("calibrate", 1), ("sensitivity", 1))
    }
    made = {
        key: {"class_type": kind, "inputs": inputs}
        for key, (kind, inputs) in {**nodes, **texts}.items()
    }
    return {**shared, **made}


def _verdict(editor, node):
    return editor.panel(node).locator(".graphquant-verdict")


def test_each_says_what_it_found_and_a_changed_input_greys_it(editor, examples_server):
    name = f"verdict-{editor.renderer}"
    prompt = _prompt(name)
    editor.load(ui_workflow(prompt, examples_server.object_info))
    ids = {key: list(prompt).index(key) + 1 for key in prompt}
    idle = ["negative does nothing while cfg is 1."]
    for key in SAID:
        lines = editor.panel(ids[key]).inner_text().split("\n")
        assert lines == ["Not run yet.", *(idle if key == "compare" else [])]
    assert editor.run() == "execution_success"
    for key, expected in SAID.items():
        _verdict(editor, ids[key]).first.wait_for()
        said = "\n".join(_verdict(editor, ids[key]).all_inner_texts())
        assert re.fullmatch(expected, said), said
        assert "Not run yet." not in editor.panel(ids[key]).inner_text()
    saved = editor.panel(ids["save"]).inner_text()
    assert "in memory" in saved and "\u2192" not in saved
    # The loaders know the new file without a press of R.
    editor.page.wait_for_function(
        """([name]) => app.graph.nodes.find(({ type }) => type === "UNETLoader")
            .widgets[0].options.values.includes(`${name}.safetensors`)""",
        arg=[name],
    )
    editor.set_widget(ids["compare"], "steps", 2)
    stale = editor.panel(ids["compare"]).locator(".graphquant-last[data-stale]")
    stale.get_by_text("made with other inputs, run again").wait_for()
    editor.set_widget(ids["compare"], "steps", 1)
    stale.wait_for(state="detached")


def test_saving_again_says_that_nothing_was_written(editor, examples_server):
    prompt = _prompt(f"again-{editor.renderer}")
    prompt = {key: prompt[key] for key in ("load", workflows.QUANTIZE, "save")}
    examples_server.run(prompt)
    # So that the node runs, and does not show what ComfyUI kept.
    examples_server.forget()
    editor.load(ui_workflow(prompt, examples_server.object_info))
    assert editor.run() == "execution_success"
    line = _verdict(editor, 3).first
    line.wait_for()
    assert "is there already with these very bytes" in line.inner_text()
    assert "nothing was written" in line.inner_text()
