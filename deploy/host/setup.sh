#!/usr/bin/env bash
# Makes the virtual environment that `make demo` and `make test` use, and builds the pinned llama.cpp.
# Safe to run again: what is there and current is left alone, in well under 2 s.
#
# usage: setup.sh             (from the project's root; `make setup` calls it)
#   TORCH   auto (default), cpu, cuda or rocm: which build of PyTorch; see choose_torch.py
#   PYTHON  a Python 3.11; default python3.11, else python3
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$root/.venv
torch=${TORCH:-auto}

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

find_python() {
  local name
  for name in ${PYTHON:-python3.11 python3}; do
    "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && { command -v "$name"; return; }
  done
  die "Python 3.11 with venv is missing; on Debian 12: sudo apt-get install python3 python3-venv (elsewhere: set PYTHON)"
}

python=$(find_python)
command -v c++ >/dev/null || die "a C++ compiler is missing (llama.cpp is built with it); on Debian or Ubuntu: sudo apt-get install g++"

# Everything an up-to-date environment depends on; it is complete when its stamp says the same.
stamp=$(cat "$root/pyproject.toml" "$root/constraints.txt" "$root/deploy/host/choose_torch.py" <(echo "$torch $root") | sha256sum | cut -d' ' -f1)
if [[ $(cat "$venv/.stamp" 2>/dev/null) != "$stamp" ]]; then
  started=$SECONDS
  say "making $venv (about 2 minutes)"
  [[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
  pip=("$venv/bin/python" -m pip --disable-pip-version-check)
  options=$("$venv/bin/python" "$root/deploy/host/choose_torch.py" "$torch")
  say "PyTorch: pip install $options"
  # shellcheck disable=SC2086  # the options are words
  "${pip[@]}" install --quiet $options
  # From here on torch stays as it is: pip must not trade a ROCm or CPU build for the one on PyPI.
  version=$("$venv/bin/python" -c 'import importlib.metadata; print(importlib.metadata.version("torch").partition("+")[0])')
  extras=client,coordinator,trainer,merger,gguf-converter,evaluator,dev
  if "$venv/bin/python" "$root/deploy/host/choose_torch.py" has-muon "$version"; then extras=$extras,demo; else
    say "PyTorch $version is too old for the demo world (it needs 2.9); everything else is installed"
  fi
  "${pip[@]}" install --quiet --constraint "$root/constraints.txt" --constraint <(echo "torch==$version") --editable "$root[$extras]"
  echo "$stamp" >"$venv/.stamp"
  say "ready after $((SECONDS - started)) s"
fi

PYTHON=$venv/bin/python "$root/docker/llama-cpp/build.sh"
