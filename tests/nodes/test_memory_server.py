"""A server's memory is flat over many runs of the same and of changed prompts."""

import psutil

from lab import workflows
from lab.tiny_models import FLUX

MIB = 1024 * 1024
METHODS = ["int8", "int4", "fp8-weight-only", "int8-dynamic"]


def resident(server):
    server.forget()
    return psutil.Process(server.pid).memory_info().rss


def test_twenty_runs_take_no_more_memory_than_five(server):
    for run in range(5):
        server.run(workflows.both(FLUX, METHODS[run % 4], seed=run))
    after_five = resident(server)
    for run in range(20):
        server.run(workflows.both(FLUX, METHODS[run % 4], seed=run // 2))
    # One quantized copy of this model alone is 13 MiB.
    assert resident(server) - after_five < 10 * MIB
