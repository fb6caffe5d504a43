"""Everything profiler_kit raises on purpose: one tree, one line a message.

KitError
├── InputError          a file the user named is missing, empty, or not what it should be
│   ├── TraceFormatError
│   ├── SnapshotFormatError
│   ├── RunFormatError
│   └── CheckpointError
├── OutputError         a file cannot be written (the disk is full, a folder is in its way); an OSError, too
├── OptionError         a value the user chose cannot be used (unknown region, device, batch size of 0)
├── CaptureError        recording cannot start or finish (the disk is full)
│   └── StartError      it cannot start (a profiler is already running)
├── ThresholdError      what was measured is beyond the limit the user set
├── WorkloadError       it is not a workload, it failed, or it cannot run here (no such device, out of memory)
└── SchemaError         a frame lacks a column or has another dtype: a defect in the calling code

A message names the file, what was found, what was expected, and what to try. The command line prints it on one
line of stderr and exits with 1; the dashboard shows it with `st.error`.
"""

from __future__ import annotations


class KitError(Exception):
    """Base class of every error that profiler_kit raises."""


class InputError(KitError):
    """A file the user named is missing, empty, or not what it should be."""


class TraceFormatError(InputError):
    """The file is not a chrome trace, or nothing of it could be read."""


class SnapshotFormatError(InputError):
    """The file is no CUDA memory snapshot, or it was refused."""


class RunFormatError(InputError):
    """The folder is not a run folder, or one of its files is broken."""


class CheckpointError(InputError):
    """The checkpoint does not fit the model, or is not a checkpoint."""


class OutputError(KitError, OSError):
    """A file cannot be written."""


class OptionError(KitError):
    """A value the user chose cannot be used."""


class CaptureError(KitError):
    """Recording cannot start or finish."""


class StartError(CaptureError):
    """Recording cannot start; a recording around it that this error ends writes nothing when it holds nothing."""


class ThresholdError(KitError):
    """What was measured is beyond the limit the user set."""


class WorkloadError(KitError):
    """It is not a workload, it failed, or it cannot run on this machine."""


class SchemaError(KitError):
    """A frame lacks a column or has a column of another dtype."""
