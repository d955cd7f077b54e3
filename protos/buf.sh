#!/usr/bin/env bash
# Runs buf on the protos: buf.sh lint. Installs the pinned buf from npm into $BUF_CACHE the first time.
# A machine without npm says that the check was skipped; with CI set it fails instead.
set -euo pipefail

version=1.75.0
cache=${BUF_CACHE:-${CUTOFF_CACHE:-$HOME/.cache/cutoff}/buf}/$version
if ! command -v npm >/dev/null; then
  echo "buf: 1 check skipped: npm is missing (it installs buf)" >&2
  [[ -z ${CI:-} ]]
  exit
fi
if [[ ! -x $cache/node_modules/.bin/buf ]]; then
  mkdir -p "$cache"
  npm install --silent --no-fund --no-audit --prefix "$cache" "@bufbuild/buf@$version" >&2
fi
cd "$(dirname "${BASH_SOURCE[0]}")"
exec "$cache/node_modules/.bin/buf" "$@"
