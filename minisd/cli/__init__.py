"""What the command line does: painting, and one file for each subcommand, named like it."""
