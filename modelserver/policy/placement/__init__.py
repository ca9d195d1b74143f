"""Which engines the fleet wants, and on which GPUs of which host each of them belongs.

``needs`` says what an engine takes, ``rooms`` what hosts still have to give and why an
engine fits nowhere, ``offers`` remembers that, ``nodes`` says where an engine goes that
takes several hosts, ``silent_hosts`` for how long the engines of a silent host keep
their places, ``planning`` brings them together, ``evening`` moves engines to a host
that is back.
"""
