#!/usr/bin/env bash
# Asks the door of compose.socket-proxy.yaml for what a job needs, which must pass, and for what would open the machine, which
# must be refused at the door and not by the engine.
#
#   docker/test/engine-door.sh SOCKET
set -euo pipefail

SOCKET=$1
IMAGE=debian:bookworm-slim
FAILED=0 CHECKED=0 MADE=()

main() {
    trap clean EXIT
    passes
    refuses_requests
    refuses_containers
    echo "engine-door: $CHECKED checked, $FAILED failed"
    [ "$FAILED" = 0 ]
}

# A job from beginning to end, with the engine's own client and without it.
passes() {
    local id answer
    expect 200 GET /_ping
    expect 200 GET /v1.41/version
    expect 200 GET /v1.41/info
    expect 200 GET /v1.41/images/json
    expect 200 GET "/v1.41/images/$IMAGE/json"
    expect 200 GET "/v1.41/containers/json?all=true&filters=%7B%22label%22%3A%5B%22modchain.node%22%5D%7D"
    # What is asked of every job's container; texts that look like the forbidden ones may stand in its arguments.
    # shellcheck disable=SC2016 # the shell in the container is meant
    make '"Cmd":["sh","-c","read line; echo got $line; echo \"\\\"Privileged\\\": true\""],"OpenStdin":true,"StdinOnce":true,
        "AttachStdin":true,"User":"65534:65534","Labels":{"modchain.node":"x"},"HostConfig":{"CapDrop":["ALL"],"CapAdd":[],
        "SecurityOpt":["no-new-privileges:true"],"ReadonlyRootfs":true,"Tmpfs":{"/tmp":"rw,noexec,nosuid,nodev,size=16m"},
        "PidsLimit":512,"Memory":67108864,"MemorySwap":67108864,"NanoCpus":500000000,"NetworkMode":"none","IpcMode":"private",
        "Privileged":false,"Binds":[],"Devices":null,"Init":true,"LogConfig":{"Type":"local","Config":{"max-size":"16m"}},
        "Ulimits":[{"Name":"core","Soft":0,"Hard":0}],"MaskedPaths":null,"ReadonlyPaths":null,"PidMode":"","UTSMode":"",
        "Mounts":[{"Type":"tmpfs","Target":"/work"}]}'
    id=${MADE[-1]-}
    [ -n "$id" ] || return 0
    check "a file of a container is seen" test "$(curl -sS --max-time 20 --unix-socket "$SOCKET" --head -o /dev/null \
        -w '%{http_code}' "http://engine/v1.41/containers/$id/archive?path=/bin/sh")" = 200
    expect 204 POST "/v1.41/containers/$id/start"
    expect 204 POST "/v1.41/containers/$id/pause"
    expect 204 POST "/v1.41/containers/$id/unpause"
    expect 200 GET "/v1.41/containers/$id/json"
    # A stream that turns into another one, with input.
    answer=$({ sleep 1; echo hello; sleep 1; } | docker -H "unix://$SOCKET" attach --sig-proxy=false "$id" 2>&1) || true
    expect 200 POST "/v1.41/containers/$id/wait"
    check "attach carries input and output: $answer" grep -q 'got hello' <<<"$answer"
    answer=$(curl -sS --max-time 10 --unix-socket "$SOCKET" "http://engine/v1.41/containers/$id/logs?stdout=true&follow=true" |
        tr -d '\0')
    check "logs come: $answer" grep -q 'Privileged' <<<"$answer"
    expect 204 DELETE "/v1.41/containers/$id?force=true"
}

refuses_requests() {
    local id=0123456789ab
    expect 403 POST "/v1.41/containers/$id/exec"
    expect 403 POST /v1.41/exec/abc/start
    expect 403 GET "/v1.41/containers/$id/archive?path=/"
    expect 403 PUT "/v1.41/containers/$id/archive?path=/"
    expect 403 GET "/v1.41/containers/$id/export"
    expect 403 POST "/v1.41/containers/$id/update"
    expect 403 POST "/v1.41/containers/$id/rename?name=x"
    expect 403 POST /v1.41/commit
    expect 403 POST /v1.41/build
    expect 403 POST '/v1.41/images/create?fromSrc=-'
    expect 403 POST /v1.41/images/load
    expect 403 DELETE "/v1.41/images/$IMAGE"
    expect 403 GET /v1.41/images/get
    expect 403 GET /v1.41/volumes
    expect 403 POST /v1.41/volumes/create
    expect 403 GET /v1.41/networks
    expect 403 POST /v1.41/networks/create
    expect 403 GET /v1.41/secrets
    expect 403 POST /v1.41/swarm/init
    expect 403 GET /v1.41/plugins
    expect 403 POST /v1.41/auth
    expect 403 POST /session
    expect 403 POST /v1.41/containers/prune
    # The same thing, written differently.
    expect 403 GET /v1.41/containers/../volumes
    expect 403 GET /v1.41//volumes
    expect 403 GET /v1.41/images/a/%2e%2e/%2E%2E/volumes/json
    expect 403 GET '/v1.41/images/..%2fvolumes/json'
    expect 403 POST /v1.41/v1.41/containers/create
    expect 403 POST /V1.41/containers/create
    # A request that asks to go on in another protocol, past the door's eyes.
    judge 403 "an upgrade to HTTP/2" "$(call GET /_ping -H 'Connection: Upgrade, HTTP2-Settings' -H 'Upgrade: h2c' \
        -H 'HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA')"
    judge 403 "an upgrade where nothing is attached" "$(call GET /_ping -H 'Connection: Upgrade' -H 'Upgrade: tcp')"
}

