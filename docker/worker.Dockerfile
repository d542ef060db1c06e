# syntax=docker/dockerfile:1
# Workers of both roles, beat and Flower. The cpu role does not load torch.
#
# CPU: --build-arg TORCH_INDEX=<address of PyTorch's CPU index>. CUDA: no argument, since PyTorch's ordinary builds include
# their CUDA libraries; the host provides the driver and NVIDIA's container runtime.
ARG PYTHON=3.12.12-slim-bookworm

FROM python:${PYTHON} AS build
ARG EXTRAS=worker,s3,tracing
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY configs/constraints.txt configs/
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY docker/dependencies.py docker/
RUN python -m venv /opt/venv
# By far the largest part, in a separate layer.
RUN if [ -n "${TORCH_INDEX}" ]; then \
        /opt/venv/bin/python -m pip install -c configs/constraints.txt --index-url "${TORCH_INDEX}" torch torchvision; \
    else \
        /opt/venv/bin/python -m pip install -c configs/constraints.txt torch torchvision; \
    fi
RUN /opt/venv/bin/python docker/dependencies.py "${EXTRAS}" > /tmp/wanted.txt && \
    /opt/venv/bin/python -m pip install -c configs/constraints.txt -r /tmp/wanted.txt
COPY shared/ shared/
COPY migrations/ migrations/
COPY api/ api/
COPY worker/ worker/
RUN /opt/venv/bin/python -m pip install --no-deps .
# c2pa-python's wheel brings a static library of 31 MB, which only builds of Rust use.
RUN /opt/venv/bin/python docker/dependencies.py --strip-training && \
    find /opt/venv/lib -name libc2pa_c.rlib -delete && \
    /opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

FROM python:${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="deepfakestream-worker" \
      org.opencontainers.image.description="Workers, beat and Flower of DeepfakeStream" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# The decoders' sandbox uses setpriv and unshare, which are in this base image (util-linux).
RUN setpriv --version && unshare --version && install -d -o 10001 -g 10001 /scratch
COPY --from=build /opt/venv /opt/venv
# For NVIDIA's container runtime; ignored without it.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DEEPFAKESTREAM_WORKER__METRICS_ADDRESS=0.0.0.0 DEEPFAKESTREAM_WORKER__METRICS_PORT=9464
WORKDIR /tmp
USER 10001:10001
EXPOSE 9464
HEALTHCHECK --interval=20s --timeout=10s --start-period=300s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9464/metrics', timeout=8)"]
CMD ["python", "-m", "worker", "--role", "gpu"]
