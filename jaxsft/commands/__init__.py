"""The commands, one module each with `main(arguments) -> exit code`. The command line imports only the one that runs."""
