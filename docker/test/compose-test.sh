#!/usr/bin/env bash
# Builds the images and runs the pool of compose.yaml for real: healthy, a job, its logs, a second start, a node that comes back
# after its certificate has ended, the door to the engine, and nothing left behind. Prints what it did at the end, and fails if
# any of it did.
#
#   docker/test/compose-test.sh               all of it; the first build takes 10 to 30 minutes
#   docker/test/compose-test.sh --no-build    with the images of an earlier run (their tag is `test`)
#
# Needs docker, docker-compose 1.29 or Compose v2, and root for the part about the engine's door. It touches only what it makes,
# under a project name of its own, and leaves the images. Not called by CI: it takes too long.
set -euo pipefail
cd "$(dirname "$0")/.."

PROJECT=modchain-test-$$
# A day's certificate cannot be waited for; the shortest that leaves time to be renewed can.
SHORT_LIFE_SECONDS=20
export MODCHAIN_VERSION=test MODCHAIN_BIND=127.0.0.1 MODCHAIN_PORT=0 MODCHAIN_JOIN_PORT=0
DOCKER_GID=$(stat -c %g /var/run/docker.sock)
export DOCKER_GID

FILES=(-f compose.yaml)
SUMMARY=() CURRENT='' BEGUN=$SECONDS
if docker compose version >/dev/null 2>&1; then COMPOSE=(docker compose); else COMPOSE=(docker-compose); fi

main() {
    local build=yes
    case ${1-} in
    --no-build) build=no ;;
    '') ;;
    *) die "unknown argument $1" ;;
    esac
    trap finish EXIT
    trap 'exit 130' INT TERM

    step "both files have the same builder" same_builder
    step "every combination of profiles makes sense" profiles
    if [ "$build" = yes ]; then
        step "base images" test/base-images.sh
        step "build the orchestrator's image" compose build orchestrator
        step "build the agent's image, from the same cache" compose build cpu
        FILES+=(-f compose.socket-proxy.yaml)
        step "build the door to the engine" compose build engine-proxy
        FILES=(-f compose.yaml)
    fi
    step "images hold programs and no identity" clean_images
    step "up, and healthy" up
    step "a client joins with a token and gets credits" client_joins
    step "a wasm job runs and is paid" job
    step "a job's own exit code comes back" exit_code
    step "health is more than a process that runs" health
    step "down and up again: the same node, the same client" again
    step "a node without its volume joins again" lost_volume
    step "a node whose certificate has ended joins again" ended_certificate
    step "a node with the engine's socket reaches it" socket
    step "the engine's door passes jobs and nothing else" door
    step "down -v leaves nothing behind" down
}

same_builder() {
    local part='/^# The first two stages/,/^FROM debian/p'
    diff <(sed -n "$part" orchestrator.Dockerfile) <(sed -n "$part" agent.Dockerfile)
    [ "$(sed -n "$part" agent.Dockerfile | wc -l)" -gt 20 ]
}

profiles() {
    local override profile
    for override in '' compose.docker-jobs.yaml compose.socket-proxy.yaml; do
        for profile in '' '--profile gpu' '--profile llm' '--profile gpu --profile llm-gpu' '--profile client'; do
            # shellcheck disable=SC2086 # several words on purpose
            "${COMPOSE[@]}" -f compose.yaml ${override:+-f "$override"} $profile config >/dev/null
        done
    done
}

clean_images() {
    local image files
    for image in modchain/orchestrator:test modchain/agent:test; do
        [ "$(docker image inspect --format '{{.Config.User}}' "$image")" = modchain ]
        # All below the folders that hold data at work, and keys anywhere but among the system's own.
        files=$(docker run --rm --network none --user 0 --entrypoint find "$image" / -xdev \
            \( -path '/var/lib/modchain/*' -o -path '/tmp/*' -o -path '/root/*' -o -name '*.pem' \) -type f \
            -not -path '/usr/*' -not -path '/root/.bashrc' -not -path '/root/.profile')
        [ -z "$files" ] || die "$image holds $files"
    done
}

up() {
    compose up -d
    healthy orchestrator
    healthy cpu
    [ "$(nodes)" = cpu ] || die "the pool has the nodes: $(nodes)"
    # `down` keeps volumes that have a name, for the next `up`, and those that have none for ever.
    local nameless
    nameless=$(docker ps -aq --filter "label=com.docker.compose.project=$PROJECT" |
        xargs docker inspect --format '{{range .Mounts}}{{println .Name}}{{end}}' | grep -xE '[0-9a-f]{64}' || true)
    [ -z "$nameless" ] || die "there are volumes without a name: $nameless"
}

client_joins() {
    operator token create --role client --name alice --output name --quiet |
        client join --orchestrator orchestrator:7444 --token-file -
    operator credit alice 50.00 --reason test --yes
}

job() {
    local printed logged
    printed=$(client run --wasm /examples/primes.wat --max-cost 0.10)
    [ "$(wc -l <<<"$printed") $(tail -n 1 <<<"$printed")" = "25 97" ] || die "it printed: $printed"
    logged=$(client logs @last)
    [ "$logged" = "$printed" ] || die "its log is: $logged"
    client account
    compose exec -T orchestrator modchain --context local-owner account | tee /dev/stderr |
        grep -q '^earned  *0\.00[0-9]*[1-9]' || die "the node's owner has earned nothing"
}

exit_code() {
    local code=0
    client run --wasm /examples/exit3.wat --max-cost 0.10 || code=$?
    [ "$code" = 3 ] || die "the code is $code"
}

