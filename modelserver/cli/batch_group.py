"""``modelserver batch`` with its subcommands."""

from modelserver.cli.batch import batch
from modelserver.cli.batch_hosted import cancel, list_runs, pause, resume, submit
from modelserver.cli.batch_watch import results, watch

__all__ = ["batch"]

for command in (submit, list_runs, watch, results, pause, resume, cancel):
    batch.add_command(command)
