"""Colours of regions and activities, the same in every figure and safe for colour-blind readers.

Hues are those of Paul Tol's "vibrant" and "bright" sets (https://personal.sron.nl/~pault/) that are distinct on white
and on near-black alike.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

HUES: Final = (
    "#4477AA",  # blue
    "#EE7733",  # orange
    "#009988",  # teal
    "#CCBB44",  # yellow
    "#AA4499",  # purple
    "#33BBEE",  # cyan
    "#CC3311",  # red
    "#7A9E3A",  # olive
    "#9C7ACF",  # lavender
    "#A5795B",  # brown
)
_PALER: Final = 0.45  # of white in the second of each hue
PALE: Final = tuple(
    "#" + "".join(f"{round(int(hue[i : i + 2], 16) * (1 - _PALER) + 255 * _PALER):02X}" for i in (1, 3, 5))
    for hue in HUES
)
NEUTRAL: Final = "#8A8F98"
IDLE: Final = "#B4B9C0"

# Regions of the shipped workload and torch's own keep their hue in every trace.
_FIXED: Final = {
    "image encoder": HUES[0],
    "mask decoder": HUES[1],
    "prompt encoder": HUES[2],
    "postprocess": HUES[4],
    "data transfer": HUES[3],
    "timed region": "#6C7A94",
    "ProfilerStep": "#5F6B7A",
    "forward": HUES[0],
    "backward": HUES[1],
    "optimizer": HUES[2],
    "(no region)": NEUTRAL,
    "(unlinked)": "#B0B4BA",
}

# What the GPU does, the same in every figure.
ACTIVITY: Final = {
    "computation": HUES[0],
    "communication": HUES[1],
    "memcpy": HUES[2],
    "idle": IDLE,
}
# Why a GPU was idle: the causes of analyses.gpu.idle.
IDLE_CAUSE: Final = {
    "host-bound": HUES[6],
    "synchronization-bound": HUES[1],
    "kernel wait": "#88CCEE",
    "other": "#9AA1AB",
    "no request": "#BBCC33",
}
CRITICAL: Final = {"GPU": HUES[7], "host": HUES[5], "latency": HUES[8], "wait": HUES[9], "no request": IDLE}
ALLOCATED: Final = HUES[0]
RESERVED: Final = NEUTRAL
MARK: Final = HUES[6]

# One hue, in which lightness alone carries the value: the longer, the further from the page's own colour.
SCALE_LIGHT: Final = ("#E4ECF4", "#7FA8CF", "#1E3F66")
SCALE_DARK: Final = ("#1F2A36", "#3D6C99", "#B9D7F2")
INKS: Final = ("#000000", "#FFFFFF")


def region_colours(names: Iterable[str]) -> dict[str, str]:
    """The colour of each region name.

    A name gets the same hue in every trace (fixed, else by a hash of the name), or the next free one if another region
    of the same trace has it already. The order of `names` makes no difference. With more names than hues, hues repeat
    evenly, paler; with more than twice as many, colours do.
    """
    unique = sorted(set(names))
    chosen = {name: _FIXED[name] for name in unique if name in _FIXED}
    used = Counter(chosen.values())
    for name in unique:
        if name in chosen:
            continue
        first = int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=4).digest(), "big")
        order = [hues[(first + i) % len(HUES)] for hues in (HUES, PALE) for i in range(len(HUES))]
        chosen[name] = min(order, key=lambda hue: used[hue])  # the first of the least used
        used[chosen[name]] += 1
    return chosen


def colour_of(colours: Mapping[str, str], name: str) -> str:
    """The colour of a region in `colours`, or the one it has by itself."""
    return colours.get(name) or region_colours((name,))[name]


def on_scale(scale: Sequence[str], share: float) -> tuple[float, float, float]:
    """Red, green and blue (0 to 255) at that share of a scale of evenly spaced colours."""
    at = np.linspace(0, 1, len(scale))
    channels = [[int(colour[i : i + 2], 16) for colour in scale] for i in (1, 3, 5)]
    red, green, blue = (float(np.interp(share, at, channel)) for channel in channels)
    return red, green, blue


def ink_on(scale: Sequence[str], share: float) -> str:
    """Black or white, whichever contrasts more with the colour at that share of a scale of evenly spaced colours.

    Contrast as WCAG 2 defines it, from relative luminance.
    """
    rgb = np.array(on_scale(scale, share)) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return INKS[0] if (luminance + 0.05) ** 2 > 1.05 * 0.05 else INKS[1]
