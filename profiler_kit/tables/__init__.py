"""Tables: one declaration each, for every surface."""
