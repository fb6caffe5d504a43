"""Read dumps of torch's flight recorder: what collectives each rank had issued when the job hung."""
