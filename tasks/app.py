"""The application itself; ``celeryconfig.py`` beside this folder holds its settings."""

from typing import Any

import click

# Imported here although Celery names it as a string: it puts the working directory on
# the import path only while it loads the application.
import celeryconfig
from modelserver import settings
from modelserver.control.applied_fleet import in_force
from modelserver.errors import ConfigurationError, StoreUnreachableError
from modelserver.messaging.remote_control import Control
from modelserver.messaging.transport import AMQP
from modelserver.messaging.wire import CatalogueSource
from modelserver.store import connect
from workers import celery_hooks, pool  # noqa: F401


def _configuration() -> dict[str, Any]:
    try:
        app.modelserver_settings = _in_force(app.modelserver_settings)
        return celeryconfig.configuration(
            app.modelserver_settings, app.modelserver_models
        )
    except (ConfigurationError, StoreUnreachableError) as error:
        context = click.get_current_context(silent=True)
        if context and context.find_root().command.name == "celery":
            # `celery -A tasks ...` would show the user a traceback.
            raise SystemExit(f"modelserver: {error}") from None
        raise


def _in_force(own: settings.Settings) -> settings.Settings:
    """What was applied last, whatever this host's file says meanwhile."""
    try:
        store = connect(own)
    except StoreUnreachableError:
        return own  # A worker waits for the store and goes by it from then on.
    try:
        return in_force(store, own)
    finally:
        store.client.close()


app = celery_hooks.WorkerApplication(
    "modelserver", amqp=AMQP, control=Control, events=celery_hooks.ThinnedEvents
)
app.modelserver_settings = settings.load()
app.modelserver_models = CatalogueSource(app.modelserver_settings)
#: The records that control cannot read and has said so.
app.modelserver_unreadable = set()
app.add_defaults(_configuration)
celery_hooks.install(app)
