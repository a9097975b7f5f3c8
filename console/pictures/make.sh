#!/usr/bin/env bash
# Makes the pictures of the console: a real console under tmux, against a stack that runs real jobs. Needs tmux, python3 and the two
# Python packages pyte and pillow. Usage: console/pictures/make.sh [FOLDER WITH THE THREE PROGRAMS]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
programs=$(cd "${1:-$root/target/release}" && pwd)
modchain=$programs/modchain
home=$(mktemp -d)
frames=$home/frames
mkdir -p "$frames"

# A server that ends is in the way of the next one on its socket.
server=0
terminal() { tmux -S "$home/tmux-$server" -f /dev/null "$@"; }

up=
finish() {
    terminal kill-server 2>/dev/null || true
    [[ -z $up ]] || { kill "$up" && wait "$up" || true; }
    rm -rf "$home"
}
trap finish EXIT

# Nothing of the user's own environment is in the pictures.
clean=(env -i "PATH=$PATH" "HOME=$home" "XDG_RUNTIME_DIR=$home" LC_ALL=C.UTF-8 TERM=tmux-256color TZ=UTC PS1='$ ')
run() { (cd "$root/examples" && "${clean[@]}" "$modchain" "$@" >/dev/null 2>&1); }

# Waits until the screen shows this.
shows() {
    local tries
    for tries in {1..600}; do
        terminal capture-pane -p | grep -qF -- "$1" && return
        sleep 0.05
    done
    echo "never shown: $1" >&2
    terminal capture-pane -p >&2
    return 1
}

# Starts a console with these arguments in a window of 120 by 36.
begin() {
    terminal kill-server 2>/dev/null || true
    server=$((server + 1))
    terminal new-session -d -x 120 -y 36 -c "$root/examples" "${clean[@]}" "$modchain" "$@"
    terminal set-option -g escape-time 0
    shows '● live'
}

keys() { terminal send-keys "$@"; }

picture() {
    terminal capture-pane -e -p | python3 "$here/picture.py" png "$here/$1.png"
    echo "$1.png"
}

frame=0
# Keeps a frame of the animated picture, to be shown so many hundredths of a second.
keep() {
    frame=$((frame + 1))
    terminal capture-pane -e -p >"$frames/$(printf '%04d' "$frame")-$1"
}

(cd "$root/examples" && exec "${clean[@]}" "$modchain" up --headless -o json >"$home/ready") &
up=$!
until grep -qs schema "$home/ready"; do kill -0 "$up" && sleep 0.05; done

# Jobs of two people, good ones and bad ones.
run run -q --wasm hello.wat --max-cost 0.10 --name greeting
run run -q --wasm primes.wat --max-cost 0.10 --name primes || true
run run -q --wasm trap.wat --max-cost 0.10 --name broken || true
run -c local-second run -q --wasm exit3.wat --max-cost 0.10 --name picky || true
run run -q --wasm forever.wat --max-cost 0.10 --time-limit 1s --name endless || true
run run -d -q --wasm hello.wat --max-cost 0.10 --memory 9999GiB --name too-large
run run -d -q --wasm slow.wat --max-cost 0.10 --name slow

# From the description of a job to its payment.
begin console --view jobs
shows running
picture jobs
keys l
shows 'line 6'
picture output
keys Escape
shows '[3 Jobs]'
keys '?'
shows 'type to search keys'
picture help
keys Escape

begin -c local-operator
shows '[1 Overview]'
picture overview
keys 2
shows '[2 Nodes]'
shows local-1
picture nodes
keys 4
shows '[4 Events]'
picture events
keys 6
shows '[6 Access]'
shows local-operator
picture access
begin
keys 5
shows '[5 Account]'
picture account

# The animated one: a job is described with its quote, submitted, followed and paid, all in the console.
begin console --view jobs
shows slow
keep 100
keys n
shows 'New job'
keep 80
for letter in s l o w . w a t; do
    keys "$letter"
    keep 12
done
until terminal capture-pane -p | grep -qF 'the most this job may cost'; do
    keys Tab
    sleep 0.05
done
keys -l 0.10
shows 'would run on'
shows '$ modchain run --wasm slow.wat --max-cost 0.10'
keep 250
picture form
keys F5
shows submitted
for _ in {1..22}; do
    keep 50
    sleep 0.5
done
shows 'completed, exit code 0'
keep 250
keys 5
shows '[5 Account]'
keep 300
python3 "$here/picture.py" gif "$here/demo.gif" "$frames"/*
echo demo.gif
