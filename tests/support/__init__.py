"""What tests share: real servers, workers, launchers and fleets as processes.

- ``processes``: waiting, a real server, a real launcher
- ``trial``: what a benchmark or chaos run begins and ends
- ``workers``: server, engines, workers and a client
- ``shared_fleet``: one worker and its engines for all tests of a module
- ``runs``: rows of runs, and their answers by number
- ``launches``: commands of engines, as adapters give them
- ``launchers``: launchers of one host, and engines that fail on demand
- ``launcher_resources``: what a launcher has of its host, in a folder
- ``fragile``: an engine that dies of a certain prompt
- ``fleets``: several hosts on this machine, with control and a client
- ``containers``: real containers with this machine's own programs
- ``celery_tasks``: tasks of a user's own beside the requests
- ``fault_simulation``: requests on engines that fail, in simulated time
- ``control``: engines as control sees them
- ``alerts``: settings of a fleet that alerts people
- ``placement``: hosts and models to be placed
- ``rebalance``: two models with their engines on one host
- ``sentinels``: servers that sentinels watch, and failovers among them
- ``secure_redis``: a real server behind TLS, and who gives out its certificates
- ``batch_files``: files of requests, and the command that runs them
- ``hosted_runs``: submitted runs, and processes that hold them
- ``run_lanes``: a way for a run's rows that ends in memory
- ``fleet_records``: a fleet that exists in the store alone
- ``page_visits``: the fleet page, and visits to it over HTTP
- ``otel``: OpenTelemetry, which is installed apart
- ``browser``: a real Chromium without a window
- ``sources``: the project's own source files
"""
