"""`profiler-kit operators TRACE`: what each operator cost on the host, and what GPU work it launched."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.operators import (
    MODULE_WORK,
    OPERATOR_KERNELS,
    OPERATOR_TOTALS,
    OPERATOR_WORK,
    SHAPE_WORK,
)
from profiler_kit.analyses.gpu.window import OPERATOR_SUMS, operator_sums
from profiler_kit.table import Empty, Table

TOP: Final = 30

TABLES: Final = (
    Table(
        "operator_work",
        "trace",
        "operators",
        OPERATOR_WORK,
        lambda trace: trace.operator_work(),
        command="operators",
        by="name",
        order=("name", "gpu_ns", "nested_gpu_ns", "self_ns", "host_ns", "calls"),
        share_of="gpu_ns",
        host=("name", "self_ns", "host_ns", "calls"),
        top=TOP,
        empty=Empty("No operators were recorded.", lacks="no host activity", of_host=True),
    ),
    Table(
        "shape_work",
        "trace",
        "operators by input shapes",
        SHAPE_WORK,
        lambda trace: trace.shape_work(),
        command="operators",
        by="shape",
        host=("name", "input_dims", "self_ns", "host_ns", "calls"),
        top=TOP,
        arguments=("input_dims",),
        empty=Empty("No input shapes were recorded.", lacks="no shapes", of_host=True, nothing="input_dims"),
    ),
    Table(
        "operator_kernels",
        "trace",
        "kernels by operator",
        OPERATOR_KERNELS,
        lambda trace: trace.operator_kernels(),
        command="operators",
        by="kernel",
        order=("name", "operator", "sum_ns", "count", "mean_ns", "min_ns", "max_ns", "stream", "device"),
        share_of="sum_ns",
        top=TOP,
        empty=Empty("No GPU work of an operator was recorded.", lacks="no host activity"),
    ),
    Table(
        "module_work",
        "trace",
        "GPU time by nn.Module",
        MODULE_WORK,
        lambda trace: trace.module_work(),
        command="operators",
        by="module",
        order=("path", "sum_ns", "self_sum_ns"),
        share_of="sum_ns",
        tree=True,
        top=TOP,
        empty=Empty("No nn.Module names were recorded.", lacks="no modules", of_host=True, nothing="path"),
    ),
    Table(
        "operator_totals",
        "trace",
        "host time of operators by region",
        OPERATOR_TOTALS,
        lambda trace: trace.operator_totals(),
        order=("path", "name", "self_ns", "sum_ns"),
        share_of="self_ns",
    ),
    Table(
        "operator_sums",
        "trace",
        "host time of operators",
        OPERATOR_SUMS,
        lambda trace: operator_sums(trace.operators()),
        order=("name", "self_ns", "sum_ns"),
        share_of="self_ns",
    ),
)
