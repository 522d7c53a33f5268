"""The configuration of defaults: three-valued settings, resolved, checked, and written back."""

import sys
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphquant.quant_core import (
    ComponentConfig,
    ConfigError,
    DefaultsConfig,
    SectionConfig,
    UnknownNameError,
)
from graphquant.quant_core.config import SETTINGS
from graphquant.quant_core.presets import PRESETS
from lab.pack import ROOT

needs_toml = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python has tomllib since 3.11, and so has this feature"
)

sections = st.builds(
    SectionConfig, **{key: st.sampled_from(values) for key, values in SETTINGS.items()}
)
configs = st.builds(
    DefaultsConfig,
    quantization=sections,
    architectures=st.dictionaries(st.sampled_from(sorted(PRESETS)), sections),
)


def config(**architectures):
    quantization = SectionConfig(**architectures.pop("quantization", {}))
    return DefaultsConfig(
        quantization, {name: SectionConfig(**values) for name, values in architectures.items()}
    )


@given(configs)
def test_dict_and_json_lose_nothing(written):
    assert DefaultsConfig.from_dict(written.to_dict()) == written
    assert DefaultsConfig.from_json(written.to_json()) == written


@needs_toml
@given(configs)
def test_toml_loses_nothing_and_is_what_tomllib_reads(written):
    import tomllib

    assert DefaultsConfig.from_toml(written.to_toml()) == written
    assert tomllib.loads(written.to_toml()) == written.to_dict()


@given(configs, st.sampled_from(sorted(PRESETS)))
def test_resolving_leaves_nothing_to_inherit_and_asks_the_architecture_first(written, name):
    own = written.architectures.get(name, SectionConfig())
    for component, settings in written.resolve(name).items():
        assert "inherit" not in (settings.method, settings.granularity)
        said = own.component(component)
        assert said.method in ("inherit", settings.method)
        assert said.granularity in ("inherit", settings.granularity)


def test_without_a_word_the_built_in_defaults_hold():
    assert DefaultsConfig().resolve("flux2") == {
        "encoder": ComponentConfig("auto", "per-row"),
        "transformer": ComponentConfig("auto", "per-row"),
        "vae": ComponentConfig("int8", "per-row"),
    }


def test_none_switches_one_architecture_off_and_inherit_does_not():
    written = config(
        quantization={"transformer": "int8", "encoder": "int4"},
        flux2={"transformer": "none"},
        ltx2={"transformer": "inherit", "encoder": "none"},
    )
    assert written.resolve("flux2")["transformer"].method == "none"
    assert written.resolve("flux2")["encoder"].method == "int4"
    assert written.resolve("ltx2")["transformer"].method == "int8"
    assert written.resolve("ltx2")["encoder"].method == "none"
    assert written.resolve("wan")["transformer"].method == "int8"
    assert written.resolve()["transformer"].method == "int8"


def test_none_for_all_is_switched_on_again_for_one():
    written = config(quantization={"transformer": "none"}, z_image={"transformer": "auto"})
    assert written.resolve("flux2")["transformer"].method == "none"
    assert written.resolve("z_image")["transformer"].method == "auto"


@pytest.mark.parametrize(
    ("flux2", "expected"),
    [
        ({}, "per-tensor"),
        ({"granularity": "per-row"}, "per-row"),
        ({"encoder_granularity": "per-row", "granularity": "per-tensor"}, "per-row"),
        ({"transformer_granularity": "per-row"}, "per-tensor"),
    ],
)
def test_the_nearest_granularity_holds(flux2, expected):
    written = config(quantization={"encoder_granularity": "per-tensor"}, flux2=flux2)
    assert written.resolve("flux2")["encoder"].granularity == expected


def test_a_shared_component_follows_whichever_architecture_speaks_of_it():
    written = config(ltx2={"vae": "none"}, ltxv={"transformer": "int4"})
    assert written.component("vae", ("ltxv", "ltx2")).method == "none"
    assert written.component("vae", ("wan",)).method == "inherit"


