"""Quantization Config on a live server: one text decides what Quantize Model does."""

import pytest

from lab import workflows
from lab.server import PromptError
from lab.tiny_models import FLUX


def prompt(text):
    config = {"class_type": "GQQuantizationConfig", "inputs": {"text": text}}
    return {**workflows.quantized(FLUX, "int8", config=["config", 0]), "config": config}


def test_the_text_decides_the_method(server):
    text = '{"quant_method": "torchao", "quant_type": "int4wo"}'
    entry = server.run(prompt(text))
    report = entry["outputs"][workflows.QUANTIZE]["graphquant"][0]
    assert report["method"] == "int4"
    assert server.latents(entry)[workflows.QUANTIZED].isfinite().all()


def test_a_fault_reaches_the_user_with_line_and_column(server):
    with pytest.raises(PromptError, match=r"Line 2, column 16, at \"int4w\"\}: Unknown quant_type"):
        server.run(prompt('{"quant_method": "torchao",\n "quant_type": "int4w"}'))
