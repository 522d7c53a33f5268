"""Defaults from graphquant.toml: as ComfyUI's nodes read them, in process and over HTTP."""

import os
import sys
from importlib import import_module

import pytest

from lab import workflows
from lab.server import PromptError
from lab.tiny_models import FLUX

pytestmark = [
    pytest.mark.usefixtures("comfy"),
    pytest.mark.skipif(
        sys.version_info < (3, 11), reason="Python has tomllib since 3.11, and so has this feature"
    ),
]

DEFAULT = "default (graphquant.toml)"


@pytest.fixture
def write(tmp_path):
    """``write(text)`` is the user's file; the user directory is this test's own."""
    import folder_paths

    before = folder_paths.get_user_directory()
    folder_paths.set_user_directory(str(tmp_path))

    def write_file(text, encoding="utf-8"):
        file = tmp_path / "graphquant.toml"
        previous = file.stat().st_mtime_ns if file.exists() else 0
        file.write_text(text, encoding)
        os.utime(file, ns=(previous + 10**9,) * 2)  # a clock may be coarser than this test
        return file

    yield write_file
    folder_paths.set_user_directory(before)


@pytest.fixture
def execute():
    from graphquant.nodes.quantize_model import GQQuantizeModel

    return lambda model, **options: GQQuantizeModel.execute(model=model, method=DEFAULT, **options)


def report_of(output):
    return output.ui["graphquant"][0]


def test_without_a_file_the_built_in_default_runs_and_says_so(flux_patcher, write, execute):
    output = execute(flux_patcher)
    assert report_of(output)["method"] == "int8"  # what auto chooses on a CPU
    assert "default: transformer = auto, per-row (built in: " in output[1]


def test_the_global_section_gives_method_and_granularity(flux_patcher, write, execute):
    file = write('[quantization]\ntransformer = "int8"\ntransformer_granularity = "per-tensor"\n')
    report = report_of(execute(flux_patcher))
    assert (report["method"], report["granularity"]) == ("int8", "per-tensor")
    assert f"default: transformer = int8, per-tensor ({file})." in report["notes"]


def test_the_granularity_of_the_node_counts_where_the_file_has_none(flux_patcher, write, execute):
    write('[quantization]\ntransformer = "int8"\n')
    assert report_of(execute(flux_patcher, granularity="per-tensor"))["granularity"] == "per-tensor"


def test_an_architecture_overrides_the_global_section(flux_patcher, wan_patcher, write, execute):
    write('[quantization]\ntransformer = "int8"\n[flux1]\ntransformer = "fp8-weight-only"\n')
    assert report_of(execute(flux_patcher))["method"] == "fp8-weight-only"
    assert report_of(execute(wan_patcher))["method"] == "int8"


def test_none_switches_one_architecture_off(flux_patcher, wan_patcher, write, execute):
    write('[quantization]\ntransformer = "int8"\n[flux1]\ntransformer = "none"\n')
    output = execute(flux_patcher)
    assert output[0] is flux_patcher
    assert report_of(output)["method"] == "none"
    assert report_of(execute(wan_patcher))["quantized_layers"] > 0


def test_inherit_is_not_none(flux_patcher, write, execute):
    write('[quantization]\ntransformer = "int8"\n[flux1]\ntransformer = "inherit"\n')
    assert report_of(execute(flux_patcher))["method"] == "int8"


def test_an_alias_is_resolved(flux_patcher, write, execute):
    write('[quantization]\ntransformer = "8bit"\n')
    report = report_of(execute(flux_patcher))
    assert (report["requested"], report["method"]) == ("8bit", "int8")


def test_a_method_in_the_node_is_meant_itself(flux_patcher, write):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    write('[quantization]\ntransformer = "nonsense"\n')
    assert report_of(GQQuantizeModel.execute(flux_patcher, "int8"))["method"] == "int8"


def test_the_file_is_read_again_when_it_changes_and_only_then(write):
    from graphquant.nodes.shared.method_choice import load_defaults

    write('[flux1]\nencoder = "int8"\n')
    first = load_defaults()
    assert load_defaults() is first
    write('[flux1]\nencoder = "none"\n')
    assert load_defaults().resolve("flux1")["encoder"].method == "none"


def test_a_removed_file_no_longer_counts(write):
    from graphquant.nodes.shared.method_choice import load_defaults

    write('[flux1]\nencoder = "none"\n').unlink()
    assert load_defaults().resolve("flux1")["encoder"].method == "auto"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[quantization]\n\ntransformer = "int9"\n', "line 3: Unknown value of transformer 'int9'"),
        ('[flux1]\ntransformer_method = "int8"\n', "line 2: Unknown key in [flux1] 'transformer_"),
        ('[flux9]\nvae = "none"\n', "line 1: Unknown section 'flux9'. Did you mean flux"),
        ("[flux1]\nvae = none\n", "Invalid value (at line 2, column 7)."),
    ],
)
def test_a_mistake_names_file_line_and_the_valid_words(flux_patcher, write, execute, text, words):
    file = write(text)
    with pytest.raises(ValueError) as error:
        execute(flux_patcher)
    assert str(error.value).startswith(f"{file}, {words}")


