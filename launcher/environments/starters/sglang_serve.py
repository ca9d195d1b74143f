"""``sglang`` with its API key from the environment, not from the command line.

SGLang takes a key by a flag only, which every user of the host could read in the list
of processes, and it logs all of its flags when it starts. So the key is added here,
inside the process, and taken out of what this process and its children write.
"""

import io
import os
import sys

KEY = os.environ.get("MODELSERVER_ENGINE_KEY", "")


class _Discreet(io.TextIOWrapper):
    """A stream that writes ``***`` where the key would stand."""

    def write(self, text: str) -> int:
        return super().write(text.replace(KEY, "***"))


def _hide_key() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        discreet = _Discreet(
            stream.buffer, stream.encoding, stream.errors, write_through=True
        )
        setattr(sys, name, discreet)


# Not only in the main process: a spawned child imports this file as well.
if KEY:
    _hide_key()

if __name__ == "__main__":
    from sglang.cli.main import main

    if KEY:
        sys.argv += ["--api-key", KEY]
    sys.exit(main())
