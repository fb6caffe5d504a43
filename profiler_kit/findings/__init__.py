"""What the numbers say, in sentences with their evidence."""
