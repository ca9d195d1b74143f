"""What people are told where a disk of this host does not take or give a file."""

import errno

#: Errors that a disk makes and no program, each with its remedy.
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room on its disk"),
    errno.EROFS: "have its disk mounted for writing",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "let this user have it"),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "see to its disk (`dmesg`)"),
}


def is_of_disk(error: OSError) -> bool:
    """Whether a disk, or who may use it, is at fault, and not a program.

    What is refused and is no file may be a port.
    """
    of_file = error.filename is not None or not isinstance(error, PermissionError)
    return error.errno in REMEDIES and of_file


def with_remedy(error: OSError) -> str:
    """An error of this host's files, with the remedy where one is known.

    >>> with_remedy(OSError(errno.ENOSPC, "No space left on device"))
    '[Errno 28] No space left on device; make room on its disk'
    """
    remedy = REMEDIES.get(error.errno or 0, "")
    return f"{error}; {remedy}" if remedy else str(error)
