"""The pictures of the node help: each node of the pack after a run on tiny models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .editor import Editor
from .examples.parts import node
from .miniature import MINIATURE, STEPS, VAE, install
from .pack import ROOT
from .server import Server
from .tiny_clips import CLIP_L, DEEP_T5XXL, T5XXL, deep_t5_file
from .tiny_controlnet import tiny_controlnet_file
from .ui_workflow import ui_workflow

HELP = ROOT / "web" / "docs"
MARGIN, LEFT, TOP = 24, 60, 100
NARROW, TALL = (340, 100), (440, 560)
SHORT, LONG = (460, 280), (460, 520)
LOADED = """() => {
    const shown = [...document.querySelectorAll("[data-node-id] img")]
    const waits = document.evaluate("//*[text()='Loading...']", document).iterateNext()
    return !waits && shown.every((each) => each.complete && each.naturalWidth)
}"""
SAVED = "flux1-dev-int8"
CONTROLNET = "flux-canny-controlnet.safetensors"


@dataclass(frozen=True)
class Picture:
    """prompt: in it "shown" is the node itself. size: the least of the node. text: the size
    of a Preview as Text beside it with its report, for a node whose panel has none."""

    prompt: dict
    size: tuple[int, int] = NARROW
    text: tuple[int, int] | None = None


LOAD = node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default")
QUANTIZE = node("GQQuantizeModel", model=["load", 0], method="int8")
PLAIN = {
    "load": node("UNETLoader", unet_name=MINIATURE.file, weight_dtype="default"),
    "positive": node("LabClassConditioning", digits="38"),
    "latent": node("EmptySD3LatentImage", width=64, height=64, batch_size=2),
}
DRAWN = {**PLAIN, "quantize": node("GQQuantizeModel", model=["load", 0], method="int4")}
SAMPLING = {
    "positive": ["positive", 0],
    "latent_image": ["latent", 0],
    "steps": STEPS,
    "cfg": 1.0,
    "sampler_name": "euler",
    "scheduler": "simple",
    "seed": 0,
}

# Saving comes before loading.
PICTURES = {
    "GQQuantizeModel": Picture({"load": LOAD, "shown": QUANTIZE}),
    "GQQuantizeVAE": Picture(
        {
            "vae": node("VAELoader", vae_name="ae.safetensors"),
            "shown": node("GQQuantizeVAE", vae=["vae", 0], method="int8", scope="decoder"),
        }
    ),
    "GQQuantizeControlNet": Picture(
        {
            "control": node("ControlNetLoader", control_net_name=CONTROLNET),
            "shown": node("GQQuantizeControlNet", control_net=["control", 0], method="int8"),
        }
    ),
    "GQQuantizeTextEncoder": Picture(
        {
            "clip": node("LabDualClip", clip_l=CLIP_L, t5xxl=T5XXL),
            "shown": node("GQQuantizeTextEncoder", clip=["clip", 0], method="int8"),
        }
    ),
    "GQLayerwiseFP8Cast": Picture(
        {"load": LOAD, "shown": node("GQLayerwiseFP8Cast", model=["load", 0], scaled=True)}
    ),
    "GQSaveQuantizedModel": Picture(
        {
            "load": LOAD,
            "quantize": QUANTIZE,
            "shown": node("GQSaveQuantizedModel", model=["quantize", 0], filename_prefix=SAVED),
        }
    ),
    "GQLoadQuantizedModel": Picture(
        {"shown": node("GQLoadQuantizedModel", unet_name=f"{SAVED}.safetensors")}
    ),
    "GQSaveQuantizedTextEncoder": Picture(
        {
            "clip": node("LabDualClip", clip_l=CLIP_L, t5xxl=DEEP_T5XXL),
            "quantize": node("GQQuantizeTextEncoder", clip=["clip", 0], method="int8"),
            "shown": node(
                "GQSaveQuantizedTextEncoder", clip=["quantize", 0], filename_prefix="flux"
            ),
        },
        text=SHORT,
    ),
    "GQFP8CapabilityCheck": Picture({"shown": node("GQFP8CapabilityCheck")}, text=LONG),
    "GQQuantizationConfig": Picture(
        {
            "shown": node(
                "GQQuantizationConfig",
                text='{"quant_method": "torchao",\n "quant_type": "int8wo",\n'
                ' "modules_to_not_convert": ["double_blocks.0"]}',
            )
        },
        (400, 240),
        text=SHORT,
    ),
    "GQCalibrateActivations": Picture(
        {**PLAIN, "shown": node("GQCalibrateActivations", model=["load", 0], **SAMPLING)},
        text=LONG,
    ),
    "GQMeasureSensitivity": Picture(
        {**PLAIN, "shown": node("GQMeasureSensitivity", model=["load", 0], **SAMPLING)},
        text=LONG,
    ),
    "GQQuantizationReport": Picture(
        {
            **DRAWN,
            "shown": node(
                "GQQuantizationReport",
                model=["quantize", 0],
                reference=["load", 0],
                **SAMPLING,
            ),
        },
        TALL,
        text=LONG,
    ),
    "GQCompareModels": Picture(
        {
            **DRAWN,
            "vae": node("VAELoader", vae_name=VAE.name),
            "shown": node(
                "GQCompareModels",
                reference=["load", 0],
                quantized=["quantize", 0],
                vae=["vae", 0],
                seeds=2,
                **SAMPLING,
            ),
        },
        TALL,
        text=LONG,
    ),
}


def help_pictures(running, server: Server) -> None:
    install(server.base / "models")
    tiny_controlnet_file(server.base / "models" / "controlnet" / CONTROLNET)
    deep_t5_file(server.base / "models" / "text_encoders")
    for kind, picture in PICTURES.items():
        # A page for each: it has the file that was just saved among its choices.
        editor = Editor(running, server, nodes2=True, size=(1060, 1000), scale=2)
        editor.execute("Workspace.ToggleFocusMode")
        _take(editor, kind, picture)
        editor.close()


def _take(editor: Editor, kind: str, picture: Picture) -> None:
    outputs = editor.server.object_info(picture.prompt["shown"]["class_type"])["output_name"]
    source = ["shown", outputs.index("report")]
    prompt = {**picture.prompt, "report": node("PreviewAny", source=source)}
    names = list(prompt)
    shown, report = names.index("shown") + 1, names.index("report") + 1
    editor.load(ui_workflow(prompt, editor.server.object_info))
    if editor.run() != "execution_success":
        raise RuntimeError(f"the picture of {kind}: its prompt did not run")
    framed = {shown: picture.size}
    if not picture.text:
        editor.panel(shown).locator(".graphquant-method").first.wait_for()
    else:
        framed[report] = picture.text
    editor.arrange(framed, LEFT, TOP)
    editor.page.wait_for_function(LOADED)
    _frame(editor, HELP / f"{kind}.png", list(framed))


def _frame(editor: Editor, file: Path, framed: list[int]) -> None:
    boxes = [editor.node_box(each) for each in framed]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    clip = {
        "x": left - MARGIN,
        "y": top - MARGIN,
        "width": right - left + 2 * MARGIN,
        "height": bottom - top + 2 * MARGIN,
    }
    editor.screenshot(file, clip=clip)
    print(f"wrote {file.relative_to(ROOT)}")
