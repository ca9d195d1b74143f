"""``python -m modelserver.cli`` is ``modelserver``."""

from modelserver.cli import main

main()
