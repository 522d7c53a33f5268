"""The commands: each does its work by ``conversion`` and tells the result.

Tested by tests/quant_core/cli/test_main.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..config import Meaning, config_from_text
from ..conversion.convert import convert
from ..conversion.estimation import estimate_file
from ..conversion.inspection import inspect_file
from ..conversion.verification import verify_file
from ..errors import ConfigError
from ..report import MIB
from . import tables
from .output import Output

NONE = "none"
COMMANDS: dict[str, Callable[[argparse.Namespace, Output], bool]] = {}


def command(run: Callable[[argparse.Namespace, Output], bool]) -> Callable:
    """Decorator: the function is the command of its name; it returns whether all is well."""
    COMMANDS[run.__name__.removesuffix("_command")] = run
    return run


@command
def convert_command(options: argparse.Namespace, output: Output) -> bool:
    """Quantize a file into another."""
    meaning = _meaning(options)
    done = convert(
        options.source,
        options.target,
        meaning.method,
        meaning.granularity,
        preset=_preset(options),
        include=meaning.include,
        exclude=meaning.exclude,
        file_format=options.format,
        overwrite=options.overwrite,
        device=options.device,
        ray=options.ray,
        on_bytes=output.bytes,
    )
    kind = "graphquant" if done.private else "stock"
    headline = f"Wrote {done.target}: {done.size / MIB:.1f} MiB, {kind}, every tensor verified."
    report = replace(done.report, notes=(*done.report.notes, *meaning.notes))
    values = report.to_dict() | {"path": str(done.target), "bytes": done.size, "format": kind}
    output.result(values, f"{headline}\n{report.to_markdown()}")
    return True


@command
def inspect_command(options: argparse.Namespace, output: Output) -> bool:
    """Tell what is in a file."""
    found = inspect_file(options.source)
    output.result(found.to_dict(), tables.inspection(found, options.layers))
    return True


@command
def estimate_command(options: argparse.Namespace, output: Output) -> bool:
    """Tell how large a file would be by each method."""
    found = estimate_file(
        options.source,
        options.method,
        options.granularity,
        preset=_preset(options),
        include=options.include,
        exclude=options.exclude,
    )
    output.result({"methods": [vars(each) for each in found]}, tables.estimates(found))
    return True


@command
def verify_command(options: argparse.Namespace, output: Output) -> bool:
    """Check a file, or compare it with its original."""
    found = verify_file(options.source, options.reference, output.layers)
    output.result(found.to_dict(), tables.verification(found, options.layers))
    return not found.faults


def _preset(options: argparse.Namespace) -> str | None:
    return None if options.preset == NONE else options.preset


def _meaning(options: argparse.Namespace) -> Meaning:
    """Method and patterns, of the options and of the configuration, which counts where it speaks.

    ConfigError: neither names a method, or both do.
    """
    own = Meaning(
        options.method or "",
        options.granularity,
        tuple(options.include or ()),
        tuple(options.exclude or ()),
    )
    if options.config is None:
        if not options.method:
            raise ConfigError("No method is named. Add --method int8, or --config FILE.")
        return own
    if options.method:
        raise ConfigError("--method and --config both name a method. Leave one out.")
    try:
        said = config_from_text(Path(options.config).read_text("utf-8-sig")).checked_meaning()
    except UnicodeDecodeError:
        raise ConfigError(f"{options.config} is not UTF-8 text. Save it as UTF-8.") from None
    return replace(
        own,
        method=said.method,
        granularity=said.granularity or own.granularity,
        include=said.include or own.include,
        exclude=said.exclude or own.exclude,
        notes=said.notes,
    )
