"""What can be captured and measured: any model behind one small protocol."""
