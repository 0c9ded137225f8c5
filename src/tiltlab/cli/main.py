"""The command line's entry point. Its commands parse, show progress and say what went wrong; the work is elsewhere."""

import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from tiltlab.cli.evaluate import evaluate
from tiltlab.cli.export import exports, push
from tiltlab.cli.look import list_, status
from tiltlab.cli.output import print_error
from tiltlab.cli.plan import plan
from tiltlab.cli.progress import errors
from tiltlab.cli.score import score
from tiltlab.cli.study import compare, lab, report, study
from tiltlab.cli.verdict import check, forecast, verdict
from tiltlab.errors import Interrupted, Stopped, UserError
from tiltlab.storage.folder import cannot_write, is_full
from tiltlab.system.memory import tune
from tiltlab.system.signals import interrupted_by_signals
from tiltlab.system.streams import line, stdout, steady
from tiltlab.system.world import is_rank

PATIENCE = 5.0
"""Seconds in which rank 0 can tell its error: torchrun ends it once another rank has ended."""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _tell_version(wanted: bool) -> None:
    if wanted:
        stdout.write(f"tiltlab {version('tiltlab')}\n")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell the version, and end.")
    ] = False,
) -> None:
    """Was the model taught something, or only sharpened?"""
    del version  # it is told by now
    if is_rank() and context.invoked_subcommand != "study":
        raise UserError(f"{context.invoked_subcommand} has one rank: start it without torchrun")


_COMMANDS = (study, plan, evaluate, score, check, forecast, verdict, report, status, compare, push, lab)
for command in _COMMANDS:
    app.command()(command)
app.add_typer(exports, name="export")
app.command("list")(list_)
app.command("sample", help="The same as evaluate, by another name.")(evaluate)


def main() -> None:
    """The `tiltlab` command.

    Errors of the user's making are one line each and exit code 2; a stop by Ctrl-C is exit code 130, one by SIGTERM 143
    and one by SIGHUP 129.
    """
    with steady():
        tune()
        errors.quiet = is_rank() and os.environ["RANK"] != "0"  # all ranks would say the same
        if not sys.stderr.isatty():
            os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries, in a file or a pipe, are noise
        try:
            with interrupted_by_signals():
                app()
        except UserError as error:
            print_error(error)
            if errors.quiet:
                time.sleep(PATIENCE)
            sys.exit(2)
        except OSError as error:
            if not is_full(error):
                raise
            print_error(cannot_write(Path(error.filename or "a file"), error))
            sys.exit(2)
        except Stopped as stopped:
            errors.print(line(f"{stopped}; the same command goes on from there"))
            sys.exit(128 + stopped.signal)
        except Interrupted as interrupted:
            errors.print("interrupted; the same command goes on from the last checkpoint")
            sys.exit(128 + interrupted.signal)
