"""The fleet page: ``modelserver ui``, HTML that is written here and runs no build.

- ``server``: the paths, and the headers of every answer
- ``door``: who may come in: password, session, form tokens
- ``password``: the one password of page and Flower, and the file that keeps it
- ``pages``: which page shows what
- ``reading``: the whole fleet at one time, as the page and ``modelserver top`` show it
- ``figures``: rates, waits and sums that the store does not hold as such
- ``acting``: what buttons order
- ``drawing``: templates into HTML
- ``charts``: lines and dots as SVG

``templates`` holds what is drawn, ``static`` the style and the script that refetches
what changes.
"""
