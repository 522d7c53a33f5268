"""The editor's JSON says what the API prompt says."""

from lab import workflows
from lab.tiny_models import FLUX
from lab.ui_workflow import ui_workflow


def test_the_editors_json_holds_the_prompts_nodes_values_and_links(server):
    prompt = workflows.plain(FLUX, seed=3)
    workflow = ui_workflow(prompt, server.object_info)
    nodes = dict(zip(prompt, workflow["nodes"], strict=True))
    assert [node["type"] for node in nodes.values()] == [
        node["class_type"] for node in prompt.values()
    ]
    assert nodes["load"]["widgets_values"] == [FLUX.file, "default"]
    assert nodes["condition"]["widgets_values"] == [3, "fixed", 256, 32, 64, 3.5]
    sampler = nodes["sample_plain"]
    assert sampler["widgets_values"] == [3, "fixed", 4, 1.0, "euler", "simple", 1.0]
    origins = {
        socket["name"]: next(link[1] for link in workflow["links"] if link[0] == socket["link"])
        for socket in sampler["inputs"]
    }
    assert origins == {
        "model": nodes["load"]["id"],
        "positive": nodes["condition"]["id"],
        "negative": nodes["condition"]["id"],
        "latent_image": nodes["empty"]["id"],
    }
    assert len(nodes["condition"]["outputs"][0]["links"]) == 2


def test_a_link_into_an_input_of_any_type_has_its_origins_type(server):
    prompt = {
        "check": {"class_type": "GQFP8CapabilityCheck", "inputs": {}},
        "shown": {"class_type": "PreviewAny", "inputs": {"source": ["check", 2]}},
    }
    assert ui_workflow(prompt, server.object_info)["links"] == [[1, 1, 2, 2, 0, "STRING"]]
