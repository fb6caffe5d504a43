"""Find runs, jobs, ladders and studies under a folder."""
