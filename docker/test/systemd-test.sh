#!/usr/bin/env bash
# Both programs as services of a real systemd, in a container: installed, joined, killed, hung, reloaded, drained, removed.
#
#   docker/test/systemd-test.sh                 with the programs in target/debug
#   docker/test/systemd-test.sh target/release  with those
#   docker/test/systemd-test.sh --keep          leave the container for looking around
#
# Needs docker, and the image debian:bookworm-slim or the means of base-images.sh to make it. Prints one line for each thing
# that was seen, with the time that it took, and fails at the first that is not so. Leaves an image with systemd behind
# (modchain-test/systemd), which the next run takes; nothing else.
set -euo pipefail
cd "$(dirname "$0")/../.."

IMAGE=modchain-test/systemd
BASE=debian:bookworm-slim
BOX=modchain-systemd-$$
PROGRAMS=target/debug
KEEP=no
BEGUN=$SECONDS
SEEN=0

AGENT_DATA=/var/lib/modchain/agent
POOL_DATA=/var/lib/modchain/orchestrator

main() {
    for argument in "$@"; do
        case $argument in
        --keep) KEEP=yes ;;
        *) PROGRAMS=$argument ;;
        esac
    done
    for program in modchain modchain-agent modchain-orchestrator; do
        [ -x "$PROGRAMS/$program" ] || die "$PROGRAMS/$program is not there: cargo build --workspace"
    done
    docker version --format '{{.Server.Version}}' >/dev/null || die "no Docker engine answers"
    trap clean EXIT
    make_image
    boot
    install_orchestrator
    install_agent
    only_its_owner_is_heard
    a_job_runs_shut_in
    killed_they_come_back
    hung_they_come_back
    reloaded
    stopped_they_drain
    removed
    echo "systemd-test: $SEEN things seen in $((SECONDS - BEGUN)) s"
}

