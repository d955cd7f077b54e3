"""The `cutoff` command. `cutoff --help` lists what it can do; docs/exit-codes.md what its exit codes mean.

Data goes to stdout (JSON with --json), progress and errors to stderr. A new command is a function in a module of
`client/commands`, and a line here.
"""

from __future__ import annotations

import typer

import cutoff
from cutoff.client.commands import after, before, here, jobs, operations, tokens

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Gives a language model a knowledge cutoff."
)

app.command()(here.run)
app.command()(before.plan)
app.command()(before.check)
app.command()(jobs.submit)
app.command()(jobs.get)
app.command("list")(jobs.list_jobs)
app.command()(jobs.watch)
app.command()(operations.logs)
app.command()(jobs.cancel)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(jobs.retry)
app.command()(after.report)
app.command()(after.compare)
app.command()(after.ask)
app.command()(after.install)
app.command()(after.uninstall)
app.command()(here.demo)
app.command()(here.init)
app.command()(here.serve)
app.command()(operations.doctor)
app.command()(operations.drain)
app.command()(operations.gc)
app.add_typer(tokens.tokens, name="token")


@app.command()
def version() -> None:
    """Prints the version."""
    print(cutoff.__version__)


def main() -> None:
    """The console script."""
    app()
