"""Some rows of a layer's inputs, each row of a whole run as likely to be kept as any other.

Which rows are kept depends on nothing but how many there were. So layers that are given the same
input, as q, k and v are, keep the same rows, and one copy of them is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

ROWS = 1024
"""Of each wide layer by default. MiniLM's int4 layers, K = 384, err by 0.078, 0.068 and 0.054 with
96, 384 and 1536 rows; the miniature's latent, K = 128 to 640, by 0.0375 and 0.0291 with 1024 and
4096."""
_WIDE, _MOST_TIMES = 4096, 8
_SEED = 20250814


def planned_rows(
    widths: Mapping[str, int], rows: int | None = None, limit: int | None = None
) -> dict[str, int]:
    """How many rows to keep of each layer, by name; widths: K of each.

    rows: None for ROWS. Layers narrower than 4096 keep as many more as are no larger together, up
    to eight times. limit: bytes for all together, were none shared; where they are not enough, all
    layers keep proportionally fewer.
    """
    rows = ROWS if rows is None else rows
    planned = {name: int(rows * min(_MOST_TIMES, max(1, _WIDE / k))) for name, k in widths.items()}
    needed = row_bytes(widths, planned)
    if limit is not None and needed > limit:
        planned = {name: int(count * limit / needed) for name, count in planned.items()}
    return planned


def row_bytes(widths: Mapping[str, int], rows: Mapping[str, int]) -> int:
    """Bytes of that many bfloat16 rows of each layer, none shared."""
    return sum(2 * widths[name] * count for name, count in rows.items())


@dataclass
class Reservoir:
    """A random sample of at most ``room`` of all rows [K] added (Vitter 1985, algorithm R)."""

    room: int
    seen: int = 0
    kept: torch.Tensor | None = None
    latest: torch.Tensor | None = None
    """What the last call brought, in the order of its slots."""

    def rows(self) -> torch.Tensor:
        """bfloat16 [rows, K] on the CPU."""
        return self.kept[: min(self.room, self.seen)]

    def put(self, slots: torch.Tensor, picked: torch.Tensor, came: int) -> None:
        """picked: the rows for ``slots``, of the ``came`` that one call brought."""
        # A tensor made in inference mode could not be written to by a call outside it.
        with torch.inference_mode(False):
            if self.kept is None:
                self.kept = torch.empty(self.room, picked.shape[1], dtype=torch.bfloat16)
            self.kept[slots] = picked
        self.latest = picked
        self.seen += came

    def parted(self, seen: int) -> Reservoir:
        """A copy for a layer that was given the same until now, when it had ``seen`` rows. What
        this call wrote already is in the slots that the layer's own rows of this call go to."""
        with torch.inference_mode(False):
            return Reservoir(self.room, seen, self.kept.clone())


class Reservoirs:
    """A reservoir a layer, one for several while these are given the same rows."""

    def __init__(self, rooms: Mapping[str, int]):
        self._rooms = rooms
        self._of: dict[str, Reservoir] = {}
        self._seen: dict[str, int] = dict.fromkeys(rooms, 0)
        self._new: list[Reservoir] = []

    def add(self, name: str, rows: torch.Tensor) -> None:
        """The input [M, K] of one call of the layer ``name``."""
        room, came = self._rooms[name], len(rows)
        if not room or not came:
            return
        own = self._of.get(name)
        if own is not None and own.seen - self._seen[name] not in (0, came):
            # Those it shared with have seen other calls: the rows that they kept are not its own.
            own, self._seen[name] = None, 0
        seen = self._seen[name]
        slots, places = _chosen(seen, len(rows), room)
        picked = _picked(rows, places)
        if own is None and seen == 0:
            own = self._leader(room, came, picked)
        if own is None:
            own = Reservoir(room)
            self._new = [*self._new[-15:], own]
        if own.seen == seen:
            own.put(slots, picked, came)
        elif not _equal(own.latest, picked):
            own = own.parted(seen)
            own.put(slots, picked, came)
        self._of[name] = own
        self._seen[name] = own.seen

    def _leader(self, room: int, came: int, picked: torch.Tensor) -> Reservoir | None:
        """Another layer's reservoir that holds just these rows, to share; None if none does."""
        return next(
            (
                each
                for each in reversed(self._new)
                if (each.room, each.seen) == (room, came) and _equal(each.latest, picked)
            ),
            None,
        )

    def rows(self) -> dict[str, torch.Tensor]:
        """By layer, of those that were called; the same tensor where they share it."""
        made = {id(each): each.rows() for each in self._of.values()}
        return {name: made[id(each)] for name, each in self._of.items()}


def _picked(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return rows.detach().index_select(0, places.to(rows.device)).to("cpu", torch.bfloat16)


def _equal(one: torch.Tensor | None, other: torch.Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.equal(one, other)


@lru_cache(maxsize=64)
def _chosen(seen: int, came: int, room: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slots, and which of the ``came`` rows go there, when ``seen`` came before."""
    generator = torch.Generator().manual_seed(_SEED + seen)
    order = torch.arange(seen, seen + came)
    drawn = torch.rand(came, generator=generator, dtype=torch.float64)
    slots = torch.where(order < room, order, (drawn * (order + 1)).long())
    # The last of the rows that would go to one slot stays there.
    last = torch.full((room,), -1).scatter_reduce_(
        0, slots[slots < room], torch.arange(came)[slots < room], "amax"
    )
    taken = (last >= 0).nonzero().flatten()
    return taken, last[taken]
