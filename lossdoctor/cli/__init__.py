"""The command line: one module for each verb, none of which decides anything that Python code could not ask for."""

from lossdoctor.cli.app import app, main

__all__ = ["app", "main"]
