"""What operators read, and the server for a first try.

- ``status``: what ``modelserver status`` shows
- ``prometheus``: metrics
- ``probe``: asks engines, side by side
- ``incidents``: what was kept of engines that were ended
- ``embedded_valkey``: a Valkey server for one machine
"""
