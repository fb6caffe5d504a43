"""Students: small encoders that learn from a SAM's, with the teacher's own decoder behind them."""