def test_a_preset_that_is_not_an_architecture_is_not_a_section(flux_patcher, write, execute):
    write('[flux1_quality]\ntransformer = "none"\n')
    with pytest.raises(ValueError, match="line 1: Unknown section 'flux1_quality'"):
        execute(flux_patcher)


def test_notepads_byte_order_mark_is_read_and_utf_16_refused(flux_patcher, write, execute):
    write('[quantization]\ntransformer = "none"\n', "utf-8-sig")
    assert report_of(execute(flux_patcher))["method"] == "none"
    write('[quantization]\ntransformer = "none"\n', "utf-16")
    with pytest.raises(ValueError, match=r"is not UTF-8 text\. Save it as UTF-8"):
        execute(flux_patcher)


@pytest.mark.usefixtures("inference_mode")
def test_the_text_encoder_follows_its_architecture(write, tmp_path):
    from graphquant.nodes.quantize_text_encoder import GQQuantizeTextEncoder
    from lab import tiny_clips
    from lab.nodes.clip import load_dual_clip

    clip = load_dual_clip(*tiny_clips.dual_clip_files(tmp_path))
    write('[quantization]\nencoder = "none"\n[flux1]\nencoder = "int8"\n[sd3]\nencoder = "int4"\n')
    parts = GQQuantizeTextEncoder.execute(clip, DEFAULT).ui["graphquant"]
    (t5,) = (part for part in parts if part["part"] == "t5xxl")
    assert t5["method"] == "int8"
    assert t5["quantized_layers"] > 0


@pytest.mark.usefixtures("inference_mode")
def test_the_vae_follows_every_architecture_that_shares_it(write, tmp_path):
    import comfy.sd
    import comfy.utils

    from graphquant.nodes.quantize_vae import GQQuantizeVAE
    from lab.tiny_vaes import WAN, tiny_vae_file

    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(tiny_vae_file(WAN, tmp_path))))
    write('[qwen_image]\nvae = "none"\n')
    assert GQQuantizeVAE.execute(vae, DEFAULT)[0] is vae
    write('[ltx2]\nvae = "none"\n')
    assert report_of(GQQuantizeVAE.execute(vae, DEFAULT))["method"] == "int8"
    write('[qwen_image]\nvae = "none"\n[wan]\nvae = "int8"\n')
    with pytest.raises(ValueError, match=r"\[qwen_image\] and \[wan\] contradict each other"):
        GQQuantizeVAE.execute(vae, DEFAULT)


def test_the_fingerprint_follows_the_file_only_where_the_file_is_asked(write):
    from graphquant.nodes.quantize_model import GQQuantizeModel

    def fingerprints():
        return [GQQuantizeModel.fingerprint_inputs(method=m, model=None) for m in ("int8", DEFAULT)]

    assert fingerprints() == [0, 0]
    write("[quantization]\n")
    fixed, followed = fingerprints()
    assert (fixed, followed > 0) == (0, True)
    write('[quantization]\nvae = "none"\n')
    assert fingerprints()[0] == 0
    assert fingerprints()[1] != followed


@pytest.mark.parametrize(
    ("module", "node"),
    [
        ("quantize_model", "GQQuantizeModel"),
        ("quantize_text_encoder", "GQQuantizeTextEncoder"),
        ("quantize_vae", "GQQuantizeVAE"),
    ],
)
def test_the_dropdown_ends_with_the_default(module, node):
    schema = getattr(import_module(f"graphquant.nodes.{module}"), node).define_schema()
    (method,) = (entry for entry in schema.inputs if entry.id == "method")
    assert method.options[-1] == DEFAULT
    assert method.options.count(DEFAULT) == 1
    assert DEFAULT in method.tooltip


def test_over_http_an_edit_of_the_file_runs_the_node_again(server):
    prompt = workflows.quantized(FLUX, DEFAULT, seed=23)
    file = server.base / "user" / "graphquant.toml"

    def method():
        return server.run(prompt)["outputs"][workflows.QUANTIZE]["graphquant"][0]["method"]

    try:
        assert method() == "int8"
        file.write_text('[flux1]\ntransformer = "int4"\n')
        assert method() == "int4"
        file.write_text('[flux1]\ntransformer = "int9"\n')
        with pytest.raises(PromptError, match=r"graphquant\.toml, line 2: .*'int9'.*Valid: "):
            method()
    finally:
        file.unlink(missing_ok=True)
    assert method() == "int8"