make_image() {
    docker image inspect "$IMAGE" >/dev/null 2>&1 && return
    if ! docker image inspect "$BASE" >/dev/null 2>&1; then
        [ -x docker/test/base-images.sh ] || die "there is no $BASE"
        docker/test/base-images.sh debian
    fi
    local log
    log=$(docker build --force-rm -t "$IMAGE" - 2>&1 <<DOCKERFILE
FROM $BASE
RUN apt-get update && apt-get install -y systemd systemd-sysv dbus procps && apt-get clean && rm -rf /var/lib/apt/lists/*
DOCKERFILE
    ) || die "$IMAGE cannot be made: $(tail -n 20 <<<"$log")"
}

boot() {
    docker run -d --name "$BOX" --cap-add SYS_ADMIN --security-opt seccomp=unconfined --cgroupns host \
        -v /sys/fs/cgroup:/sys/fs/cgroup:ro --stop-signal SIGRTMIN+3 --tmpfs /run --tmpfs /tmp \
        "$IMAGE" /sbin/init >/dev/null
    # `degraded` is up too: a container has not all that systemd would like.
    until_so "systemd is up" eval 'box systemctl is-system-running 2>&1 | grep -qE "running|degraded"'
    for program in modchain modchain-agent modchain-orchestrator; do
        docker cp -q "$PROGRAMS/$program" "$BOX:/usr/local/bin/" 2>/dev/null || docker cp "$PROGRAMS/$program" "$BOX:/usr/local/bin/" >/dev/null
    done
    docker cp examples "$BOX:/srv/" >/dev/null
}

install_orchestrator() {
    # Made by root, who most likely does that first; installing gives it to the service's user.
    box modchain-orchestrator init --name lab --data "$POOL_DATA" -o json >"$WORK/init.json"
    timed "the orchestrator is installed and notifies that it is ready" box modchain-orchestrator service install
    is "it is active" active "$(show orchestrator ActiveState)"
    is "its watchdog is set" 1min "$(show orchestrator WatchdogUSec)"
    like "it says what it does" "serving on 0.0.0.0:7443, 0 nodes connected, 0 open jobs" "$(show orchestrator StatusText)"
    is "it runs as its own user" modchain-orchestrator "$(box ps -o user:32= -p "$(show orchestrator MainPID)" | tr -d ' ')"
    is "its data is its own" "modchain-orchestrator 700" "$(box stat -c '%U %a' "$POOL_DATA")"
    sed -n 's/.*"operator_token":"\([^"]*\)".*/\1/p' "$WORK/init.json" |
        box modchain join --orchestrator 127.0.0.1:7444 --token-file - --name boss >/dev/null 2>&1
    box modchain -c boss token create --role client --name alice -q |
        box modchain join --orchestrator 127.0.0.1:7444 --token-file - >/dev/null 2>&1
    box modchain -c boss credit alice 50.00 --reason test >/dev/null
}

install_agent() {
    local said
    said=$(box modchain-agent service install)
    like "before it has joined it is enabled and not started" "next: sudo -u modchain-agent modchain-agent join" "$said"
    is "it is enabled" "enabled inactive" "$(show agent UnitFileState) $(show agent ActiveState)"
    box modchain -c alice token create --role node --name rig-1 -q |
        box runuser -u modchain-agent -- modchain-agent join --data "$AGENT_DATA" --orchestrator 127.0.0.1:7444 \
            --token-file - >/dev/null
    timed "the agent is started and notifies that it is ready" box modchain-agent service install
    is "its watchdog is set" 1min "$(show agent WatchdogUSec)"
    until_so "it is connected" agent_is_connected
    like "it says so to systemd" "connected to 127.0.0.1:7443, 0 attempts" "$(show agent StatusText)"
    is "its data is its own" "modchain-agent 700" "$(box stat -c '%U %a' "$AGENT_DATA")"
    like "the owner's file is there, for everybody to read" "644 root" "$(box stat -c '%a %U' /etc/modchain/agent.toml)"
    like "service status tells it too" '"active":true' "$(box modchain-agent service status -o json)"
    for program in agent orchestrator; do
        note "exposure of the $program: $(box systemd-analyze security --no-pager "modchain-$program" |
            sed -n 's/.*Overall exposure level for [^:]*: //p' | tr -cd '[:alnum:]. ')"
    done
}

only_its_owner_is_heard() {
    box modchain-agent status >/dev/null
    local said
    said=$(docker exec "$BOX" runuser -u nobody -- modchain-agent status --data "$AGENT_DATA" 2>&1) &&
        die "somebody else was answered: $said"
    like "somebody else is not answered" "belongs to another user" "$said"
    # Let in by the file system, as a careless owner may, and still not heard.
    box chmod 755 "$AGENT_DATA" "$(dirname "$(socket)")"
    box chmod 666 "$(socket)"
    said=$(docker exec "$BOX" runuser -u nobody -- modchain-agent status --data "$(dirname "$(socket)")" 2>&1) &&
        die "somebody else was answered: $said"
    like "not even when the file system lets them in" "does not answer" "$said"
    box chmod 600 "$(socket)"
    box chmod 700 "$AGENT_DATA" "$(dirname "$(socket)")"
}

a_job_runs_shut_in() {
    like "a job runs under the unit's restrictions" "97" \
        "$(box modchain -c alice run -q --wasm /srv/examples/primes.wat --max-cost 0.10 2>/dev/null | tr '\n' ' ')"
    local job
    job=$(box modchain -c alice run -d -q --wasm /srv/examples/forever.wat --max-cost 0.10)
    until_so "another one runs" job_is "$job" running
    until_so "its process is locked in by seccomp once more" a_child_is_locked_in
    is "the child is in the service's group" yes \
        "$(box systemctl status modchain-agent --no-pager | grep -q "$CHILD" && echo yes)"
    box modchain -c alice cancel -y "$job" >/dev/null
    until_so "and is cancelled" job_is "$job" cancelled
}

