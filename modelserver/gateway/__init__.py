"""OpenAI's HTTP in front of the queues: ``modelserver serve``.

``server`` has the paths; ``bodies`` reads what is asked and joins the answers,
``calling`` sends requests and follows them, ``inbox`` hears the parts of streams,
``events`` writes them, ``doorkeeper`` knows keys and limits, ``faults`` tells errors.
"""
