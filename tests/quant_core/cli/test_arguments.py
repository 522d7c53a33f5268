"""The options of each command, their defaults, and what argparse refuses."""

import pytest

from graphquant.quant_core.cli.arguments import parse
from graphquant.quant_core.methods import METHODS


def test_convert_needs_two_names_and_has_a_default_for_all_else():
    options = parse(["convert", "a", "b"])
    assert (options.command, options.source, options.target) == ("convert", "a", "b")
    assert (options.method, options.config, options.size_gib, options.recipe) == (None,) * 4
    assert (options.granularity, options.preset, options.format) == ("per-row", "auto", "auto")
    assert (options.rounding, options.rank, options.device, options.ray) == ("auto", 32, None, None)
    assert not (options.overwrite or options.json or options.quiet)


def test_patterns_add_up_and_ray_alone_is_this_machine():
    options = parse(
        ["convert", "a", "b", "--exclude", "x", "--exclude", "*.y", "--include", "z", "--ray"]
    )
    assert (options.exclude, options.include) == (["x", "*.y"], ["z"])
    assert options.ray == "local"
    assert parse(["convert", "a", "b", "--ray", "host:1"]).ray == "host:1"


def test_numbers_are_numbers():
    options = parse(["convert", "a", "b", "--size-gib", "7.5", "--rank", "16"])
    assert (options.size_gib, options.rank) == (7.5, 16)


def test_estimate_takes_several_methods_and_verify_one_file_or_two():
    assert parse(["estimate", "a", "--method", "int8", "--method", "nf4"]).method == ["int8", "nf4"]
    assert parse(["verify", "a"]).reference is None
    assert parse(["verify", "a", "b", "--layers"]).layers


@pytest.mark.parametrize(
    "line", ["", "convert a", "convert a b --rank x", "convert a b --format gguf", "inspect a b"]
)
def test_wrong_usage_is_exit_code_2(line, capsys):
    with pytest.raises(SystemExit) as end:
        parse(line.split())
    assert end.value.code == 2
    assert "usage: graphquant" in capsys.readouterr().err


def test_the_help_of_convert_names_every_method(capsys):
    with pytest.raises(SystemExit):
        parse(["convert", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert [method for method in METHODS if method not in text] == []
