"""ComfyUI recognises every architecture by the names that we save, or saving is refused."""

import json

import pytest
import torch

from graphquant.quant_core import QuantizationError
from lab.architectures import TREES, UNLISTED_TREES, base_model

pytestmark = pytest.mark.usefixtures("comfy")

# ComfyUI reads these settings of LTX-2.3 from its file's metadata.
LTX23 = {
    "transformer": {
        "caption_proj_before_connector": True,
        "apply_gated_attention": True,
        "cross_attention_adaln": True,
    }
}
METADATA = {"ltx23": {"config": json.dumps(LTX23)}}
# Its original files carry names that ComfyUI's own module has not.
UNKNOWN = {"pixeldit"}
# Told apart by the values of a bias, which a tree without weights has not.
BY_VALUE = {"sd21"}


def require(model, metadata):
    from comfy.model_patcher import ModelPatcher

    from graphquant.nodes.bridge.saving.file_recognition import require_recognition
    from graphquant.nodes.bridge.saving.saved_tensors import model_tensors

    cpu = torch.device("cpu")
    require_recognition(model, model_tensors(ModelPatcher(model, cpu, cpu)), metadata)


@pytest.mark.parametrize("name", sorted((TREES | UNLISTED_TREES).keys() - UNKNOWN - BY_VALUE))
def test_the_names_that_are_saved_are_recognised(name):
    require(base_model(name), METADATA.get(name, {}))


@pytest.mark.parametrize("name", ["pixeldit", "ltx23"])
def test_a_model_that_would_not_be_recognised_is_refused(name):
    with pytest.raises(QuantizationError, match="ComfyUI would not recognise the saved file as"):
        require(base_model(name), {})


def test_a_model_of_another_kind_of_prediction_is_refused():
    from comfy.model_base import ModelType

    model = base_model("sd15")
    model.model_type = ModelType.V_PREDICTION_EDM
    with pytest.raises(QuantizationError, match=r"as this SD15 \(V_PREDICTION_EDM\)"):
        require(model, {})
