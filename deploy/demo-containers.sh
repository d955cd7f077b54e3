#!/usr/bin/env bash
# The demo in containers: makes a world, starts the composed system on it, runs the job, leaves the system running.
#
# It is a compose project of its own, cutoff-demo, with a port of its own: a real system is left alone.
#
# usage: demo-containers.sh WORLD [FACTS] [SEED]       (from the project's root; `make demo-containers` calls it)
# stop:  docker compose -p cutoff-demo down -v
set -euo pipefail

world=$(realpath -m "$1")
cutoff=.venv/bin/cutoff
export COMPOSE_PROJECT_NAME=cutoff-demo CUTOFF_PORT=${CUTOFF_PORT:-50061}
export CUTOFF_ADDRESS=127.0.0.1:$CUTOFF_PORT
export CUTOFF_DATASETS=$world/datasets CUTOFF_BASE_MODELS=$world LMSTUDIO_MODELS=$world/container-models

"$cutoff" demo --out "$world" --facts "${2:-160}" --seed "${3:-1}" --base-model /base-models/base --control
rm -rf "$LMSTUDIO_MODELS"  # what an earlier demo left: a new system takes it for somebody else's
mkdir -p "$LMSTUDIO_MODELS"

# Containers never run as root; whoever calls this owns what they write, and root gives the folder away.
if [[ $(id -u) -eq 0 ]]; then
  chown "${CUTOFF_UID:-1000}:${CUTOFF_GID:-1000}" "$LMSTUDIO_MODELS"
else
  export CUTOFF_UID=${CUTOFF_UID:-$(id -u)} CUTOFF_GID=${CUTOFF_GID:-$(id -g)}
fi

docker compose up -d --wait
"$cutoff" submit "$world/job.yaml" --watch
find "$LMSTUDIO_MODELS" -name '*.gguf'
