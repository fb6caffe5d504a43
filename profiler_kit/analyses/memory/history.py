"""Judge whether a device's history can be followed, and complete it where the rest of it says exactly what is missing.

Recorders leave kinds of events out (torch 2.10's `skip_actions`), so that what is allocated and freed may contradict
itself or the state that torch wrote at the end. A `free_requested` ends an allocation where no `free_completed` does:
its address is allocated again later, or not active at the end. A history that lacks allocations or frees otherwise
cannot be followed, and only the state at its end is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.memory.replay import ALLOCATE, FREE, RELEASE, REQUEST, RESERVE, Bools, Ints, active_blocks

Addresses = npt.NDArray[np.uint64]
LEFT_OUT: Final = (ALLOCATE, REQUEST, FREE)  # the kinds whose absence is named
_NOWHERE: Final = -(1 << 40)  # a device that no file names: where the events of a history that is not followed go


@dataclass(frozen=True)
class Contradictions:
    """What does not fit in one device's history.

    absent: kinds of which there is none although others show that it happened. by_request: frees that count from
    their request, as no free_completed tells when they ended. lost_allocations, lost_frees: events known to be missing
    from the middle. left_open: allocations without a free that torch's state at the end does not hold. unheld: the
    same in a history without the entry that torch makes for a snapshot: it may have stopped before. below_bytes: how
    far totals that close on torch's state at the end fall below zero, as sizes are wrong or events missing. resized:
    frees of another size than their allocation, whose size counts.
    """

    absent: tuple[str, ...] = ()
    by_request: int = 0
    lost_allocations: int = 0
    lost_frees: int = 0
    left_open: int = 0
    unheld: int = 0
    below_bytes: int = 0
    resized: int = 0

    @property
    def followed(self) -> bool:
        """Whether the totals of every moment can be told."""
        return not (self.lost_allocations or self.lost_frees or self.left_open or self.below_bytes)


def complete(
    events: pd.DataFrame, blocks: pd.DataFrame, segments: pd.DataFrame, devices: tuple[int, ...]
) -> tuple[pd.DataFrame, dict[int, Contradictions]]:
    """The events to replay, row by row as in SNAPSHOT_EVENTS, and what does not fit, by device.

    A free_requested that ends an allocation becomes a free_completed; the events of a device whose history cannot be
    followed belong to no device any more. Takes SNAPSHOT_EVENTS, SNAPSHOT_BLOCKS and SNAPSHOT_SEGMENTS. A device
    without segments at the end is taken as it is: nothing says what is active then.
    """
    found = {}
    action, device = events["action"], events["device"].to_numpy()
    ends, sizes = np.zeros(len(events), np.bool_), events["size_bytes"].to_numpy().copy()
    for one in devices:
        held = segments[segments["device"] == one]
        rows = np.flatnonzero(device == one)
        if not len(held) or not len(rows):
            found[one] = Contradictions()
            continue
        mine, active = events.iloc[rows], active_blocks(blocks, one)
        judged, promoted, (made, freed) = _judge(mine, active["address"].to_numpy())
        ends[rows[promoted]] = True
        resized = int((sizes[rows[made]] != sizes[rows[freed]]).sum())
        sizes[rows[freed]] = sizes[rows[made]]
        size = sizes[rows]
        total = np.cumsum(np.where(_is(mine, ALLOCATE), size, 0) - np.where(_is(mine, FREE) | ends[rows], size, 0))
        start = int(active["requested_bytes"].sum()) - int(total[-1])
        below = 0 if judged.unheld else max(0, -start - min(0, int(total.min())))
        found[one] = replace(judged, below_bytes=below, resized=resized)
    lost = [one for one, judged in found.items() if not judged.followed]
    resized = any(judged.resized for judged in found.values())
    if not ends.any() and not lost and not resized:
        return events, found
    names = action.cat.categories.union([FREE], sort=False)
    action = action.cat.set_categories(names).copy()
    action[ends] = FREE
    device = np.where(np.isin(device, lost), _NOWHERE, device)
    return events.assign(action=action, device=device, size_bytes=sizes), found


def _judge(events: pd.DataFrame, active: Addresses) -> tuple[Contradictions, Ints, tuple[Ints, Ints]]:
    """What does not fit in the events of one device, which of its requests end an allocation, and the rows of each
    allocation with a free and of that free.
    """
    kinds = {name: _is(events, name) for name in LEFT_OUT}
    absent = tuple(name for name in LEFT_OUT if not kinds[name].any()) if any(k.any() for k in kinds.values()) else ()
    moves = np.flatnonzero((kinds[ALLOCATE] | kinds[REQUEST] | kinds[FREE]) & (events["size_bytes"].to_numpy() > 0))
    address = events["address"].to_numpy()
    order = moves[np.argsort(address[moves], kind="stable")]  # by address, in history order within
    # a request ends its allocation unless the next event at its address completes it, or it is pending at the end
    last = _last(address[order])
    following = np.roll(kinds[FREE][order], -1) & ~last
    pending = last & np.isin(address[order], active)
    promoted = order[kinds[REQUEST][order] & ~following & ~pending]
    ended = kinds[FREE].copy()
    ended[promoted] = True
    order = order[kinds[ALLOCATE][order] | ended[order]]
    opens, last = kinds[ALLOCATE][order], _last(address[order])
    first = np.roll(last, 1) if len(last) else last
    # of what remains, allocations and frees must alternate at each address
    lost_allocations = int((~opens & ~first & ~np.roll(opens, 1)).sum())
    lost_allocations += int((~opens & last & np.isin(address[order], active)).sum())  # freed, yet active at the end
    lost_frees = int((opens & ~last & np.roll(opens, -1)).sum())
    left = opens & last & ~np.isin(address[order], active)
    # what was there before the history must lie in memory that was reserved before it
    known = address[order][opens]
    before = np.concatenate((address[order][~opens & first], active[~np.isin(active, known)]))
    lost_allocations += _reserved_later(events, np.unique(before))
    tells_all = not (kinds[REQUEST].any() or ended.any()) or str(events["action"].iloc[-1]) == "snapshot"
    open_ones = (int(left.sum()), 0) if tells_all else (0, int(left.sum()))
    paired = np.flatnonzero(opens & ~last & ~np.roll(opens, -1))
    judged = Contradictions(absent, len(promoted), lost_allocations, lost_frees, *open_ones)
    return judged, promoted, (order[paired], order[paired + 1] if len(paired) else paired)


def _last(address: Addresses) -> Bools:
    """Which of the sorted addresses are the last of their kind."""
    last = np.ones(len(address), np.bool_)
    last[:-1] = address[1:] != address[:-1]
    return last


def _reserved_later(events: pd.DataFrame, addresses: Addresses) -> int:
    """How many of these addresses, sorted, lie in memory that the history first reserves."""
    state = np.zeros(len(addresses), np.int8)  # by the first segment event there: 1 reserves, -1 releases
    about = events[_is(events, *RESERVE, *RELEASE) & (events["size_bytes"].to_numpy() > 0)]
    starts, reserves = about["address"].to_numpy(), _is(about, *RESERVE)
    ends = starts + about["size_bytes"].to_numpy().astype(np.uint64)
    since, until = np.searchsorted(addresses, starts), np.searchsorted(addresses, ends)
    for row in np.flatnonzero(until > since).tolist():
        part = state[since[row] : until[row]]
        part[part == 0] = 1 if reserves[row] else -1
    return int((state > 0).sum())


def _is(events: pd.DataFrame, *names: str) -> Bools:
    found: Bools = events["action"].isin(names).to_numpy()
    return found
