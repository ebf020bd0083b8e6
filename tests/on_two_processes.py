"""Run by test_distributed.py, in each of two processes that have two devices each.

Arguments: the coordinator's address, the process, a folder, and in which round the process is to
die (0: in none).
"""

import sys

import jax
from problems import clients, linear_model

import fedbridge as fb

ROUNDS = 3


def federation(execution):
    """The problem of all processes, and of the one that they are compared with."""
    process = fb.algorithms.fed_avg(
        linear_model(),
        fb.optimizers.sgdm(0.1, momentum=0.9),
        fb.optimizers.sgdm(0.7, momentum=0.5),
        metrics_aggregator=fb.per_client,
        execution=execution,
    )
    data = fb.from_clients(clients([7, 0, 12, 3, 1, 9, 5]))
    sampler = fb.samplers.uniform(5, seed=1)
    return process, data, fb.Batches(batch_size=4, num_epochs=2), sampler


def main(coordinator, process_id, folder, dies_in):
    fb.distributed.initialize(coordinator, 2, process_id)
    print(f"process {process_id}: all are there", flush=True)
    assert (jax.process_count(), jax.device_count(), jax.local_device_count()) == (2, 4, 2)

    def on_round(round, metrics):
        print(f"process {process_id}: round {round}", flush=True)
        if round == dies_in:
            raise RuntimeError("out of luck")

    process, data, batches, sampler = federation(fb.sharded())
    result = fb.train(
        process,
        data,
        batches,
        sampler=sampler,
        rounds=ROUNDS,
        checkpoint=f"{folder}/checkpoint",
        on_round=[on_round],
    )
    fb.save(f"{folder}/result{process_id}", result)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
