# A narrow door to the engine's socket, see haproxy.cfg.
#
#   docker build -f docker/engine-proxy.Dockerfile -t modchain/engine-proxy .
#
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends haproxy \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 7443 modchain \
    && useradd --uid 7443 --gid 7443 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin modchain \
    && install -d -o modchain -g modchain -m 0700 /run/modchain-engine
COPY docker/haproxy.cfg /etc/modchain/haproxy.cfg
USER modchain
# The engine answers through it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["perl", "-MIO::Socket::UNIX", "-e", \
    "my $s = IO::Socket::UNIX->new('/run/modchain-engine/docker.sock') or die $!; print $s qq(GET /_ping HTTP/1.0\\r\\n\\r\\n); exit(<$s> !~ / 200 /)"]
ENTRYPOINT ["haproxy", "-W", "-db", "-f", "/etc/modchain/haproxy.cfg"]
