"""What a preset is: which layers of one architecture stay in high precision."""

from __future__ import annotations

from dataclasses import dataclass

FOUR_BITS = 5.0
"""The most bits a weight, scales included, that 4-bit codes take: INT4 in groups of 32."""


@dataclass(frozen=True)
class Raised:
    """Layers that are stored in INT8 where the method would give them ``bits`` a weight or fewer.

    layers: patterns. source: where the rule comes from, in words.
    """

    layers: tuple[str, ...]
    source: str
    bits: float = FOUR_BITS


@dataclass(frozen=True)
class Preset:
    """The layers of an architecture that stay, as patterns (see ``quant_core.patterns``).

    name: the dropdown value and configuration section, never renamed. title: the models it is for.
    keep: what stays, named relative to the diffusion model (or to the text encoder's transformer).
    only: when not empty, nothing else than what matches one of these is quantized. source: where
    the list comes from, in words. raised: what few bits are too few for.

    A preset serves a family, so some patterns mean nothing in some of its members. Normalizations,
    and the projections named after one (``norm_out.linear``), are left to the component filter.
    """

    name: str
    title: str
    keep: tuple[str, ...]
    only: tuple[str, ...] = ()
    source: str = ""
    raised: tuple[Raised, ...] = ()
