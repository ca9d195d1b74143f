"""How a real server keeps its data."""

from modelserver.store.server.keeping import ServerKeeping, read_keeping
from modelserver.store.server.state import connect_to
from tests.support.processes import ValkeyProcess


def test_a_server_tells_how_it_keeps_its_data(valkey: ValkeyProcess):
    store = connect_to(valkey.url, "ms:")
    store.client.config_set("save", "")
    store.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert read_keeping(store) == ServerKeeping("", False, "allkeys-lru", True)
        store.client.config_set("save", "3600 1")
        store.client.config_set("maxmemory-policy", "noeviction")
        assert read_keeping(store) == ServerKeeping(is_open=True)
    finally:
        store.client.config_set("save", "")
        store.client.close()
