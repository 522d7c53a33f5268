"""The pack as ComfyUI sees it: its list of nodes.

Tested by tests/nodes/test_start_up.py.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .calibrate_activations import GQCalibrateActivations
from .compare_models import GQCompareModels
from .fp8_capability_check import GQFP8CapabilityCheck
from .layerwise_fp8_cast import GQLayerwiseFP8Cast
from .load_quantized_model import GQLoadQuantizedModel
from .measure_sensitivity import GQMeasureSensitivity
from .quantization_config import GQQuantizationConfig
from .quantization_report import GQQuantizationReport
from .quantize_controlnet import GQQuantizeControlNet
from .quantize_model import GQQuantizeModel
from .quantize_text_encoder import GQQuantizeTextEncoder
from .quantize_vae import GQQuantizeVAE
from .routes import add_routes
from .save_quantized_model import GQSaveQuantizedModel
from .save_quantized_text_encoder import GQSaveQuantizedTextEncoder


class GraphQuantExtension(ComfyExtension):
    """The pack's nodes and server routes."""

    async def on_load(self) -> None:
        add_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            GQQuantizeModel,
            GQQuantizeVAE,
            GQLayerwiseFP8Cast,
            GQSaveQuantizedModel,
            GQLoadQuantizedModel,
            GQQuantizeTextEncoder,
            GQFP8CapabilityCheck,
            GQQuantizationReport,
            GQCompareModels,
            GQCalibrateActivations,
            GQQuantizationConfig,
            GQMeasureSensitivity,
            GQQuantizeControlNet,
            GQSaveQuantizedTextEncoder,
        ]
