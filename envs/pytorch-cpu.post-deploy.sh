#!/usr/bin/env bash
# Run by Snakemake in an environment that conda has just built. pip takes torch's CUDA build unless it
# is told where the CPU build lies, and CUDA's libraries are not in this environment: take the CPU
# build of the same version, from where uv knows it to be.
set -euo pipefail
python -c 'import torch' 2>/dev/null && exit
version=$(python -c 'import importlib.metadata as m; print(m.version("torch").partition("+")[0])')
exec uv pip install --quiet --python "$(command -v python)" --no-deps --reinstall-package torch \
    --torch-backend cpu "torch==$version"
