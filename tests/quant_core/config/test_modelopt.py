"""ModelOpt: its blocks are formats, its loop a calibration."""

import pytest

from graphquant.quant_core import ConfigError, NVIDIAModelOptConfig, QuantConfig
from graphquant.quant_core.methods import named_method

BLOCKS = [
    ({"quant_type": "INT4", "block_quantize": 64}, "int4-g64"),
    ({"quant_type": "INT4", "block_quantize": 32}, "int4-g32"),
    ({"quant_type": "INT4"}, "INT4"),
    ({"quant_type": "FP8", "block_quantize": 128}, "fp8-block-1x128"),
    ({"quant_type": "FP8", "block_quantize": 64, "channel_quantize": 0}, "fp8-block-64x1"),
    ({"quant_type": "NF4", "block_quantize": 64}, "nf4-double"),
    ({"quant_type": "NVFP4", "block_quantize": 16}, "NVFP4"),
]


@pytest.mark.parametrize(("values", "method"), BLOCKS, ids=lambda v: str(v)[:60])
def test_modelopts_blocks_are_formats(values, method, normal):
    config = NVIDIAModelOptConfig(**{"channel_quantize": -1, **values})
    meaning = config.checked_meaning()
    assert meaning.method == method
    fmt = named_method(method).method.choose((256, 256), "per-row").format
    weight = normal(256, 256)
    block = values.get("block_quantize")
    if values["quant_type"] in ("INT4", "FP8", "NVFP4") and block:
        scales = fmt.quantize(weight).scale.numel()
        assert scales == 256 * 256 // block


def test_a_forward_loop_gives_fp8_activations_static_scales():
    config = NVIDIAModelOptConfig("FP8_FP8", weight_only=False, forward_loop=lambda model: None)
    assert config.checked_meaning().method == "fp8-static"
    assert config.to_dict()["forward_loop"] is None
    assert QuantConfig.from_dict(config.to_dict()).checked_meaning().method == "FP8_FP8"
    with pytest.raises(ConfigError, match=r"forward_loop is 3\. It has to be null: a function"):
        NVIDIAModelOptConfig("FP8_FP8", weight_only=False, forward_loop=3)
