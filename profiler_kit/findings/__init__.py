"""What is worth saying about a run, each thing said once: the command line, the dashboard, the report, Markdown and
notebooks lay findings out and word nothing.
"""
