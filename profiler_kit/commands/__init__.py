"""One module a subcommand: parse options, call the library, print a table or JSON."""
