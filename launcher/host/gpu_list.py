"""This host's GPUs, for commands that look before a launcher runs.

``python -m launcher.host.gpu_list`` prints the driver and the GPUs as JSON.
"""

import json

from launcher.host.gpus import GpuInventory

if __name__ == "__main__":
    inventory = GpuInventory()
    names = [gpu.name for gpu in inventory.read()]
    print(json.dumps({"driver": inventory.driver, "gpus": names}))
