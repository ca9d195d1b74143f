"""Control, the periodic job of beat: read the fleet's state, decide, publish.

- ``scheduler``: what has beat start it
- ``steer``: one look at the fleet
- ``availability``: which models are down, and what their requests do meanwhile
- ``silent_hosts``: which hosts have stopped reporting
- ``troubles``: what is wrong, for people to be told
- ``alerts``: who is told of what
- ``hooks``: the command and the webhook that get alerts, also after they were down
- ``webhook``: how the webhook gets one
- ``applied_fleet``: which fleet is in force
- ``doubts``: what is doubtful about a fleet that is to be applied
- ``applying``: how another fleet comes into force
"""
