"""Which layers stay: by the component's filter, the preset, the user's patterns, in this order."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import PatternError
from ..patterns import first_match, matches
from ..presets import Preset
from .vae_rules import half_of

_TABLES = "embed_tokens"

# Normalizations by any name (norm, norm1, img_norm, norm_out), but not normal_proj.
_NORMS = ("*norm", "*norm.*", "*norm[0-9]*", "*norm_*")

COMPONENT_KEEP: dict[str, tuple[str, ...]] = {
    "encoder": (_TABLES, *_NORMS, "lm_head", "rotary_emb"),
    "transformer": _NORMS,
    "vae": (),
}

_NOT_INCLUDED, _EXCLUDED = "not included", "excluded by "


@dataclass(frozen=True)
class LayerFilter:
    """Decides from a layer's name whether it is kept: component filter, preset, include, exclude.

    scope: which half of a VAE is quantized, one of ``vae_rules.SCOPES``. tables: the component
    filter lets embeddings pass.
    """

    component_type: str
    preset: Preset | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    scope: str = "both"
    tables: bool = False

    def reason_to_keep(self, name: str) -> str | None:
        """The reason to keep the layer called ``name``, in words; None where it goes on to be
        quantized."""
        pattern = first_match(COMPONENT_KEEP[self.component_type], name)
        if pattern and not (self.tables and pattern == _TABLES):
            return f"{self.component_type} filter: {pattern}"
        if self.component_type == "vae" and self.scope not in ("both", half_of(name)):
            return f"{half_of(name)} half, scope is {self.scope}"
        if self.preset is not None:
            pattern = first_match(self.preset.keep, name)
            if pattern:
                return f"preset {self.preset.name} keeps {pattern}"
            if self.preset.only and not first_match(self.preset.only, name):
                return f"preset {self.preset.name} quantizes other layers only"
        if self.include and not first_match(self.include, name):
            return _NOT_INCLUDED
        pattern = first_match(self.exclude, name)
        return f"{_EXCLUDED}{pattern}" if pattern else None


def is_by_pattern(reason: str) -> bool:
    """Whether a layer is kept for ``reason`` because of the user's include or exclude."""
    return reason == _NOT_INCLUDED or reason.startswith(_EXCLUDED)


def unmatched(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The patterns that match none of ``names``."""
    return [pattern for pattern in patterns if not any(matches(pattern, n) for n in names)]


def check_include(include: Iterable[str], names: Sequence[str]) -> None:
    """Raises PatternError for an include pattern that matches no layer: it would quantize
    nothing."""
    for pattern in unmatched(include, names):
        raise PatternError(
            f"Include pattern {pattern!r} matches none of {len(names)} layers. "
            f"{_nearest(pattern, names)}"
        )


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """Suggests what a pattern that matches none of ``names`` may have meant."""
    word = pattern.strip("*.")
    if any(word in name for name in names):
        return f"Did you mean '*{word}*'? Without a * only whole parts of a name match."
    length = word.count(".") + 1
    meant = difflib.get_close_matches(word, dict.fromkeys(_runs(names, length)), n=1)
    if meant:
        return f"Did you mean {meant[0]!r}?"
    example = f", as in {names[0]!r}" if names else ""
    return f"Name whole parts of a layer's name{example}, or use a glob."


def _runs(names: Iterable[str], length: int) -> Iterator[str]:
    """Every ``length`` consecutive parts of each name."""
    for name in names:
        parts = name.split(".")
        for start in range(len(parts) - length + 1):
            yield ".".join(parts[start : start + length])
