"""Which interface of this host has an address."""

import ipaddress

import psutil


def find_interface(address: str) -> str:
    """The interface with this IP address, "" where none has it."""
    wanted = ipaddress.ip_address(address)
    for name, addresses in psutil.net_if_addrs().items():
        for each in addresses:
            try:
                # An address of IPv6 may have its interface behind it.
                found = ipaddress.ip_address(each.address.partition("%")[0])
            except ValueError:
                continue  # That of the hardware.
            if found == wanted:
                return str(name)
    return ""
