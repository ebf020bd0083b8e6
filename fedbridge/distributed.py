"""Several processes, on one machine or many, that run one program together.

Every process runs the same script, begins with `initialize`, and builds its algorithm with
`execution=fb.sharded()`: the clients of a cohort are spread over the devices of all processes, and
all of them end a round with the same state. Then nothing else changes; `fb.train` saves its
checkpoint from process 0.
"""

import os
import re
import sys
from types import TracebackType

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fedbridge.jax_core import ArgumentError, check_argument

# A process that dies has sent no sign of life for so long when the others give up: within 30 s.
_HEARTBEAT_SECONDS = 20


def initialize(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Makes this process one of several; before anything else asks jax for a device.

    When a process dies, the others end within 30 seconds with a message that names it
    (`/task:1`); the checkpoint of the last round goes on from there.

    Args:
        coordinator: Address and port of process 0, e.g. `"10.0.0.1:1234"`. Without arguments all
            three come from Slurm's or Open MPI's variables.
        num_processes: How many there are.
        process_id: Which one this is, from 0.

    Raises:
        ArgumentError: Some of the arguments without the others, a process id out of range, no
            variables of a cluster, or a jax before 0.10.
        RuntimeError: jax is in use already, or the others were not there within five minutes.

    Example:
        >>> initialize("10.0.0.1:1234", num_processes=2, process_id=2)
        Traceback (most recent call last):
        fedbridge.jax_core._errors.ArgumentError: process_id is 2; it must be from 0 to 1.
    """
    if jax.__version_info__ < (0, 10):
        raise ArgumentError(
            f"several processes need jax 0.10 or newer, and this is {jax.__version__}; upgrade "
            "jax, or run one process: fb.sharded() uses all devices that it sees."
        )
    given = [value for value in (coordinator, num_processes, process_id) if value is not None]
    if len(given) not in {0, 3}:
        raise ArgumentError(
            "coordinator, num_processes and process_id belong together; give all three, or none "
            "where Slurm or Open MPI has set its variables."
        )
    if coordinator is not None and num_processes is not None and process_id is not None:
        written = isinstance(coordinator, str) and re.fullmatch(r".+:\d+", coordinator)
        check_argument(
            bool(written), "coordinator", coordinator, 'an address and a port, "host:1234"'
        )
        is_count = isinstance(num_processes, int) and num_processes > 0
        check_argument(is_count, "num_processes", num_processes, "a whole number from 1 on")
        known = isinstance(process_id, int) and 0 <= process_id < num_processes
        check_argument(known, "process_id", process_id, f"from 0 to {num_processes - 1}")
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
        )
    except ValueError as error:
        raise ArgumentError(
            "no cluster's variables were found (Slurm, Open MPI); give coordinator, num_processes "
            "and process_id."
        ) from error
    sys.excepthook = _end_at_once
    _meet()


def is_first() -> bool:
    """Whether this process is the one that writes and speaks: process 0, or the only one."""
    return jax.process_index() == 0


def leave(code: int) -> None:
    """Ends this process at once if it is one of several, which would wait for it; else returns.

    Python's own way out waits until all processes leave, up to five minutes.

    Args:
        code: Its exit code.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _meet() -> None:
    """Adds up a number of every device, now that all processes have just come.

    The first sum connects them, and gloo, which does that for CPUs, waits 30 seconds for the
    slowest; later ones wait for as long as it takes (jax-ml/jax#40831).
    """
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    ones = np.ones(mesh.size, np.float32)
    spread, everywhere = PartitionSpec("devices"), NamedSharding(mesh, PartitionSpec())
    given = jax.make_array_from_callback(ones.shape, NamedSharding(mesh, spread), ones.__getitem__)
    jax.jit(jnp.sum, out_shardings=everywhere)(given).block_until_ready()


def _end_at_once(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Ends a process that failed: leaving in order, it would wait for others that wait for it."""
    sys.__excepthook__(kind, error, trace)
    leave(1)
