"""Celery's remote control, whose revoking is kept in the store as well.

A broadcast reaches the workers that run. One that starts later finds what was revoked
in the store, however much that is.
"""

from typing import Any

from celery.app.control import Control as CeleryControl

from modelserver.store.keys import Keys
from modelserver.store.messages.revoking import revocations


class Control(CeleryControl):  # type: ignore[misc]
    """The remote control of clients and of the workers' application."""

    def broadcast(self, command: str, arguments: Any = None, **options: Any) -> Any:
        """Tell the workers; a revoked task is noted first."""
        if command == "revoke" and arguments:
            named = arguments["task_id"]
            self._note([named] if isinstance(named, str) else list(named))
        return super().broadcast(command, arguments=arguments, **options)

    def _note(self, tasks: list[str]) -> None:
        prefix = self.app.conf.broker_transport_options.get("global_keyprefix", "")
        with (
            self.app.connection_for_write() as connection,
            connection.default_channel.conn_or_acquire() as client,
        ):
            for arguments in revocations(Keys(prefix), tasks):
                client.eval(*arguments)
