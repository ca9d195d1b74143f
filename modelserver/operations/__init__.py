"""What operators read and order, and the server for a first try.

- ``status``: the whole fleet at one time
- ``waiting``: what engines without a place wait for
- ``words``: times, GPUs and decisions in plain words
- ``replaying``: what would be decided today in their place
- ``traffic``: what an engine's last requests measured
- ``prometheus``: the same as metrics
- ``checks``: what stands in the way of a fleet, with remedies; ``check`` is one,
  ``server_checks`` are those of Redis, ``host_checks`` those of beat and the hosts
- ``kept_responses``: what responses of the gateways take, and which of them have to go
- ``joining``: what stands in the way of a host that is to be one of a fleet's
- ``probe``: asks engines side by side
- ``incidents``: what was kept of engines that hung, died or never got ready
- ``orders``: relaunch, drain and pause
- ``hosted_runs``: how submitted runs stand
- ``cancelling``: ends requests that nobody wants any more
- ``dead_letters``: sends dead letters again, or forgets them
- ``alive``: whether a part works on this host
- ``units``: a host's programs as units of systemd
- ``embedded_valkey``: a Valkey server for one machine
"""
