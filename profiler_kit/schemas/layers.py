"""Frames of per-layer timings."""

from __future__ import annotations

from typing import Final

from profiler_kit.schemas.schema import Schema

LAYER_CALLS: Final = Schema(
    "LAYER_CALLS",  # one row per call of a module, in call order (layers.parquet)
    {
        "layer": "str",  # dotted module path; "(model)" is the module that was timed
        "type": "str",  # class name
        "variant": "str",  # what sets layers of one type apart ("window 14", "global"); "" when nothing does
        "parent": "str",  # layer path of the module whose call this call ran inside; "" at the top
        "batch_size": "int64",
        "iteration": "int64",
        "call": "int64",  # counts calls of this layer within the iteration, from 0
        "device_ns": "Int64",  # between CUDA events on the stream; missing on a machine without a GPU
        "self_device_ns": "Int64",  # less the calls made inside it
        "host_ns": "int64",  # perf_counter around the call; on a CPU this is the layer's time
        "self_host_ns": "int64",
    },
)

LAYER_TOTALS: Final = Schema(
    "LAYER_TOTALS",  # one row per layer and batch size
    {
        "layer": "str",
        "type": "str",
        "variant": "str",
        "parent": "str",
        "depth": "int64",  # 0 is the module that was timed
        "batch_size": "int64",
        "iterations": "int64",
        "calls": "int64",  # in one iteration
        "median_ns": "float64",  # over the iterations, of the sum over the calls of one iteration
        "q1_ns": "float64",
        "q3_ns": "float64",
        "self_median_ns": "float64",
        "per_image_ns": "float64",  # median_ns / batch_size
        "efficiency": "float64",  # per-image time at the smallest batch / per-image time here; 1 = same, > 1 = better
        "share": "float64",  # of the whole forward at that batch size
    },
)

FORWARD_CALLS: Final = Schema(
    "FORWARD_CALLS",  # one row per whole forward run without hooks, beside the ones that LAYER_CALLS is of
    {
        "batch_size": "int64",
        "iteration": "int64",
        "forward_ns": "int64",  # between CUDA events on a GPU, perf_counter on a CPU
    },
)

LAYER_COVERAGE: Final = Schema(
    "LAYER_COVERAGE",  # one row per batch size; times are medians over the iterations
    {
        "batch_size": "int64",
        "forward_ns": "float64",  # the whole forward without hooks
        "hooked_ns": "float64",  # the whole forward with hooks
        "layers_ns": "float64",  # sum over the outermost layers inside the module that was timed
        "share": "float64",  # layers_ns / forward_ns
        "leaves_ns": "float64",  # sum over the layers inside which no other layer was timed
        "leaves_share": "float64",
        "overhead": "float64",  # hooked_ns / forward_ns - 1
    },
)

LAYER_KINDS: Final = Schema(
    "LAYER_KINDS",  # one row per kind of layer (type and variant) and batch size, longest kind first
    {
        "kind": "str",  # `Block`, or `Block · window 14` where something sets layers of a type apart
        "variant": "str",
        "batch_size": "int64",
        "layers": "int64",
        "median_ns": "float64",  # the layers' medians added up
        "per_image_ns": "float64",
        "one_per_image_ns": "float64",  # of one such layer, on average
        "share": "float64",  # of the whole forward at that batch size
    },
)