killed_they_come_back() {
    local before
    for program in orchestrator agent; do
        before=$(show "$program" MainPID)
        box kill -9 "$before"
        until_so "the $program is killed and runs again" is_another "$program" "$before"
        is "systemd counts one restart" 1 "$(show "$program" NRestarts)"
    done
    until_so "the agent is connected again" agent_is_connected
    like "and a job runs" "97" \
        "$(box modchain -c alice run -q --wasm /srv/examples/primes.wat --max-cost 0.10 2>/dev/null | tr '\n' ' ')"
}

hung_they_come_back() {
    local before
    for program in orchestrator agent; do
        box mkdir -p "/run/systemd/system/modchain-$program.service.d"
        box sh -c "printf '[Service]\nWatchdogSec=6\n' >/run/systemd/system/modchain-$program.service.d/test.conf"
        box systemctl daemon-reload
        box systemctl restart "modchain-$program"
        before=$(show "$program" MainPID)
        sleep 13
        is "the $program outlives two watchdogs" "$before" "$(show "$program" MainPID)"
        box kill -STOP "$before"
        until_so "the $program hangs, is ended by its watchdog and runs again" is_another "$program" "$before"
        box rm -r "/run/systemd/system/modchain-$program.service.d"
        box systemctl daemon-reload
        box systemctl restart "modchain-$program"
    done
    until_so "the agent is connected again" agent_is_connected
}

reloaded() {
    box sed -i 's/^minimum = "0.0010"/minimum = "0.0020"/' /etc/modchain/agent.toml
    timed "systemctl reload takes a new price up" box systemctl reload modchain-agent
    like "it is in the offer" '"minimum":[{][^}]*"micro":2000[,}]' "$(box modchain-agent status -o json)"
    box sed -i '1i mistake = 1' /etc/modchain/agent.toml
    if docker exec "$BOX" systemctl reload modchain-agent >/dev/null 2>&1; then die "a bad file was taken up"; fi
    like "a bad file is refused with its line" "settings cannot be used.*agent.toml:1: unknown field .mistake." \
        "$(box journalctl -u modchain-agent --no-pager -n 20)"
    is "and the agent runs on" active "$(show agent ActiveState)"
    like "and says it to its owner" '"config_refused":"/etc/modchain/agent.toml:1: ' "$(box modchain-agent status -o json)"
    box sed -i '/^mistake/d' /etc/modchain/agent.toml
    box systemctl reload modchain-agent
}

stopped_they_drain() {
    local short long
    short=$(box modchain -c alice run -d -q --wasm /srv/examples/slow.wat --max-cost 0.10)
    until_so "a job of ten seconds runs" job_is "$short" running
    timed "the agent is stopped once the job is done" box systemctl stop modchain-agent
    is "the stop was a clean one" success "$(show agent Result)"
    is "nothing of it runs any more" "" "$(docker exec "$BOX" pgrep -u modchain-agent || true)"
    box systemctl start modchain-agent
    until_so "after the next start the job is done, with its output" job_is "$short" completed
    is "every line came" 10 "$(box modchain -c alice logs "$short" 2>/dev/null | grep -c '^line')"

    box modchain-agent service install --drain 3s >/dev/null
    until_so "the agent is connected" agent_is_connected
    long=$(box modchain -c alice run -d -q --wasm /srv/examples/forever.wat --max-cost 0.10)
    until_so "a job without an end runs" job_is "$long" running
    timed "the agent is stopped after three seconds of grace" box systemctl stop modchain-agent
    is "the stop was a clean one" success "$(show agent Result)"
    is "nothing of it runs any more" "" "$(docker exec "$BOX" pgrep -u modchain-agent || true)"
    until_so "the job waits for another node, unpaid" job_is "$long" queued
    box systemctl start modchain-agent
    until_so "and goes on when there is one" job_is "$long" running
    box modchain -c alice cancel -y "$long" >/dev/null
    until_so "until it is cancelled" job_is "$long" cancelled
}

