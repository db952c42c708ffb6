"""The command `lossdoctor`: its verbs, and how it ends.

Exit codes: 0 nothing to report, 1 findings (or failed rule tests), 2 bad usage or unreadable input, 130 interrupted.
A mistake of the user is one line on stderr; a traceback is always a bug of lossdoctor.
"""

from collections.abc import Sequence
from typing import Annotated

import typer

import lossdoctor
from lossdoctor.cli.analyze import analyze
from lossdoctor.cli.compare import compare
from lossdoctor.cli.demo import demo
from lossdoctor.cli.output import complain, write
from lossdoctor.cli.rules import rules
from lossdoctor.cli.watch import watch
from lossdoctor.errors import LossDoctorError

__all__ = ["app", "main"]

_BAD_USAGE = 2
_INTERRUPTED = 130

app = typer.Typer(
    name="lossdoctor",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(analyze)
app.command()(watch)
app.command()(compare)
app.add_typer(rules)
app.command()(demo)


@app.callback(invoke_without_command=True)
def _lossdoctor(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Say what is wrong with a training, since when, and what to do about it."""
    if version:
        write(f"lossdoctor {lossdoctor.__version__}\n")
        raise typer.Exit
    if context.invoked_subcommand is None:
        write(context.get_help() + "\n")
        raise typer.Exit(_BAD_USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (default: those of the process) and return its exit code."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="lossdoctor", standalone_mode=False)
    except LossDoctorError as error:
        complain(str(error))
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "lossdoctor"
        message = error.format_message().replace("Value error, ", "").rstrip(".")
        complain(f"{message}; see {command} --help")
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    else:
        return code if isinstance(code, int) else 0
    return _BAD_USAGE
