"""Pure analyses: frames in, frames out."""
