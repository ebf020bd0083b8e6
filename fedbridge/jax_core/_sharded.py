"""The clients of a cohort spread over the devices of a mesh, and over processes.

Each device runs its own clients, by one of the other executions; then one `psum` adds up what they
give. The server's part of the round is computed on every device alike.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from fedbridge.jax_core._by_platform import by_platform
from fedbridge.jax_core._clients import ClientFn, Execution, JittedRound, jit_round
from fedbridge.jax_core._cohort import Cohort
from fedbridge.jax_core._errors import ArgumentError, check_argument
from fedbridge.jax_core._spread import CLIENTS, SpreadCohort, replicate, spread

_ALL, _OWN = PartitionSpec(), PartitionSpec(CLIENTS)


def sharded(
    devices: Mesh | Sequence[jax.Device] | None = None, inner: Execution = by_platform
) -> Execution:
    """Spreads the clients over devices; every round is one program with one `psum`.

    The devices share the steps of a cohort as evenly as whole clients allow. Sums are those of one
    device in another order; what is kept, and what is drawn at random, is the same.

    Args:
        devices: Where the clients run, also those of other processes; or a mesh with the one axis
            `clients`. Default: all that jax has.
        inner: How the clients of one device run: `sequential` or `vmapped(...)`; default by the
            platform, as `default_execution` on one device.

    Raises:
        ArgumentError: A mesh with other axes, devices that the processes do not share evenly, or
            an `inner` that is not one of the two.

    Example:
        >>> import fedbridge as fb
        >>> model = fb.models.softmax_regression((2,), 3)
        >>> process = fb.algorithms.fed_avg(
        ...     model, fb.optimizers.sgdm(0.1), execution=sharded(inner=fb.vmapped(8)))
    """
    mesh = _mesh(devices)
    check_argument(
        isinstance(inner, Execution), "inner", inner, "fb.sequential or fb.vmapped(...), called"
    )
    if inner.compile is not jit_round:
        raise ArgumentError(
            "inner cannot run within the one program of all devices; take sequential or "
            "vmapped(...)."
        )

    def over_devices(
        client_fn: ClientFn, server_values: PyTree, cohort: Cohort
    ) -> tuple[PyTree, PyTree]:
        if not isinstance(cohort, SpreadCohort):
            raise ArgumentError(
                "a sharded execution runs only what its own `compile` has made; call "
                "execution.compile(round)(..., cohort)."
            )

        def on_one(server_values: PyTree, key: Any, parts: PyTree) -> tuple[PyTree, PyTree]:
            own = cohort.part(key, parts)
            sums, kept = inner.over_clients(client_fn, server_values, own)
            return jax.lax.psum(sums, CLIENTS), kept

        from fedbridge.jax_core._compat import shard_map  # not needed by `import fedbridge`

        run = shard_map(on_one, mesh, (_ALL, _ALL, _OWN), (_ALL, _OWN))
        sums, kept = run(server_values, cohort.key, cohort.parts)
        take = lambda leaf: leaf.at[cohort.places].get(mode="fill", fill_value=0)
        return sums, jax.tree.map(take, kept)

    def place(cohort: Cohort) -> SpreadCohort:
        return spread(cohort, mesh)

    def compile_for_mesh(round: Callable) -> Callable:
        platform = mesh.devices.flat[0].platform
        everywhere = NamedSharding(mesh, _ALL)
        put = lambda arg: replicate(arg, mesh)
        return JittedRound(round, place, put, platform, out_shardings=everywhere)

    return Execution(over_devices, compile_for_mesh, place)


def _mesh(devices: Mesh | Sequence[jax.Device] | None) -> Mesh:
    if isinstance(devices, Mesh):
        mesh = devices
    else:
        listed = devices is None or isinstance(devices, Sequence | np.ndarray)
        given = list(jax.devices() if devices is None else devices) if listed else []
        known = all(isinstance(device, jax.Device) for device in given)
        fits = listed and known and len({device.id for device in given}) == len(given)
        allowed = "a list of different devices, a mesh, or None for all"
        check_argument(fits, "devices", devices, allowed)
        if not given:
            raise ArgumentError("devices is empty; give at least one, or None for all of them.")
        mesh = Mesh(np.array(given), (CLIENTS,))
    if mesh.axis_names != (CLIENTS,):
        raise ArgumentError(
            f"the mesh has the axes {mesh.axis_names}; clients are spread over the one axis "
            f"{CLIENTS!r}: give a mesh with that one, or a list of devices."
        )
    owners = [device.process_index for device in mesh.devices.flat]
    shares = [owners.count(process) for process in range(jax.process_count())]
    if len(set(shares)) > 1:
        raise ArgumentError(
            f"the mesh has {len(owners)} devices, of which the processes own {shares}; give every "
            "process as many."
        )
    return mesh
