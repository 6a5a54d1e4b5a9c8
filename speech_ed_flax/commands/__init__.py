"""The commands of the command line, one a module; what is heavy is imported when a command runs."""