health() {
    local check=(modchain status --quiet --no-input --connect-timeout 3s --context local-operator)
    # A process that is there and does not answer.
    # shellcheck disable=SC2016 # the shell in the container is meant
    compose exec -T orchestrator sh -c 'kill -STOP $(pidof modchain-orchestrator)'
    if compose exec -T orchestrator "${check[@]}"; then die "a stopped orchestrator is healthy"; fi
    # The agent hears of it by the silence: three heartbeats.
    local second=0
    while compose exec -T cpu /usr/local/lib/modchain/agent-health >/dev/null; do
        second=$((second + 1))
        [ $second -lt 60 ] || die "a node without its orchestrator is healthy"
        sleep 1
    done
    # shellcheck disable=SC2016
    compose exec -T orchestrator sh -c 'kill -CONT $(pidof modchain-orchestrator)'
    compose exec -T orchestrator "${check[@]}"
    healthy cpu
}

again() {
    local before
    before=$(node_id)
    compose down
    nothing_left containers networks
    up
    [ "$(node_id)" = "$before" ] || die "the node was $before and is $(node_id)"
    job
    # While it runs nothing happens to it.
    compose up -d
    healthy cpu
    [ "$(node_id)" = "$before" ]
}

lost_volume() {
    local before
    before=$(node_id)
    compose down
    docker volume rm "${PROJECT}_cpu" >/dev/null
    up
    [ "$(node_id)" = "$before" ] || die "the node was $before and is $(node_id)"
}

ended_certificate() {
    local before
    before=$(node_id)
    compose down
    docker volume rm "${PROJECT}_cpu" >/dev/null
    MODCHAIN_ORCHESTRATOR_CERT_LIFE=${SHORT_LIFE_SECONDS}s up
    compose stop cpu
    sleep $((SHORT_LIFE_SECONDS + 2))
    compose down
    up
    [ "$(node_id)" = "$before" ] || die "the node was $before and is $(node_id)"
    # Before the pipe: grep stops reading at the first match.
    local log
    log=$(compose logs --no-color cpu)
    grep -q 'joined pool' <<<"$log" || die "it did not join again"
}

socket() {
    FILES=(-f compose.yaml -f compose.docker-jobs.yaml)
    compose up -d
    healthy cpu
    sees_engine unix:///var/run/docker.sock
}

door() {
    FILES=(-f compose.yaml -f compose.socket-proxy.yaml)
    compose up -d
    healthy engine-proxy
    healthy cpu
    local socket
    socket=$(docker volume inspect --format '{{.Mountpoint}}' "${PROJECT}_engine")/docker.sock
    test/engine-door.sh "$socket"
    sees_engine unix:///run/modchain-engine/docker.sock
}

sees_engine() {
    local report
    report=$(compose exec -T -e "DOCKER_HOST=$1" cpu modchain-agent doctor)
    grep '^ok  *docker  *version ' <<<"$report" || die "the node says: $report"
}

down() {
    compose --profile client down -v --remove-orphans
    nothing_left containers networks volumes
}

nothing_left() {
    local kind left label=label=com.docker.compose.project=$PROJECT
    for kind in "$@"; do
        case $kind in
        containers) left=$(docker ps -aq --filter "$label") ;;
        networks) left=$(docker network ls -q --filter "$label") ;;
        volumes) left=$(docker volume ls -q --filter "$label") ;;
        esac
        [ -z "$left" ] || die "$kind are left: $left"
    done
}

compose() {
    "${COMPOSE[@]}" -p "$PROJECT" "${FILES[@]}" "$@"
}

operator() {
    compose exec -T orchestrator modchain --context local-operator "$@"
}

client() {
    compose run --rm -T client "$@"
}

nodes() {
    operator nodes --output name
}

# What stays the same when a certificate does not.
node_id() {
    operator cert list --role node --output json | grep -oE '"id": *"[^"]+"' | head -n 1
}

healthy() {
    local service=$1 seconds=120 state=''
    for ((; seconds > 0; seconds--)); do
        state=$(compose ps -q "$service" | xargs -r docker inspect --format '{{.State.Health.Status}}')
        [ "$state" != healthy ] || return 0
        sleep 1
    done
    compose ps -q "$service" | xargs -r docker inspect --format '{{json .State.Health}}'
    die "$service is not healthy but ${state:-missing}"
}

step() {
    CURRENT=$1
    local begun=$SECONDS
    echo "==> $CURRENT"
    shift
    "$@"
    SUMMARY+=("ok      $((SECONDS - begun)) s  $CURRENT")
    CURRENT=''
}

finish() {
    local code=$?
    trap - EXIT INT TERM
    set +e
    if [ "$code" != 0 ]; then
        SUMMARY+=("FAILED        ${CURRENT:-$0}")
        compose logs --no-color --tail 40
    fi
    if [ -n "$(docker ps -aq --filter "label=com.docker.compose.project=$PROJECT")$(
        docker volume ls -q --filter "label=com.docker.compose.project=$PROJECT")" ]; then
        FILES=(-f compose.yaml -f compose.socket-proxy.yaml)
        compose --profile client down -v --remove-orphans --timeout 5
    fi
    echo
    printf '%s\n' "${SUMMARY[@]}"
    docker image ls --filter 'reference=modchain/*:test' --format 'image   {{.Size}}  {{.Repository}}:{{.Tag}}'
    echo "$((SECONDS - BEGUN)) s in all"
    exit "$code"
}

die() {
    echo "compose-test: $*" >&2
    exit 1
}

main "$@"
