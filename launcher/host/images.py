"""``python -m launcher.host.images IMAGE ...``: which images engines can run in here.

Prints JSON: each image with what is wrong with it, "" where nothing is.
"""

import json
import sys

from launcher.host.containers import Containers, Runtime, require_image
from modelserver.errors import ConfigurationError
from modelserver.settings import load


def main(images: list[str]) -> None:
    """Look at each image."""
    containers = Containers(load().container_program, owner="")
    print(json.dumps({image: _fault(containers.find(), image) for image in images}))


def _fault(runtime: Runtime | str, image: str) -> str:
    if isinstance(runtime, str):
        return runtime
    try:
        require_image(runtime, image)
    except ConfigurationError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main(sys.argv[1:])
