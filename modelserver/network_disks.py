"""Which folders lie on a disk of the network, whose locks are not to be relied on."""

import os
from pathlib import Path

#: File systems that other hosts see as well.
NETWORK_TYPES = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre"),
        *("gpfs", "beegfs", "panfs", "wekafs", "orangefs", "gfs2", "ocfs2", "virtiofs"),
        *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.juicefs"),
    }
)
#: Where Linux tells what is mounted.
MOUNTS = Path("/proc/self/mounts")


def find_network_disk(folder: Path, mounts: str | None = None) -> str:
    """The type of the network's file system that ``folder`` is on, "" for a local one.

    >>> find_network_disk(Path("/data/x"), "h:/ / ext4 rw 0 0\\nh:/x /data nfs4 rw 0 0")
    'nfs4'
    """
    if mounts is None:
        try:
            mounts = MOUNTS.read_text(errors="replace")
        except OSError:
            return ""
    path = Path(os.path.realpath(folder))
    found, kind = Path("/"), ""
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        # Spaces of a folder's name are written as \040.
        mounted, type_ = Path(words[1].replace("\\040", " ")), words[2]
        if path.is_relative_to(mounted) and len(mounted.parts) >= len(found.parts):
            found, kind = mounted, type_
    return kind if kind in NETWORK_TYPES else ""
