"""`python -m profiler_kit.cli`: the command line without its script."""

from profiler_kit.cli import main

main()
