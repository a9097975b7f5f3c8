# The agent.
#
#   docker build -f docker/agent.Dockerfile -t modchain/agent .
#
# The first two stages are the same text in orchestrator.Dockerfile and agent.Dockerfile, so that the second image takes all of
# them from the first one's cache: the workspace is compiled once. compose-test.sh holds them to it.

# The manifests, with a stub for every crate. Its result changes only when a manifest does.
FROM rust:1-bookworm AS manifests
WORKDIR /src
COPY . .
RUN set -eu; \
    mkdir /manifests; \
    cp Cargo.toml Cargo.lock /manifests/; \
    find . -mindepth 2 -name Cargo.toml | while read -r manifest; do \
        crate=${manifest%/Cargo.toml}; \
        mkdir -p "/manifests/$crate/src"; \
        cp "$manifest" "/manifests/$crate/"; \
        if [ -e "$crate/src/lib.rs" ]; then : >"/manifests/$crate/src/lib.rs"; fi; \
        if [ -e "$crate/src/main.rs" ]; then echo 'fn main() {}' >"/manifests/$crate/src/main.rs"; fi; \
    done

FROM rust:1-bookworm AS builder
# `dist` optimizes over crates and takes several times as long to build: for images that are given away.
ARG PROFILE=release
WORKDIR /src
# The dependencies, from the manifests and the lock file alone: a change of the sources does not build them again.
COPY --from=manifests /manifests .
RUN cargo build --locked --profile "$PROFILE" -p modchain -p modchain-agent -p modchain-orchestrator
COPY agent agent
COPY backbone backbone
COPY certs certs
COPY console console
# A stub may be newer than the source that takes its place, and cargo goes by the time.
RUN set -eu; \
    find agent backbone certs console -name '*.rs' -exec touch {} +; \
    cargo build --locked --profile "$PROFILE" -p modchain -p modchain-agent -p modchain-orchestrator; \
    mkdir /programs; \
    cp "target/$PROFILE/modchain" "target/$PROFILE/modchain-agent" "target/$PROFILE/modchain-orchestrator" /programs/

FROM debian:bookworm-slim
# The same number in both images: a volume with a token is handed from one to the other.
RUN groupadd --gid 7443 modchain \
    && useradd --uid 7443 --gid 7443 --no-create-home --home-dir /var/lib/modchain/agent --shell /usr/sbin/nologin modchain \
    && install -d -o modchain -g modchain -m 0700 \
        /var/lib/modchain/agent /var/lib/modchain/token /run/modchain-engine
COPY --from=builder /programs/modchain-agent /usr/local/bin/
COPY docker/bin/agent docker/bin/agent-health /usr/local/lib/modchain/
ENV HOME=/var/lib/modchain/agent \
    MODCHAIN_AGENT_DATA=/var/lib/modchain/agent
# The node's key and certificate, and the results that the orchestrator does not have yet.
VOLUME ["/var/lib/modchain/agent"]
USER modchain
# Whether the agent runs, its certificate is good, and the orchestrator answers and takes it.
HEALTHCHECK --interval=15s --timeout=12s --start-period=60s --retries=3 CMD ["/usr/local/lib/modchain/agent-health"]
ENTRYPOINT ["/usr/local/lib/modchain/agent"]
CMD ["start"]
