# One image for every part of modelserver. Engines are not in it: they live in
# environments of their own below /data, made by `modelserver engines install`, or in
# images of their own.
FROM python:3.12-slim AS build
COPY pyproject.toml README.md LICENSE celeryconfig.py flowerconfig.py /src/
COPY launcher /src/launcher
COPY modelserver /src/modelserver
COPY tasks /src/tasks
COPY workers /src/workers
RUN python3 -m venv /opt/modelserver && \
    /opt/modelserver/bin/pip install --no-cache-dir '/src[host]'

FROM python:3.12-slim AS host
# Triton compiles its launchers with gcc; SGLang's kernels load libnuma.
RUN apt-get update && \
    apt-get install -y --no-install-recommends gcc libc6-dev libnuma1 && \
    rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 modelserver && \
    install -d -o modelserver /data /fleet \
      /home/modelserver/.cache /home/modelserver/.cache/huggingface
COPY --from=build /opt/modelserver /opt/modelserver
ENV PATH=/opt/modelserver/bin:$PATH MODELSERVER_HOME=/data
USER modelserver
WORKDIR /fleet
ENTRYPOINT ["modelserver"]

# The same for engines that are images: their launcher runs `docker run` on the host.
FROM host AS images
USER root
RUN apt-get update && \
    (apt-get install -y --no-install-recommends docker-cli || \
     apt-get install -y --no-install-recommends docker.io) && \
    rm -rf /var/lib/apt/lists/*
USER modelserver
