"""OpenAI's HTTP in front of the queues: ``modelserver serve``.

``server`` has the paths; ``reading`` takes bodies in, ``unpacking`` those that came
packed, ``bodies`` finds what is asked in them and joins the answers, ``headers`` reads
what stands beside them, ``calling`` sends requests and follows them, ``direct`` without
Celery's layers, ``patience`` while Redis is away, ``inbox`` hears the parts of streams,
``events`` writes them, ``doorkeeper`` knows keys and limits, ``admission`` refuses what
cannot be answered in time, by the estimate of ``waiting``, ``faults`` tells errors,
``openapi`` describes the paths, ``crowd`` bounds the connections, each of which is a
``connection``.
``batch_paths`` answers for files and batches: ``files`` keeps the one, ``batches``
hands the other, each a record of ``batch_records``, to the fleet as submitted runs;
``unanswered`` tells what they did not come to. ``response_paths`` answers for
responses, which ``responses`` keeps; ``writing`` has JSON and pages of lists.
"""
