"""A file of requests as a run: ``modelserver batch run in.jsonl -o out.jsonl``.

- ``batch_run``: the run itself, from the first look at the input to the report
- ``source``: the input, read line by line: JSONL, CSV, Parquet, gzip, zstd, a pipe
- ``lines``: what a line of OpenAI's Batch API must be, and what it becomes
- ``validation``: the whole input looked at before anything is sent
- ``batch_form``: answers and errors in OpenAI's form
- ``output``: files that are only ever appended to, and what stands in them already
- ``sorting``: the output put into the order of the input
- ``journal``: what a run was begun with, beside its output
- ``tally``: what came of the rows, counted and timed
- ``problems``: what is wrong with a file, as an error
"""