def test_architectures_that_contradict_each_other_are_refused_only_where_they_share():
    written = config(ltx2={"vae": "none"}, ltxv={"vae": "int8"})
    with pytest.raises(ConfigError, match=r"\[ltx2\] and \[ltxv\] contradict.*this vae serves"):
        written.component("vae", ("ltxv", "ltx2"))
    assert written.resolve("ltx2")["vae"].method == "none"


def test_the_keys_of_a_section_are_the_settings():
    assert tuple(SETTINGS) == tuple(field.name for field in fields(SectionConfig))


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        ({"flux3": {}}, ("flux3",), r"Unknown section 'flux3'\. Did you mean flux2 or flux1\?"),
        ({"vae": "int8"}, ("vae",), r"vae stands in no section\. Write \[quantization\] above"),
        ({"flux2": "int8"}, ("flux2",), r"flux2 is a section, not a value\. Write \[flux2\]"),
        (
            {"flux2": {"transfomer": "int8"}},
            ("flux2", "transfomer"),
            r"Unknown key in \[flux2\] 'transfomer'\. Did you mean transformer.*Valid: encoder, ",
        ),
        (
            {"quantization": {"transformer": "int9"}},
            ("quantization", "transformer"),
            r"Unknown value of transformer 'int9'.*Valid: inherit, auto, none, fp8-dynamic, ",
        ),
        (
            {"quantization": {"vae": "fp8"}},
            ("quantization", "vae"),
            r"Unknown value of vae 'fp8'\. Valid: inherit, none, int8, int8-convrot\.",
        ),
        ({"flux2": {"granularity": 8}}, ("flux2", "granularity"), "Unknown value of granularity 8"),
        ({"flux2": {"encoder": ["int8"]}}, ("flux2", "encoder"), "Unknown value of encoder"),
    ],
)
def test_what_cannot_be_is_refused_with_the_valid_words(values, path, message):
    with pytest.raises(ConfigError, match=message) as error:
        DefaultsConfig.from_dict(values)
    assert error.value.path == path


@pytest.mark.parametrize("name", ["float8wo", "int3-g32", "fp6_e3m2", "nf4-double", "llm.int8"])
def test_a_method_may_go_by_any_name_of_it(name):
    written = DefaultsConfig.from_dict({"quantization": {"transformer": name}})
    assert written.resolve()["transformer"].method == name


def test_a_name_that_cannot_be_had_is_refused_with_its_own_reason():
    with pytest.raises(ConfigError, match="FP8_INT8 cannot be computed") as error:
        DefaultsConfig.from_dict({"flux2": {"transformer": "FP8_INT8"}})
    assert error.value.path == ("flux2", "transformer")


@pytest.mark.parametrize(
    "make", [lambda: SectionConfig(vae="int4"), lambda: config(quantization={"encoder": ""})]
)
def test_the_dataclass_refuses_too(make):
    with pytest.raises(ConfigError, match="Unknown value"):
        make()


@pytest.mark.parametrize("name", ["quantization", "Flux2", "dit1.0", ""])
def test_an_architecture_is_called_in_snake_case(name):
    with pytest.raises(ConfigError, match="Use snake_case"):
        DefaultsConfig(architectures={name: SectionConfig()})


@needs_toml
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('# one\n[quantization]\n\ntransformer = "int9"\n', 4),
        ('[flux2]\nvae = "none"\n"encoder" = \'fp9\'', 3),
        ('[flux2]\r\nvae = "none"\r\nencoder = "fp9"\r\n', 3),
        ('[flux2]\nvae = "none"\n\n[flux3]\nvae = "none"', 4),
        ('quantization.vae = "none"\nflux2.vae = "fp8"\n', 2),
        ('flux2 = { encoder = "none", vae = "fp8" }\n', 1),
        ('[flux2]\nvae = "none"\nencoder = """int\n9"""\n', 4),
        ('transformer = "int8"\n', 1),
    ],
)
def test_an_error_names_its_line_however_it_is_written(text, line):
    with pytest.raises(ConfigError, match=rf"^line {line}: "):
        DefaultsConfig.from_toml(text)


