"""What a node hands to the graph and to its panel."""

import pytest

pytestmark = pytest.mark.usefixtures("comfy", "inference_mode")


def copied(output):
    """What the panel's "Copy report" puts on the clipboard."""
    return "\n\n".join(report["text"] for report in output.ui["graphquant"])


@pytest.mark.parametrize("method", ["int8", "none"])
def test_the_panel_copies_the_text_that_the_node_gives(flux_patcher, method):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    output = GQQuantizeModel.execute(flux_patcher, method)
    assert copied(output) == output[1] != ""


def test_the_panel_copies_the_text_of_all_encoders(clip):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder

    output = GQQuantizeTextEncoder.execute(clip, "int8")
    assert len(output.ui["graphquant"]) > 1
    assert copied(output) == output[1] and " MiB in all\n\n## " in output[1]
