# coze-fastapi: one image for the service, for its Redis (podman-compose.yml) and for development.
# Built by ./podman-build.sh; nothing is pulled but the base. Written for buildah 1.28 and newer, and docker.
# Package index: whatever the base image's pip is configured for, else `--secret id=pip_conf,src=pip.conf`
# (never a layer), else --build-arg PIP_INDEX_URL=... (for an address without a password).

FROM python:3.11-slim-bookworm AS packages
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# With tracing: it is on where OTEL_EXPORTER_OTLP_ENDPOINT is set, and costs nothing where it is not.
COPY requirements-otel.lock /build/requirements.lock
# Nothing is compiled here: a package without a wheel would need a compiler, and fails with pip's sentence.
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=ca_cert \
    for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL; do \
        if [ -z "$(printenv $name)" ]; then unset $name; fi; \
    done; \
    if [ -s /run/secrets/pip_conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip_conf; fi; \
    if [ -s /run/secrets/ca_cert ]; then export PIP_CERT=/run/secrets/ca_cert; fi; \
    python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --no-cache-dir --no-compile \
        --disable-pip-version-check --root-user-action=ignore \
        --only-binary :all: --require-hashes -r /build/requirements.lock \
    && find /opt/venv/lib -type f -regex '.*\.\(c\|h\|pyx\|pxd\|pxi\|pyi\)' -delete \
    && find /opt/venv -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} + \
    && /opt/venv/bin/python -m compileall -q -j 0 /opt/venv/lib

FROM python:3.11-slim-bookworm
# procps: run-service.sh asks ps for processes that are gone.
# redis-server: for development, and as the Redis of podman-compose.yml.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends curl procps redis-server tini tmux \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log /usr/share/doc/* /usr/share/man/* \
    && groupadd --gid 10001 coze \
    && useradd --uid 10001 --gid 10001 --create-home --shell /bin/bash coze \
    && install -d -o coze -g coze -m 0770 /data \
    && install -d -m 0755 /coze-fastapi
COPY --from=packages /opt/venv /opt/venv
COPY --chmod=0755 deploy/containers/idle.sh /usr/local/bin/coze-idle
COPY --chmod=0755 deploy/containers/redis.sh /usr/local/bin/coze-redis
# The environment is outside the project: a project mounted over /coze-fastapi may have its own .venv.
# What the scripts write goes to /data, so that the project may be mounted read-only.
# DRAIN_SECONDS: podman and docker kill what has not ended 10 seconds after they asked.
ENV PATH=/opt/venv/bin:$PATH \
    UV_PROJECT_ENVIRONMENT=/opt/venv \
    COZE_RUN_DIR=/data/run \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=6000 \
    DRAIN_SECONDS=3
WORKDIR /coze-fastapi
# The app reads its version there.
COPY pyproject.toml .
COPY app app
RUN python -m compileall -q app
USER coze
EXPOSE 6000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD curl -fsS -o /dev/null --noproxy '*' --max-time 4 "http://127.0.0.1:${PORT}/coze/health" || exit 1
# -s: does its work also under `podman run --init`, where it is not process 1.
ENTRYPOINT ["/usr/bin/tini", "-s", "--"]
CMD ["python", "-m", "app"]
