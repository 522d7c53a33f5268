"""A server's memory is flat over many runs of the same and of changed prompts."""

import psutil

from lab import workflows
from lab.tiny_models import FLUX

MIB = 1024 * 1024
METHODS = ["int8", "int4", "fp8-weight-only", "int8-dynamic"]


def resident(server):
    server.forget()
    return psutil.Process(server.pid).memory_info().rss


def prompt(method, seed):
    """Two branches of one step each: what a run holds does not depend on its steps."""
    nodes = workflows.both(FLUX, method, seed=seed)
    for node in nodes.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 1
    return nodes


def test_twenty_runs_take_no_more_memory_than_five(server):
    for run in range(5):
        server.run(prompt(METHODS[run % 4], seed=run))
    after_five = resident(server)
    for run in range(20):
        server.run(prompt(METHODS[run % 4], seed=run // 2))
    # One quantized copy of this model alone is 13 MiB.
    assert resident(server) - after_five < 10 * MIB
