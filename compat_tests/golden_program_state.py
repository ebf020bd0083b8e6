"""Writes tests/program_states/ with the real TFF: what its FileProgramStateManager saves.

    python compat_tests/golden_program_state.py tests/program_states

TensorFlow 2.14 saves dictionaries with the typing_extensions that TFF asks for, 4.5.0, only.
Version 7 is whole; of version 3, a leaf of every dtype, only the tensors are kept.
"""

import asyncio
import collections
import pathlib
import shutil
import sys

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

ramp = lambda *shape: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 8
weights = [ramp(4, 3), ramp(3) - 1]
state = tff.learning.templates.LearningAlgorithmState(
    global_model_weights=tff.learning.models.ModelWeights(weights, [ramp(2) + 5]),
    distributor=(),
    client_work=collections.OrderedDict(learning_rate=np.float32(0.1)),
    aggregator=collections.OrderedDict(value_sum_process=(), weight_sum_process=()),
    finalizer=collections.OrderedDict(
        learning_rate=np.float32(0.5),
        step=np.int32(7),
        accumulator=[-weight for weight in weights],
    ),
)
dtypes = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 complex64 bool"
kinds = {name: np.array([[1, 0, 3]], name) for name in dtypes.split()}
kinds["bfloat16"] = np.array([[1, 0, 3]], tf.bfloat16.as_numpy_dtype)
kinds["bytes"] = b"bytes\x00\xff\x00"
kinds["texts"] = np.array([b"a", b"", b"c" * 300], object)
kinds["empty"] = np.zeros((0, 3), np.float32)

root = pathlib.Path(sys.argv[1])
shutil.rmtree(root, ignore_errors=True)
manager = tff.program.FileProgramStateManager(str(root))
asyncio.run(manager.save(kinds, 3))
asyncio.run(manager.save(state, 7))
for name in ("saved_model.pb", "fingerprint.pb"):
    (root / "program_state_3" / name).unlink()
