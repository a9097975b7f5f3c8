#!/usr/bin/env python3
"""The figures of `pool` for two others, on the same machine: Ray and Dask, each with two workers.

    python3 -m venv peers && peers/bin/pip install ray==2.60.0 distributed==2026.8.0
    PATH=$PWD/peers/bin:$PATH python3 backbone/orchestrator/benches/peers.py

One no-op after another (200, after 20 to warm up), the same as a process of `/bin/true`, and 10,000 at once. Neither of
them keeps a job on disk, knows who asks, or moves money.
"""

import subprocess
import sys
import time

ONE_BY_ONE, WARM_UP, AT_ONCE = 200, 20, 10_000


def noop(_number=0):
    return None


def process(_number=0):
    subprocess.run(["/bin/true"], check=True)


def one_by_one(who, what, run):
    times = []
    for number in range(WARM_UP + ONE_BY_ONE):
        begun = time.perf_counter()
        run(number)
        times.append((time.perf_counter() - begun) * 1000)
    times = sorted(times[WARM_UP:])
    print(f"{who}, {what}: submit to result p50 {times[ONE_BY_ONE // 2]:.2f} ms, p99 {times[ONE_BY_ONE * 99 // 100]:.2f} ms")


def at_once(who, what, run):
    begun = time.perf_counter()
    run()
    print(f"{who}, {what}: {AT_ONCE} at once {AT_ONCE / (time.perf_counter() - begun):.0f}/s")


def with_ray():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    for what, function in [("no-op", noop), ("process", process)]:
        remote = ray.remote(function)
        one_by_one("Ray", what, lambda number, remote=remote: ray.get(remote.remote(number)))
        at_once("Ray", what, lambda remote=remote: ray.get([remote.remote(number) for number in range(AT_ONCE)]))
    ray.shutdown()


def with_dask():
    from distributed import Client

    client = Client(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None)
    for what, function in [("no-op", noop), ("process", process)]:
        run = lambda number, function=function: client.submit(function, number, pure=False).result()
        one_by_one("Dask", what, run)
        at_once("Dask", what, lambda function=function: client.gather(client.map(function, range(AT_ONCE), pure=False)))
    client.close()


if __name__ == "__main__":
    for name, peer in [("ray", with_ray), ("dask", with_dask)]:
        try:
            peer()
        except ModuleNotFoundError as missing:
            print(f"{name}: not measured, {missing}", file=sys.stderr)
