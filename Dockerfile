# jtrust for an NVIDIA GPU: Debian's Python, and CUDA from its packages on PyPI. Nothing else is fetched.
#
#   docker build -t jtrust .
#   docker run --rm --gpus all -v "$PWD/runs:/runs" jtrust train brax/ant
#
# The host needs NVIDIA's driver (580 or newer, for CUDA 13) and its container toolkit. For CPUs alone:
# `--build-arg EXTRAS=playground,render,report`. Podman and buildah build it too.

ARG BASE=docker.io/library/debian:trixie-slim

FROM ${BASE} AS wheel
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv ca-certificates \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY jtrust jtrust
RUN /opt/build/bin/python -m build --wheel --outdir /wheels

FROM ${BASE}
# libegl1 and libgles2 hand MuJoCo's renderer on to the driver, which the container toolkit brings along.
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      python3 python3-venv ca-certificates libegl1 libgles2 libgl1 \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/jtrust
ARG EXTRAS=cuda,playground,render,report
COPY --from=wheel /wheels /wheels
RUN /opt/jtrust/bin/pip install --no-cache-dir "$(ls /wheels/*.whl)[${EXTRAS}]" && rm -r /wheels

# Whoever the container runs as (`--user`), there is a home and a place for runs.
ENV PATH=/opt/jtrust/bin:$PATH HOME=/home/jtrust MUJOCO_GL=egl \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics
RUN useradd --uid 1000 --home-dir /home/jtrust --create-home jtrust \
 && mkdir /runs && chmod 1777 /runs /home/jtrust
USER jtrust
WORKDIR /runs
VOLUME /runs
ENTRYPOINT ["jtrust"]
CMD ["--help"]
