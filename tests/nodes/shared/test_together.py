"""The note about what does not fit together: read off the workflow and the headers of its files."""

import pytest
import torch
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("comfy")

MIB = 1024**2
CPU = torch.device("cpu")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """An encoder of 8 MiB, a VAE of 1 MiB and a checkpoint with both; a device of 20 MiB."""
    import comfy.model_management
    import folder_paths

    encoder = {"encoder.block.0.q.weight": torch.zeros(2048, 2048).bfloat16()}
    vae = {"decoder.conv_in.weight": torch.zeros(512, 1024, 1, 1).bfloat16()}
    save_file(encoder, tmp_path / "t5.safetensors")
    save_file(vae, tmp_path / "ae.safetensors")
    whole = {f"text_encoders.{k}": v for k, v in encoder.items()}
    whole |= {f"first_stage_model.{k}": v for k, v in vae.items()}
    whole["model.diffusion_model.x.weight"] = torch.zeros(8, 8).bfloat16()
    save_file(whole, tmp_path / "all.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"<html>")

    def full_path(folder, name):
        return str(tmp_path / name) if (tmp_path / name).is_file() else None

    monkeypatch.setattr(folder_paths, "get_full_path", full_path)
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda device: 20 * MIB)


def loader(**inputs):
    return {"class_type": "Loader", "inputs": inputs}


def notes(model_mib, *nodes):
    from graphquant.nodes.shared.together import together_notes

    prompt = {str(number): node for number, node in enumerate(nodes)}
    return together_notes(prompt, model_mib * MIB, CPU)


ENCODER, VAE = loader(clip_name1="t5.safetensors", type="flux"), loader(vae_name="ae.safetensors")


def test_what_does_not_fit_together_is_named_with_its_sizes(files):
    (note,) = notes(12, ENCODER, VAE)
    assert "text encoders 8.00 MiB, this model 12.00 MiB and VAE 1.00 MiB do not fit" in note
    assert note.endswith("Quantize Text Encoder makes the encoders smaller.")
    assert notes(11, ENCODER, VAE) == ()


def test_a_quantized_encoder_counts_as_what_it_becomes(files):
    quantize = {"class_type": "GQQuantizeTextEncoder", "inputs": {"method": "int8"}}
    assert notes(14, ENCODER, VAE, quantize) == ()
    (note,) = notes(16, ENCODER, VAE, quantize)
    assert "text encoders 4.01 MiB" in note and "Quantize Text Encoder makes" not in note


def test_a_checkpoint_holds_both(files):
    (note,) = notes(12, loader(ckpt_name="all.safetensors"))
    assert "text encoders 8.00 MiB" in note and "VAE 1.00 MiB" in note


@pytest.mark.parametrize(
    "node",
    [
        loader(clip_name="none.safetensors"),
        loader(clip_name="bad.safetensors"),
        loader(clip_name=["3", 0]),
        {"class_type": "Odd"},
    ],
    ids=["missing", "damaged", "linked", "no inputs"],
)
def test_what_is_not_known_is_not_counted(files, node):
    assert notes(30, node) == ()


def test_without_a_workflow_there_is_no_note(files):
    from graphquant.nodes.shared.together import together_notes

    assert together_notes(None, 99 * MIB, CPU) == ()
