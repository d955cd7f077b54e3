#!/usr/bin/env bash
# Builds the pinned llama.cpp once into a versioned folder. The host and the images use this same script.
#
# usage: build.sh [PREFIX]
#   PREFIX      where to install; default $CUTOFF_CACHE/llama.cpp/<version>-<backend>
#   BACKEND     cpu (default), cuda, hip or vulkan; the backend's own compiler must be there
#   PYTHON      a Python with pip, cmake and ninja; default python3
#   JOBS        parallel compilers; default one per core
#   CMAKE_ARGS  more options for cmake (GPU architectures, for example)
#
# The source is the llama.cpp tree inside the llama-cpp-python archive on PyPI, pinned by hash in
# services/cutoff/llama_cpp/pin.txt: no git clone, nothing that can change under us (docs/adr/0003).
# A folder that is there is complete, because it is renamed into place as the last step.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pin=${PIN:-$here/../../services/cutoff/llama_cpp/pin.txt}
python=${PYTHON:-python3}
backend=${BACKEND:-cpu}
jobs=${JOBS:-$(nproc)}
version=$(sed -n 's/^llama-cpp-python==\([^ ]*\).*/\1/p' "$pin")
prefix=${1:-${CUTOFF_CACHE:-$HOME/.cache/cutoff}/llama.cpp/$version-$backend}

say() { printf 'llama.cpp: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

if [[ -f $prefix/VERSION ]]; then exit 0; fi

case $backend in
  cpu) backend_args=() ;;
  cuda) backend_args=(-DGGML_CUDA=ON) ;;
  hip) backend_args=(-DGGML_HIP=ON) ;;
  vulkan) backend_args=(-DGGML_VULKAN=ON) ;;
  *) die "BACKEND=$backend is not one of cpu, cuda, hip, vulkan" ;;
esac
command -v c++ >/dev/null || die "no C++ compiler; on Debian or Ubuntu: sudo apt-get install g++"

mkdir -p "$(dirname "$prefix")"
exec 9>"$prefix.lock"                       # two builds of one version would do the same work twice
flock 9
if [[ -f $prefix/VERSION ]]; then exit 0; fi

work=$(mktemp -d "$prefix.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
started=$SECONDS

say "fetching $(cut -d' ' -f1 "$pin")"
"$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python --require-hashes --dest "$work" -r "$pin" >"$work/fetch.log" 2>&1 ||
  { tail -n 20 "$work/fetch.log" >&2; die "the source could not be fetched"; }
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work"
source=$(echo "$work"/llama_cpp_python-*/vendor/llama.cpp)

# Portable code (no -march=native) because images move between hosts; static, so that one folder is all.
"$python" -m cmake -S "$source" -B "$work/build" -G Ninja -DCMAKE_MAKE_PROGRAM="$("$python" -c 'import ninja, os; print(os.path.join(ninja.BIN_DIR, "ninja"))')" \
  -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF \
  -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
  -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
  ${backend_args[@]+"${backend_args[@]}"} ${CMAKE_ARGS:-} >"$work/configure.log" 2>&1 ||
  { tail -n 30 "$work/configure.log" >&2; die "cmake refused to configure"; }

# One line per twentieth of the build, with the time that is left.
progress() {
  awk -v started="$(date +%s)" '
    match($0, /^\[[0-9]+\/[0-9]+\]/) {
      split(substr($0, 2, RLENGTH - 2), n, "/"); share = int(20 * n[1] / n[2])
      if (share > shown) {
        shown = share; "date +%s" | getline now; close("date +%s")
        printf "llama.cpp: building %d%% (%d of %d files), about %d min left\n", 5 * share, n[1], n[2], ((now - started) * (n[2] - n[1]) / n[1] + 59) / 60
        fflush()
      }
      next
    }'
}
say "building for $backend with $jobs jobs (about 11 minutes on two cores, once)"
"$python" -m cmake --build "$work/build" --parallel "$jobs" --target llama-quantize llama-server llama-imatrix 2>&1 |
  tee "$work/build.log" | progress >&2 || { grep -A 20 'FAILED' "$work/build.log" | head -n 40 >&2; die "the build failed"; }

out=$work/out
mkdir -p "$out/bin"
cp "$work"/build/bin/{llama-quantize,llama-server,llama-imatrix} "$out/bin/"
strip "$out"/bin/*
cp -r "$source"/{convert_hf_to_gguf.py,conversion,gguf-py,LICENSE} "$out/"
printf '%s-%s\n' "$version" "$backend" >"$out/VERSION"
rm -rf "$prefix"
mv "$out" "$prefix"
rm -f "$prefix.lock"
say "installed in $prefix after $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s"
