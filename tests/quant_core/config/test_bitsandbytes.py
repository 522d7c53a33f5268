"""bitsandbytes' dictionary, as diffusers writes it."""

import torch

from graphquant.quant_core import BitsAndBytesConfig


def test_dtypes_may_be_torchs_own():
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    assert config.bnb_4bit_compute_dtype is torch.bfloat16
    assert config.bnb_4bit_quant_storage is torch.uint8
    assert config == BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype="torch.bfloat16")


def test_the_dictionary_of_bitsandbytes_is_diffusers_own():
    """As BitsAndBytesConfig(load_in_4bit=True).to_dict() of diffusers 0.42 gives it."""
    assert BitsAndBytesConfig(load_in_4bit=True).to_dict() == {
        "quant_method": "bitsandbytes",
        "_load_in_8bit": False,
        "_load_in_4bit": True,
        "llm_int8_threshold": 6.0,
        "llm_int8_skip_modules": None,
        "llm_int8_enable_fp32_cpu_offload": False,
        "llm_int8_has_fp16_weight": False,
        "bnb_4bit_quant_type": "fp4",
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_compute_dtype": "float32",
        "bnb_4bit_quant_storage": "uint8",
        "load_in_4bit": True,
        "load_in_8bit": False,
    }
