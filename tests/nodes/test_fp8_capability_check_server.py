"""Capability Check as a user runs it: over the HTTP API of a real ComfyUI server."""

import pytest
import torch

from lab.tiny_models import FLUX


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def check(**inputs):
    return {
        "check": node("GQFP8CapabilityCheck", **inputs),
        "fp8": node("PreviewAny", source=["check", 0]),
        "method": node("PreviewAny", source=["check", 1]),
        "report": node("PreviewAny", source=["check", 2]),
    }


def cached(entry):
    """The ids of the nodes that were not run again."""
    for event, details in entry["status"]["messages"]:
        if event == "execution_cached":
            return set(details["nodes"])
    return set()


def test_the_node_runs_alone(server):
    entry = server.run({"check": node("GQFP8CapabilityCheck")})
    (answer,) = entry["outputs"]["check"]["capability"]
    assert answer["machine"]["versions"]["torch"] == torch.__version__
    assert answer["benchmark"] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="the server runs on a GPU")
def test_its_three_outputs_answer_for_the_server_s_cpu(server):
    outputs = server.run(check())["outputs"]
    assert outputs["fp8"]["text"][0].lower() == "false"
    assert outputs["method"]["text"] == ["int8"]
    assert outputs["report"]["text"][0].startswith("Use int8 on this machine")


def test_a_quantized_model_is_benchmarked_by_its_shapes_once(server):
    prompt = {
        "load": node("UNETLoader", unet_name=FLUX.file, weight_dtype="default"),
        "quantize": node("GQQuantizeModel", model=["load", 0], method="int4"),
        **check(model=["quantize", 0], benchmark=True),
    }
    entry = server.run(prompt)
    (answer,) = entry["outputs"]["check"]["capability"]
    first = answer["benchmark"][0]  # the shape that costs the model most
    assert (first["shape"], first["layers"]) == ([1792, 256], 4)
    assert {"bf16", "int8"} <= set(first["seconds"])
    assert "check" in cached(server.run(prompt))
    prompt["check"]["inputs"]["benchmark"] = False
    entry = server.run(prompt)
    assert "check" not in cached(entry)
    assert entry["outputs"]["check"]["capability"][0]["benchmark"] == []


def test_the_node_describes_itself(server):
    info = server.object_info("GQFP8CapabilityCheck")
    assert info["display_name"] == "Capability Check (FP8, INT8, INT4)"
    assert info["category"] == "model/quantization"
    assert info["input"].get("required", {}) == {}
    assert list(info["input"]["optional"]) == ["model", "benchmark"]
    assert info["input"]["optional"]["benchmark"][1]["default"] is False
    assert all(len(options[1]["tooltip"]) > 20 for options in info["input"]["optional"].values())
    assert info["output"] == ["BOOLEAN", "STRING", "STRING"]
    assert info["output_name"] == ["fp8_supported", "recommended_method", "report"]
