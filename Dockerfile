# The same make commands in a box without CUDA:
#   docker build --target test -t torch-stn:test .   && docker run --rm torch-stn:test
#   docker build --target demo -t torch-stn:demo .   && docker run --rm -v "$PWD/runs:/torch-stn/runs" torch-stn:demo
FROM python:3.12-slim AS base
RUN apt-get update && apt-get install -y --no-install-recommends g++ make && rm -rf /var/lib/apt/lists/*
WORKDIR /torch-stn
ENV TORCH_INDEX=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1
# The environment depends on these alone, so a change of the code does not install torch again.
COPY pyproject.toml setup.py Makefile README.md LICENSE ./
COPY scripts scripts
COPY torch_stn/_version.py torch_stn/_version.py
COPY torch_stn/sampling/backends/csrc torch_stn/sampling/backends/csrc

FROM base AS test
RUN make venv-dev
COPY . .
CMD ["make", "test"]

FROM base AS demo
RUN make venv-lab
COPY . .
CMD ["make", "demo"]
