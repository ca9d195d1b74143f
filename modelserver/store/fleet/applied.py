"""The applied fleet, as JSON; see ``modelserver.control.applied_fleet``."""

from modelserver.store.scripts import state as state_scripts
from modelserver.store.server.state import Store


def publish_fleet(store: Store, fleet: str, replaces: int) -> bool:
    """Write the applied fleet, as JSON, in place of version ``replaces``.

    False if another version stands there by now; see
    ``modelserver.control.applied_fleet``.
    """
    keys = [store.keys.fleet, store.keys.changed]
    return bool(store.run_script(state_scripts.PUBLISH_FLEET, keys, replaces, fleet))


def read_applied_fleet(store: Store) -> str:
    """The applied fleet as JSON, "" before any program has brought one."""
    text = str(store.client.get(store.keys.fleet) or "")
    # Before there were versions, a list of models stood here.
    return text if '"version"' in text else ""
