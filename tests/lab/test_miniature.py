"""The trained miniature: ComfyUI reads its files, and its pictures are what was asked for."""

from dataclasses import replace

import pytest
import torch

from lab import miniature
from lab.miniature import drawing, workflow
from lab.miniature.classifier import read
from lab.miniature.pictures import ITALIC, NIGHT, PAPER, digits, draw, style_score
from lab.nodes.classes import class_conditioning
from lab.sampling import relative_l2

DIGITS = "0123456789" * 2
ASKED = torch.tensor([int(digit) for digit in DIGITS])


@pytest.fixture(scope="module")
def drawn(comfy):
    """Pictures of DIGITS by name: "bf16" is the plain model, "italic" the one with its LoRA."""
    with torch.inference_mode():
        model, vae = drawing.load_transformer(), drawing.load_vae()
        return {
            name: drawing.decode(vae, drawing.sample_digits(patched, DIGITS))
            for name, patched in (
                ("bf16", model),
                ("half", drawing.in_italics(model, 0.5)),
                ("italic", drawing.in_italics(model)),
            )
        }


def test_the_committed_files_weigh_less_than_fifteen_megabytes():
    files = list(miniature.FOLDER.glob("*.safetensors"))
    assert len(files) == 5
    assert sum(file.stat().st_size for file in files) < 15e6


def test_comfyui_loads_the_transformer_as_flux_in_bf16(comfy, inference_mode):
    patcher = drawing.load_transformer()
    config = patcher.model.model_config.unet_config
    assert type(patcher.model).__name__ == "Flux"
    assert (config["hidden_size"], config["depth"], config["depth_single_blocks"]) == (128, 2, 4)
    assert 2e6 < sum(weight.numel() for weight in patcher.model.parameters()) < 5e6


def test_the_miniature_draws_the_digits_it_is_asked_for(drawn):
    assert drawn["bf16"].shape == (20, 3, 64, 64)
    assert (read(drawn["bf16"]) == ASKED).sum() >= 19
    assert style_score(drawn["bf16"]).mean().abs() < 0.15


def test_another_digit_or_another_seed_is_another_picture(comfy, inference_mode):
    model = drawing.load_transformer()
    one, seven, other = (
        drawing.sample_digits(model, digit, seed) for digit, seed in (("1", 0), ("7", 0), ("1", 1))
    )
    assert relative_l2(seven, one) > 0.2
    assert relative_l2(other, one) > 0.2
    assert torch.equal(drawing.sample_digits(model, "1"), one)


def test_the_lora_slants_the_digits_and_keeps_them_readable(drawn):
    assert style_score(drawn["italic"]).mean() > 0.7
    assert (read(drawn["italic"]) == ASKED).sum() >= 16


def test_half_the_lora_slants_less_than_all_of_it(drawn):
    plain, half, full = (style_score(drawn[name]).mean() for name in ("bf16", "half", "italic"))
    assert plain + 0.1 < half < full - 0.1


def test_every_key_of_the_lora_finds_its_layer(comfy, inference_mode):
    patched = drawing.in_italics(drawing.load_transformer())
    assert len(patched.patches) == 24


def test_the_vae_gives_back_held_out_pictures(comfy, inference_mode):
    strokes, _ = digits(held_out=True)
    pictures = torch.cat([draw(strokes[:10], 64, style) for style in (PAPER, NIGHT)])
    vae = drawing.load_vae()
    assert vae.latent_channels == 16
    again = drawing.decode(vae, vae.encode(pictures.movedim(1, -1)))
    psnr = -10 * (again - pictures).square().mean().log10()
    assert psnr > 28


@pytest.mark.parametrize("style", [PAPER, NIGHT, ITALIC], ids=["paper", "night", "italic"])
@pytest.mark.parametrize("size", [64, 96])
def test_the_classifier_reads_digits_it_was_not_trained_on(style, size):
    strokes, labels = digits(held_out=True)
    assert len(labels) == 360
    with torch.inference_mode():
        assert (read(draw(strokes, size, style)) == labels).float().mean() > 0.98


@pytest.mark.parametrize("size", [64, 96])
def test_the_style_score_reads_the_slant_and_not_the_colours(size):
    strokes, _ = digits(held_out=True)
    upright, half, italic, dark = (
        style_score(draw(strokes, size, style)).mean().item()
        for style in (PAPER, replace(PAPER, slant=0.25), ITALIC, NIGHT)
    )
    assert italic - upright == pytest.approx(1, abs=0.02)
    assert half - upright == pytest.approx(0.5, abs=0.02)
    assert dark == pytest.approx(upright, abs=0.01)


def test_conditioning_has_a_row_a_digit_and_one_for_none():
    [[context, extras]] = class_conditioning("303")
    assert context.shape == (3, 4, 64)
    assert extras["pooled_output"].shape == (3, 64)
    assert torch.equal(context[0], context[2])
    assert not torch.equal(context[0], context[1])
    [[none, _]] = class_conditioning("")
    assert none.shape == (1, 4, 64)


def test_conditioning_of_something_else_than_digits_is_refused():
    with pytest.raises(ValueError, match="digits='4x': write 0 to 9 only"):
        class_conditioning("4x")


def test_a_server_draws_the_same_pictures_through_its_nodes(server, drawn):
    miniature.install(server.models.parent)
    entry = server.run(workflow.draw(DIGITS))
    pictures = server.pictures(entry)[workflow.SAVE_PICTURES]
    assert pictures.shape == (20, 3, 64, 64)
    assert (pictures - drawn["bf16"].cpu()).abs().max() < 0.01
    entry = server.run(workflow.draw(DIGITS, "int8", lora=True))
    pictures = server.pictures(entry)[workflow.SAVE_PICTURES]
    assert (read(pictures) == read(drawn["italic"])).sum() >= 19
    change = style_score(pictures).mean() - style_score(drawn["italic"]).mean()
    assert abs(change.item()) < 0.02
