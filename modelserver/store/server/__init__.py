"""The server and the connection to it.

``state`` has ``Store``, the blocking connection, ``connections`` opens connections that
leave a server which takes no writes, ``line`` is one for many commands at once,
``away_log`` tells of one that is away, ``trouble`` says why one cannot be used,
``unfit`` which ones no fleet can use, ``keeping`` how the server keeps its data,
``versions`` reads what other versions may have written.
"""
