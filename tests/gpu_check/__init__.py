"""``make gpu-check``: what is promised of engines on GPUs, looked at on this machine's.

``promises`` are the steps, in order; ``findings`` what was seen.
"""
