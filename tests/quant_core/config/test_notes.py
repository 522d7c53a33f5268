"""What a dictionary says and what has no effect here is told, key by key."""

import pytest

from graphquant.quant_core import QuantConfig

# Every key of every class that changes nothing here, and how the note begins.
UNHEARD = [
    ({"load_in_8bit": True, "llm_int8_enable_fp32_cpu_offload": True}, "llm_int8_enable_fp32"),
    ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}, "bnb_4bit_compute_dtype"),
    ({"load_in_4bit": True, "bnb_4bit_quant_storage": "int8"}, "bnb_4bit_quant_storage"),
    ({"quant_type": "FP8", "disable_conv_quantization": True}, "disable_conv_quantization"),
    ({"quant_type": "FP8", "modelopt_config": {"quant_cfg": {}}}, "modelopt_config"),
    ({"quant_type": "INT8", "algorithm": "smoothquant"}, "algorithm smoothquant"),
    ({"quant_type": "INT8", "channel_quantize": 0, "block_quantize": 64}, "block_quantize 64"),
    ({"quant_type": "NF4", "channel_quantize": -1, "block_quantize": 32}, "block_quantize 32"),
    ({"quant_type": "NVFP4", "scale_block_quantize": 8}, "scale_block_quantize"),
    ({"quant_type": "NF4", "scale_channel_quantize": 0}, "scale_channel_quantize"),
    ({"quant_type": "INT4", "channel_quantize": -1}, "channel_quantize"),
    ({"quant_type": "FP8_INT8"}, "INT8 of quant_type"),
    ({"quant_type": "FP8", "forward_loop": print}, "forward_loop"),
    ({"quant_type": "int4wo", "inner_k_tiles": 8}, "inner_k_tiles"),
    ({"quant_type": "uint4wo", "use_hqq": True}, "use_hqq"),
]


@pytest.mark.parametrize(("values", "beginning"), UNHEARD, ids=lambda v: str(v)[:50])
def test_no_key_is_passed_over_in_silence(values, beginning):
    if "quant_type" in values:
        library = "modelopt" if values["quant_type"].isupper() else "torchao"
        values = {"quant_method": library, **values}
    (note,) = QuantConfig.from_dict(values).checked_meaning().notes
    assert note.startswith(beginning) and "no effect" in note