removed() {
    timed "the agent's service is removed" box modchain-agent service uninstall
    timed "the orchestrator's service is removed" box modchain-orchestrator service uninstall
    is "no unit is left" "" "$(box systemctl list-units --all --plain --no-legend 'modchain*')"
    is "no file of a unit is left" "" \
        "$(box find /etc/systemd /run/systemd/system /usr/lib/systemd/system -name '*modchain*')"
    is "no process is left" "" "$(docker exec "$BOX" pgrep -f '^/usr/local/bin/modchain' || true)"
    is "no socket is left" "" "$(box find / -xdev -name control.sock)"
    is "the journal is whole" 0 \
        "$(box modchain-orchestrator ledger verify --data "$POOL_DATA" >/dev/null && echo 0)"
    box userdel modchain-agent && box userdel modchain-orchestrator
    box rm -r /var/lib/modchain /etc/modchain
    is "and what was kept on purpose, data, settings and users, was all" "/usr/local/bin/modchain
/usr/local/bin/modchain-agent
/usr/local/bin/modchain-orchestrator" "$(box find / -xdev -path /proc -prune -o -name '*modchain*' -not -path '/srv/*' \
        -not -path '/root/*' -print | sort)"
}

# --- how to look ---

box() {
    docker exec -i "$BOX" "$@"
}

show() {
    box systemctl show "modchain-$1" --property "$2" --value
}

socket() {
    box find "$AGENT_DATA" -name control.sock
}

agent_is_connected() {
    box modchain-agent status -o json 2>/dev/null | grep -q '"state":"connected"'
}

is_another() {
    local pid
    pid=$(show "$1" MainPID)
    [ "$pid" != 0 ] && [ "$pid" != "$2" ] && [ "$(show "$1" ActiveState)" = active ]
}

# The unit's filters hold for all processes of the agent, also for the one that children are forked from; a child has its own besides,
# whether it has a job or waits for one. The one that is found is left in $CHILD.
a_child_is_locked_in() {
    local filters
    filters=$(seccomp_filters "$(show agent MainPID)")
    for CHILD in $(box pgrep -u modchain-agent -f wasm-child); do
        [ "$(seccomp_filters "$CHILD")" -gt "$filters" ] && return
    done
    return 1
}

# None of a process that has ended meanwhile.
seccomp_filters() {
    local count
    count=$(box sed -n 's/^Seccomp_filters:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null) || true
    echo "${count:-0}"
}

job_is() {
    box modchain -c alice job "$1" -o json 2>/dev/null | grep -q "\"state\": *\"$2\""
}

# --- how to tell ---

note() {
    echo "  $*"
    SEEN=$((SEEN + 1))
}

is() {
    [ "$2" = "$3" ] || die "$1: not \`$2\` but \`$3\`"
    note "$1"
}

like() {
    grep -qE -- "$2" <<<"$3" || die "$1: \`$2\` is not in: $3"
    note "$1"
}

timed() {
    local what=$1 from=$EPOCHREALTIME
    shift
    "$@" >"$WORK/said" 2>&1 || die "$what: $(cat "$WORK/said")"
    note "$what: $(since "$from")"
}

# Generous: a machine that builds something else beside this is slow.
until_so() {
    local what=$1 from=$EPOCHREALTIME limit=$((SECONDS + 120))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$limit" ] || die "$what: not within two minutes"
        sleep 0.1
    done
    note "$what: $(since "$from")"
}

since() {
    awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", to - from }'
}

clean() {
    [ "$KEEP" = yes ] || docker rm -f -v "$BOX" >/dev/null 2>&1 || true
    rm -rf "$WORK"
}

die() {
    echo "systemd-test: $*" >&2
    docker exec "$BOX" journalctl --no-pager -n 30 -u 'modchain*' >&2 2>/dev/null || true
    exit 1
}

WORK=$(mktemp -d "${TMPDIR:-/tmp}/systemd-test.XXXXXX")
main "$@"
