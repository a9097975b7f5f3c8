#!/usr/bin/env bash
# Makes local stand-ins for the two base images where they cannot be pulled.
#
#   docker/test/base-images.sh                  both
#   docker/test/base-images.sh debian           debian:bookworm-slim alone
#   docker/test/base-images.sh --no-pull        do not try to pull first
#   docker/test/base-images.sh --again          make them though they are there
#
# Needs root, docker, debootstrap and a Debian mirror, nothing else. Where packages come from is not written here: this
# machine's own settings of apt, cargo and pip are asked, and its certificate authorities go into the stand-ins, so that a
# build in them reaches what this machine reaches. That makes them images for tests on this machine: never push them.
set -euo pipefail

SUITE=bookworm
SLIM=debian:bookworm-slim
RUST=rust:1-bookworm
PULL_SECONDS=60
WORK=

main() {
    local pull=yes again=no wanted=()
    for argument in "$@"; do
        case $argument in
        --no-pull) pull=no ;;
        --again) again=yes ;;
        debian) wanted+=("$SLIM") ;;
        rust) wanted+=("$SLIM" "$RUST") ;;
        *) die "unknown argument $argument: say debian, rust, --no-pull, --again" ;;
        esac
    done
    [ "${#wanted[@]}" -gt 0 ] || wanted=("$SLIM" "$RUST")

    docker version --format '{{.Server.Version}}' >/dev/null || die "no Docker engine answers"
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/base-images.XXXXXX")
    trap clean EXIT
    for image in "${wanted[@]}"; do
        if [ "$again" = no ] && docker image inspect "$image" >/dev/null 2>&1; then
            say "$image is there"
        elif [ "$pull" = yes ] && timeout "$PULL_SECONDS" docker pull -q "$image" >/dev/null 2>&1; then
            say "$image was pulled"
        else
            local start=$SECONDS
            case $image in
            "$SLIM") make_slim ;;
            "$RUST") make_rust ;;
            esac
            say "$image was made here in $((SECONDS - start)) s, $(megabytes "$image") MB"
        fi
    done
}

# A minimal Debian, less what the real slim image leaves out, plus what this machine says about mirrors and trust.
make_slim() {
    [ "$(id -u)" = 0 ] || die "only root can make $SLIM"
    command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
    local root=$WORK/slim mirror
    sources >"$WORK/sources.list"
    mirror=$(awk -v suite="$SUITE" '$3 == suite { print $2; exit }' "$WORK/sources.list")
    [ -n "$mirror" ] || die "apt on this machine knows no source of $SUITE"
    debootstrap --variant=minbase "$SUITE" "$root" "$mirror" >"$WORK/log" 2>&1 || die_with "$WORK/log" "debootstrap failed"

    cp "$WORK/sources.list" "$root/etc/apt/sources.list"
    apt-config dump | grep -E '^Acquire::(Check-|http|ftp|Retries|ForceIPv|Proxy)' >"$root/etc/apt/apt.conf.d/90host" || true
    printf 'path-exclude /usr/share/%s/*\n' doc man info locale >"$root/etc/dpkg/dpkg.cfg.d/slim"
    printf '%s\n' 'APT::Install-Recommends "false";' 'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' \
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };' >"$root/etc/apt/apt.conf.d/90slim"
    rm -rf "$root"/usr/share/{doc,man,info,locale}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin \
        "$root"/var/cache/apt/archives/*.deb "$root"/var/log/*.log "$root"/var/log/apt/*

    local changes=(--change 'CMD ["bash"]' --change 'LABEL modchain.test=stand-in')
    if [ -s /etc/ssl/certs/ca-certificates.crt ]; then
        install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/host-ca.crt"
        for variable in SSL_CERT_FILE CARGO_HTTP_CAINFO PIP_CERT; do
            changes+=(--change "ENV $variable=/etc/ssl/certs/host-ca.crt")
        done
    fi
    tar -C "$root" -c . | docker import "${changes[@]}" - "$SLIM" >/dev/null
    rm -rf "$root"
}

# Debian's own newer compiler stands for the one of the real image, with cargo's home at the same place.
make_rust() {
    local context=$WORK/rust
    mkdir -p "$context/cargo"
    for file in config.toml config; do
        # A stand-in may use the mirror that this machine uses; its credentials stay here.
        cp "${CARGO_HOME:-$HOME/.cargo}/$file" "$context/cargo/" 2>/dev/null || true
    done
    cat >"$context/Dockerfile" <<DOCKERFILE
FROM $SLIM
ENV CARGO_HOME=/usr/local/cargo
COPY cargo/ /usr/local/cargo/
RUN apt-get update && apt-get install -y cargo-web rustc-web gcc g++ libc6-dev make pkg-config git \
    && apt-get clean && rm -rf /var/lib/apt/lists/*
RUN cargo --version && rustc --version
DOCKERFILE
    docker build --force-rm -t "$RUST" "$context" >"$WORK/log" 2>&1 || die_with "$WORK/log" "$RUST cannot be made"
}

# The sources of the suite that apt uses here, in its one-line format.
sources() {
    # shellcheck disable=SC2016 # the names are apt's, not the shell's
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v suite="$SUITE" '$2 ~ "^" suite "(-|$)" { print "deb", $1, $2, $3 }' | sort -u
}

megabytes() {
    echo $(($(docker image inspect --format '{{.Size}}' "$1") / 1000000))
}

clean() {
    [ -z "$WORK" ] || rm -rf --one-file-system "$WORK"
}

say() {
    echo "base-images: $*"
}

die() {
    echo "base-images: $*" >&2
    exit 1
}

die_with() {
    tail -n 20 "$1" >&2
    die "$2"
}

main "$@"
