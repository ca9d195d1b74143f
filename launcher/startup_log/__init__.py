"""What the log of a starting engine says.

- ``progress``: what the engine does
- ``diagnosis``: why it failed, and whether another try helps
- ``weights``: how much of the weights is loaded
"""