refuses_containers() {
    local host
    for host in '"Privileged":true' '"privileged" : true' '"PRIVILEGED":
        true' '"\u0050rivileged":true' '"Binds":["/:/host"]' '"binds":[ "/:/host"]' $'"Bind\u017f":["/:/host"]' \
        '"Mounts":[{"Type":"bind","Source":"/","Target":"/host"}]' '"Mounts":[{"Type":"volume","Source":"x","Target":"/x"}]' \
        '"VolumesFrom":["x"]' '"CapAdd":["SYS_ADMIN"]' '"Devices":[{"PathOnHost":"/dev/sda"}]' \
        '"DeviceCgroupRules":["a *:* rwm"]' '"PidMode":"host"' '"PidMode":"container:x"' '"IpcMode":"host"' '"UTSMode":"host"' \
        '"UsernsMode":"host"' '"CgroupnsMode":"host"' '"NetworkMode":"host"' '"NetworkMode":"container:x"' \
        '"NetworkMode":"modchain_default"' '"SecurityOpt":["seccomp=unconfined"]' '"SecurityOpt":["systempaths=unconfined"]' \
        '"SecurityOpt":["label=disable"]' '"MaskedPaths":[]' '"CgroupParent":"/x"' '"GroupAdd":["0"]' \
        '"Privileged":false,"Privileged":true'; do
        body 403 "$host" "{\"Image\":\"$IMAGE\",\"Cmd\":[\"true\"],\"HostConfig\":{$host}}"
    done
    # More than is read, with the poison at its end.
    local filling how answer
    filling=$(head -c 300000 /dev/zero | tr '\0' x)
    for how in "Accept: */*" "Transfer-Encoding: chunked"; do
        answer=$(printf '{"Image":"%s","Env":["A=%s"],"HostConfig":{"Privileged":true}}' "$IMAGE" "$filling" |
            call POST /v1.41/containers/create -H 'Content-Type: application/json' -H "$how" --data-binary @-)
        judge '4[0-9][0-9]' "a container with a long description, $how" "$answer"
    done
    # One whose end comes late, which the door must wait for.
    answer=$({
        printf '{"Image":"%s","HostConfig":{' "$IMAGE"
        sleep 1
        printf '"Privileged":true}}'
    } | call POST /v1.41/containers/create -H 'Content-Type: application/json' -H 'Transfer-Encoding: chunked' -T -)
    judge 403 "one that comes slowly" "$answer"
}

make() {
    local answer id
    answer=$(call POST /v1.41/containers/create -H 'Content-Type: application/json' \
        --data-binary "{\"Image\":\"$IMAGE\",$1}")
    judge 201 "an honest container" "$answer"
    id=$(grep -oE '"Id":"[0-9a-f]{64}"' <<<"$answer" | cut -d '"' -f 4 || true)
    [ -z "$id" ] || MADE+=("$id")
}

body() {
    local answer id
    answer=$(call POST /v1.41/containers/create -H 'Content-Type: application/json' --data-binary "$3")
    judge "$1" "a container with $2" "$answer"
    id=$(grep -oE '"Id":"[0-9a-f]{64}"' <<<"$answer" | cut -d '"' -f 4 || true)
    [ -z "$id" ] || MADE+=("$id")
}

expect() {
    judge "$1" "$2 $3" "$(call "$2" "$3")"
}

call() {
    local method=$1 path=$2
    shift 2
    curl -sS --max-time 20 --path-as-is --unix-socket "$SOCKET" -X "$method" -w '\n%{http_code}' "$@" "http://engine$path" 2>&1 || true
}

# The last line is the status. The engine's own refusals have a message in JSON, the door's have none.
judge() {
    local status
    status=$(tail -n 1 <<<"$3")
    check "$2: $status instead of $1: $(head -c 200 <<<"$3")" grep -qxE "$1" <<<"$status"
    if [ "$1" = 403 ]; then
        check "$2: refused by the engine" test -z "$(grep -F '"message"' <<<"$3" || true)"
    fi
}

check() {
    local what=$1
    shift
    CHECKED=$((CHECKED + 1))
    if ! "$@"; then
        FAILED=$((FAILED + 1))
        echo "engine-door: FAILED: $what" >&2
    fi
}

clean() {
    [ "${#MADE[@]}" = 0 ] || docker rm -f "${MADE[@]}" >/dev/null 2>&1 || true
}

main "$@"
