"""What the log of a starting engine says.

- ``progress``: what the engine does, and when its start takes too long
- ``diagnosis``: why it failed, and whether another try helps; ``causes`` is what is
  known
- ``weights``: how large the weights are, and how far a download is
"""
