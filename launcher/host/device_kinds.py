"""Devices that are not supported, and what is said of them at once."""

from pathlib import Path

#: Who makes what computes and is not supported, by the number on the bus.
VENDORS = {"0x1002": "AMD", "0x8086": "Intel", "0x1da3": "Intel (Gaudi)"}
#: How the classes of displays and of accelerators begin.
CLASSES = ("0x03", "0x12")
#: What can be done with a device that is not supported.
REMEDY = "run its engines as `command` without gpus"
#: Why a GPU without memory of its own is left out.
UNIFIED = f"its memory is the host's (unified), which is not supported; {REMEDY}"


def describe_others(devices: Path = Path("/sys/bus/pci/devices")) -> str:
    """What is to be said of a host whose GPUs are others than NVIDIA's, "" for none."""
    found = set()
    for device in devices.glob("*"):
        try:
            kind = (device / "class").read_text().strip()
            vendor = (device / "vendor").read_text().strip()
        except OSError:
            continue
        if kind.startswith(CLASSES) and vendor in VENDORS:
            found.add(VENDORS[vendor])
    if not found:
        return ""
    return f"GPUs of {' and '.join(sorted(found))} are not supported; {REMEDY}"
