"""One model at its real size, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tree:
    """A model's ``unet_config``, the preset it goes with, and its size in billions of parameters.

    config: what ComfyUI detects in its checkpoint. preset: None where the generic rule applies.
    """

    preset: str | None
    billions: float
    config: dict


def vary(
    tree: Tree,
    billions: float,
    without: tuple[str, ...] = (),
    preset: str | None = None,
    **changes,
) -> Tree:
    """Another size or variant of ``tree``: some settings changed, some gone."""
    kept = {key: value for key, value in tree.config.items() if key not in without}
    return Tree(preset or tree.preset, billions, kept | changes)