@needs_toml
def test_bad_toml_names_its_line_too():
    with pytest.raises(ConfigError, match=r'at line 2, .*Every setting is written key = "value"'):
        DefaultsConfig.from_toml("[flux2]\nencoder = int8\n")


def test_a_python_without_tomllib_says_so(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 14))
    with pytest.raises(ConfigError, match=r"needs Python 3\.11.*Choose a method in the node"):
        DefaultsConfig.from_toml("[quantization]\n")


@needs_toml
def test_the_example_in_the_documentation_means_what_it_says():
    text = (ROOT / "docs" / "defaults.md").read_text(encoding="utf-8")
    written = DefaultsConfig.from_toml(text.partition("```toml\n")[2].partition("```")[0])
    assert written.resolve("flux2")["encoder"] == ComponentConfig("int4", "per-row")
    assert written.resolve("z_image")["transformer"].method == "none"
    assert written.resolve("wan")["transformer"].method == "fp8-dynamic"
    assert written.resolve("ltx2") == {
        "encoder": ComponentConfig("int8", "per-row"),
        "transformer": ComponentConfig("fp8-dynamic", "per-tensor"),
        "vae": ComponentConfig("none", "per-row"),
    }


ANCESTORS = """
[quantization]
transformer = "fp8-dynamic"

[flux2]
quantization_transformer = "fp8-weight-only"

[ltx2]
quantization_encoder = "int8"
quantization_vae = "none"
"""


@needs_toml
def test_the_keys_of_older_files_mean_their_component():
    config = DefaultsConfig.from_toml(ANCESTORS)
    assert config.resolve("flux2")["transformer"].method == "fp8-weight-only"
    assert config.resolve("ltx2")["encoder"].method == "int8"
    assert config.resolve("ltx2")["vae"].method == "none"
    assert config.resolve("ltx2")["transformer"].method == "fp8-dynamic"
    assert config.to_dict()["ltx2"] == {"encoder": "int8", "vae": "none"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('quantization_transformers = "int8"', "Did you mean transformer"),
        ('quantization_encoder = "int9"', "Unknown value of encoder 'int9'"),
        ('quantization_encoder = "int8"\nencoder = "int4"', "are one setting"),
        ("compile = true", "compile is not read here. Models are compiled by"),
        ('compile_mode = "default"', "compile_mode is not read here."),
        ('transformer_file = "x"', "transformer_file is not read here. Choose the file"),
        ("cpu_offload = true", "cpu_offload is not read here."),
    ],
)
@needs_toml
def test_what_older_files_have_besides_is_refused_by_name(line, message):
    with pytest.raises(ConfigError, match=r"^line 2: ") as error:
        DefaultsConfig.from_toml(f"[flux2]\n{line}\n")
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["FLUX2", "flux-2", "flux 2", "ltx3", ""])
def test_an_unknown_architecture_is_named_with_its_neighbours(name):
    with pytest.raises(UnknownNameError, match=f"Unknown architecture '{name}'"):
        DefaultsConfig().resolve(name)
    section = DefaultsConfig(architectures={"ltx3": SectionConfig("int4")})
    assert section.resolve("ltx3")["encoder"].method == "int4"
    assert section.resolve("pid", known=["pid"])["encoder"].method == "auto"


@pytest.mark.parametrize("text", ["[]", "3", "null", '"x"', "{", "[" * 9999, '{"flux2": []}'])
def test_json_that_is_not_a_set_of_defaults_is_refused_in_words(text):
    with pytest.raises(ConfigError):
        DefaultsConfig.from_json(text)
