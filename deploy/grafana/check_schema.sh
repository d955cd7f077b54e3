#!/usr/bin/env bash
# Compiles dashboards/*.json against Grafana's own types: check_schema.sh [FILE...]
# Installs them from npm into the cache the first time. A machine without npm says that the check was skipped;
# with CI set it fails instead.
set -euo pipefail

grafana=12.3.0 # as GRAFANA_IMAGE in compose.yaml
typescript=5.9.3

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CUTOFF_CACHE:-$HOME/.cache/cutoff}/grafana-schema/$grafana-$typescript
if ! command -v npm >/dev/null; then
  echo "Grafana's schema: 1 check skipped: npm is missing (it installs the types)" >&2
  [[ -z ${CI:-} ]]
  exit
fi
if [[ ! -d $cache/node_modules/@grafana/prometheus ]]; then
  mkdir -p "$cache"
  npm install --silent --no-fund --no-audit --prefix "$cache" "@grafana/schema@$grafana" "typescript@$typescript" >&2
  # Unpacked, not installed: of its many dependencies none is needed for its types.
  (cd "$cache" && npm pack --silent "@grafana/prometheus@$grafana" >/dev/null && tar xzf grafana-prometheus-*.tgz)
  mv "$cache/package" "$cache/node_modules/@grafana/prometheus"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$cache/node_modules" "$work/node_modules"
cp "$here/schema/grafana.ts" "$work"
echo "declare module '@grafana/data';" >"$work/data.d.ts"
[[ $# -gt 0 ]] || set -- "$here"/dashboards/*.json
for file; do
  # On one line with the JSON's first: line numbers in messages are the JSON's.
  { printf "import type { Dashboard } from './grafana'; export const dashboard: Dashboard = "; cat "$file"; } \
    >"$work/$(basename "$file" .json).ts"
done
cd "$work"
node_modules/.bin/tsc --noEmit --strict --exactOptionalPropertyTypes --skipLibCheck --target es2022 --module commonjs \
  --moduleResolution node10 ./*.ts
echo "$# dashboards agree with the types of Grafana $grafana"
