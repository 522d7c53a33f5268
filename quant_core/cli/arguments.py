"""The options of the command line, and their parser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..applying.ray_quantizer import LOCAL
from ..conversion.convert import AUTO, FILE_FORMATS
from ..methods import GRANULARITIES, METHODS, RANK
from ..rounding import ROUNDINGS
from ..version import VERSION

_SOURCE = "a .safetensors file, the index.json of a sharded one, or their folder"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; wrong usage ends the process with exit code 2, as argparse does."""
    parser = argparse.ArgumentParser(
        prog="graphquant",
        description="Quantizes model files without ComfyUI, a layer at a time.",
        epilog="Exit codes: 0 done, 1 refused, 2 wrong usage, 3 verify found faults, 130 "
        "interrupted, 143 terminated. Nothing half-written is ever left under the name of a file.",
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _convert(commands.add_parser("convert", help="quantize a model file into another"))
    _inspect(commands.add_parser("inspect", help="formats by layer, bytes, and what reads it"))
    _estimate(commands.add_parser("estimate", help="the size of a model by each method"))
    _verify(commands.add_parser("verify", help="check a file, or compare it with its original"))
    return parser.parse_args(arguments)


def _convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help=_SOURCE)
    parser.add_argument("target", metavar="OUT", help="the .safetensors file to write")
    _plan(parser)
    _fit(parser)
    parser.add_argument("--save-recipe", metavar="FILE", help="save the chosen widths")
    parser.add_argument("--method", metavar="METHOD", help=f"{', '.join(METHODS)}, or an alias")
    parser.add_argument("--config", metavar="FILE", help="a quantization_config, in JSON or a name")
    parser.add_argument(
        "--calibration", metavar="FILE", help="what Calibrate Activations or save_calibration wrote"
    )
    parser.add_argument(
        "--rounding",
        choices=ROUNDINGS,
        default=ROUNDINGS[0],
        help="with a calibration: auto (default) takes the better of nearest and compensated",
    )
    parser.add_argument(
        "--rank",
        type=int,
        default=RANK,
        help=f"of the branch of svdquant-int4 and svdquant-nvfp4 (default {RANK})",
    )
    parser.add_argument(
        "--format",
        choices=FILE_FORMATS,
        default=AUTO,
        help="stock: ComfyUI reads it without this pack; auto (default): stock where possible",
    )
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1 (default: a GPU, if any)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=LOCAL,
        metavar="ADDRESS",
        help="spread the layers over a Ray cluster: local (default), auto, or its address",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT when it is there")
    _output(parser)


def _inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE", help=_SOURCE)
    parser.add_argument("--layers", action="store_true", help="tell every layer")
    _output(parser)


def _estimate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE", help=_SOURCE)
    parser.add_argument("--method", metavar="METHOD", action="append", help="only this one; again")
    _plan(parser)
    _fit(parser)
    _output(parser)


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE", help=_SOURCE)
    parser.add_argument("reference", metavar="REFERENCE", nargs="?", help="what it was made of")
    parser.add_argument("--layers", action="store_true", help="print every layer's error")
    _output(parser)


def _plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--granularity", choices=GRANULARITIES, default="per-row")
    parser.add_argument(
        "--preset",
        default=AUTO,
        help="which layers stay: auto (default), a preset's name, generic, none",
    )
    parser.add_argument("--include", action="append", metavar="PATTERN", help="only these; again")
    parser.add_argument("--exclude", action="append", metavar="PATTERN", help="not these; again")


def _fit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size-gib",
        type=float,
        metavar="GIB",
        help="for the method fit (implied): the largest size of the file",
    )
    parser.add_argument(
        "--sensitivity", metavar="FILE", help="for fit: what Measure Sensitivity wrote"
    )
    parser.add_argument("--recipe", metavar="FILE", help="for fit: widths that were saved")


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress, and no result in words")
