"""The commands: each does its work by ``conversion`` and tells the result.

Tested by tests/quant_core/cli/test_main.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..calibration import load_calibration
from ..config import Meaning, config_from_text
from ..conversion.convert import convert
from ..conversion.estimation import estimate_file
from ..conversion.inspection import inspect_file
from ..conversion.verification import verify_file
from ..errors import ConfigError
from ..fit import Fit, Recipe, Sensitivity
from ..methods import FIT
from ..report import MIB
from . import tables
from .output import Output

NONE = "none"
GIB = 1024**3
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
        fit=_fit(options),
        file_format=options.format,
        overwrite=options.overwrite,
        device=options.device,
        ray=options.ray,
        calibration=load_calibration(options.calibration) if options.calibration else None,
        rounding=options.rounding,
        rank=options.rank,
        on_bytes=output.bytes,
    )
    if options.save_recipe:
        Recipe.of(done.report.plan).save(options.save_recipe)
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
        fit=_fit(options),
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


def _fit(options: argparse.Namespace) -> Fit | Recipe | None:
    """What the method fit is asked for; None where it is not. ConfigError: a size and a recipe."""
    if options.recipe and (options.size_gib is not None or options.sensitivity):
        raise ConfigError("--recipe says the widths. Leave --size-gib and --sensitivity out.")
    if options.recipe:
        return Recipe.load(options.recipe)
    if options.size_gib is None:
        if options.sensitivity:
            raise ConfigError("--sensitivity is for a size. Add --size-gib.")
        return None
    measured = Sensitivity.load(options.sensitivity) if options.sensitivity else None
    return Fit(int(options.size_gib * GIB), measured)


def _meaning(options: argparse.Namespace) -> Meaning:
    """Method and patterns, of the options and of the configuration, which takes precedence.

    ConfigError: neither names a method, or both do.
    """
    by_size = options.size_gib is not None or options.recipe
    if by_size and options.method not in (None, FIT):
        raise ConfigError(
            f"--method is {options.method}, but --size-gib and --recipe are for fit. Leave one out."
        )
    method = options.method or (FIT if by_size and options.config is None else "")
    own = Meaning(
        method,
        options.granularity,
        tuple(options.include or ()),
        tuple(options.exclude or ()),
    )
    if options.config is None:
        if not method:
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
