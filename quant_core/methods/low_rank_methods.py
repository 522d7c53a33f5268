"""Methods with a low-rank branch beside four-bit codes, which need the rows of a calibration."""

from __future__ import annotations

from dataclasses import replace

from ..codes.rotation import rotation_size
from ..errors import UnsupportedMethodError
from ..formats import Int8, SvdQuant
from ..formats.svdquant import LARGEST_RANK
from .method import Choice, Choose, register_method

RANK = 32
"""The default rank of a branch: that of the models which SVDQuant's authors publish."""

CALIBRATED = ("svdquant-int4", "svdquant-nvfp4")
"""The methods that look at the activations of every layer."""


def _with_branch(residual: str, rotated: bool) -> Choose:
    """Chooses SVDQuant with that ``residual``, its activations rounded alike; INT8 of one scale a
    row where its groups do not divide K. rotated: whether the residual is."""
    fmt = SvdQuant(residual, RANK, residual)

    def choose(shape: tuple[int, ...], granularity: str) -> Choice:
        if len(shape) != 2:
            return Choice(None, "SVDQuant is for Linear layers")
        if shape[1] % fmt.group_size:
            return Choice(
                Int8("per-row"), f"INT8: groups of {fmt.group_size} do not divide K = {shape[1]}"
            )
        return Choice(replace(fmt, rotation=rotation_size(shape[1])) if rotated else fmt)

    return choose


register_method(
    "svdquant-int4",
    "4-bit weights and activations beside a branch in 16 bits: needs Calibrate Activations.",
    weight_only="nf4-fine",
)(_with_branch("int4", rotated=True))

register_method(
    "svdquant-nvfp4",
    "NVFP4 weights and activations beside a branch in 16 bits: needs Calibrate Activations.",
    weight_only="nvfp4-weight-only",
)(_with_branch("nvfp4", rotated=False))


def require_rank(rank: int, method: str) -> None:
    """UnsupportedMethodError where ``rank`` is not a rank that a branch can have, or 0 where the
    branch of ``method`` cannot be left out."""
    if type(rank) is not int or not 0 <= rank <= LARGEST_RANK:
        raise UnsupportedMethodError(
            f"rank is {rank!r}. Give a whole number from 0 to {LARGEST_RANK}; 32 is usual."
        )
    if rank == 0 and method == "svdquant-int4":
        raise UnsupportedMethodError(
            "rank is 0, and svdquant-int4 has no format without a branch. Give 1 or more, or "
            "choose svdquant-nvfp4 or w4a8."
        )


def with_rank(choice: Choice, rank: int) -> Choice:
    """``choice`` with a branch of ``rank``, where its format has one."""
    return choice if choice.format is None else Choice(choice.format.with_rank(rank), choice.note)
