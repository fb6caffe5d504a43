"""Read the ranks of a job into its store: one by one, by several processes, or by a cluster."""
