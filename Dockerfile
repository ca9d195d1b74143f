# One image for launcher, worker, beat and Flower. Engines are not in it: they live in
# environments of their own below /data, made by `modelserver engines install`.
FROM python:3.12-slim
RUN useradd --create-home --uid 1000 modelserver && install -d -o modelserver /data
COPY . /src
RUN pip install --no-cache-dir '/src[host]' && rm -rf /src
USER modelserver
WORKDIR /fleet
ENV MODELSERVER_HOME=/data
ENTRYPOINT ["modelserver"]
