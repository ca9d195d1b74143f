"""The application itself; ``celeryconfig.py`` beside this folder holds its settings."""

from typing import Any

import click
from celery import Celery

# Imported here although Celery names it as a string: it puts the working directory on
# the import path only while it loads the application.
import celeryconfig
from modelserver import settings
from modelserver.errors import StoreUnreachableError
from modelserver.transport import AMQP
from workers import pool, steps  # noqa: F401
from workers.events import Events


def _configuration() -> dict[str, Any]:
    try:
        return celeryconfig.configuration(app.modelserver_settings)
    except StoreUnreachableError as error:
        context = click.get_current_context(silent=True)
        if context and context.find_root().command.name == "celery":
            # `celery -A tasks ...` would show the user a traceback.
            raise SystemExit(f"modelserver: {error}") from None
        raise


app = Celery("modelserver", amqp=AMQP, events=Events)
app.modelserver_settings = settings.load()
app.add_defaults(_configuration)
steps.install(app)
