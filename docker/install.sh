#!/bin/sh
# Installs into an image's environment, /opt/cutoff, with the pip that the build mounts. Called by the Dockerfile.
#
# usage: install requirements NAME          what docker/requirements/NAME.txt pins, each file by its hash
#        install torch cpu|cuda             PyTorch, by its hash
#        install torch rocmX.Y VERSION      PyTorch from its index for a ROCm, which carries no hashes we could pin
#        install cutoff                     the package itself
set -eu

export PIP_CACHE_DIR=/root/.cache/pip  # where the build mounts a cache; HOME is /tmp, which would end up in a layer

pip_install() {
  /opt/tools/bin/python -m pip --python /opt/cutoff/bin/python install --quiet --disable-pip-version-check \
    --no-warn-script-location "$@"
}
pinned() { pip_install --no-deps --require-hashes "$@"; }

torch() {
  case $1 in
    cpu)
      if ls /wheels/torch-*.whl >/dev/null 2>&1; then set -- --no-index --find-links /wheels; else
        set -- --index-url https://download.pytorch.org/whl/cpu
      fi
      pinned "$@" -r /requirements/torch-cpu.txt ;;
    cuda) pinned -r /requirements/torch-cuda.txt ;;
    rocm*) pip_install "torch==$2" --index-url "https://download.pytorch.org/whl/$1" ;;
    *) echo "TORCH=$1 is not cpu, cuda or rocmX.Y" >&2; exit 2 ;;
  esac
}

case $1 in
  requirements) pinned -r "/requirements/$2.txt" ;;
  torch) torch "$2" "${3:-}" ;;
  cutoff) pip_install --no-deps --no-index /wheel/*.whl ;;
  *) echo "install $1: see the head of this file" >&2; exit 2 ;;
esac
