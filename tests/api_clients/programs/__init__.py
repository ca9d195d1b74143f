"""What users of each client write, run by an interpreter that has it.

``trials`` is what they share, once in each language; ``try_CLIENT`` has the trials of a
client.
"""
