# syntax=docker/dockerfile:1
# The api, migrations and operators' commands: no torch, no OpenCV, no ffmpeg.
ARG PYTHON=3.12.12-slim-bookworm

FROM python:${PYTHON} AS build
ARG EXTRAS=api,s3,timestamps,tracing
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
# Dependencies first: they rarely change.
COPY configs/constraints.txt configs/
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY docker/dependencies.py docker/
RUN python -m venv /opt/venv
RUN /opt/venv/bin/python docker/dependencies.py "${EXTRAS}" > /tmp/wanted.txt && \
    /opt/venv/bin/python -m pip install -c configs/constraints.txt -r /tmp/wanted.txt
COPY api/ api/
COPY shared/ shared/
COPY migrations/ migrations/
COPY worker/ worker/
RUN /opt/venv/bin/python -m pip install --no-deps .
# Remove what only the worker or the embedded stack needs.
RUN /opt/venv/bin/python docker/dependencies.py --strip-worker && \
    /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="deepfakestream-api" \
      org.opencontainers.image.description="The api of DeepfakeStream, its migrations and its operators' commands" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DEEPFAKESTREAM_API__HOST=0.0.0.0
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
CMD ["gunicorn", "-c", "python:api.gunicorn"]
