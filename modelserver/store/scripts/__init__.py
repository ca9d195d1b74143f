"""The Lua scripts. Each is atomic on the server, so a killed process leaves no half.

``atomic`` has those of messages and how any script is run, ``queues`` look into queues
and take out of them, ``runs`` are about the rows of runs, ``hosted`` about who carries
out which run, ``state`` about control, samples and memory.
"""
