"""TensorFlow's dtypes and specs in the types of TFF 0.87.0, which takes NumPy's only."""

import importlib
from typing import Any


def teach(watch: Any) -> None:
    """`tff.FederatedType(tf.float32, ...)`, `tff.SequenceType(dataset.element_spec)` as before."""
    import tensorflow as tf
    import tensorflow_federated as tff

    types: Any = importlib.import_module(
        "tensorflow_federated.python.core.impl.types.computation_types"
    )
    inference: Any = importlib.import_module(
        "tensorflow_federated.python.core.impl.types.type_conversions"
    )
    to_type, to_dtype = types.to_type, types._to_dtype

    def taking_tensorflow(obj: Any) -> Any:
        first = obj[0] if isinstance(obj, tuple) and len(obj) == 2 else obj
        if not isinstance(first, tf.DType | tf.TensorSpec | tf.data.DatasetSpec):
            return to_type(obj)
        if first is not obj and not isinstance(first, tf.DType):
            return to_type(obj)
        if first is not obj and not isinstance(obj[1], list | tuple | tf.TensorShape | None):
            return to_type(obj)
        watch.adapt("TensorFlow's dtypes and specs in types -> NumPy's")
        return types.tensorflow_to_type(obj)

    def dtype_of(dtype: Any) -> Any:
        if isinstance(dtype, tf.DType):
            watch.adapt("TensorFlow's dtypes and specs in types -> NumPy's")
            dtype = types.tensorflow_to_type(dtype).dtype
        return to_dtype(dtype)

    # Classes and functions of TFF look these two up when they are called.
    types.to_type, types._to_dtype = taking_tensorflow, dtype_of
    tff.federated_computation._to_type_fn = taking_tensorflow
    tff.to_type = tff.types.to_type = taking_tensorflow
    tff.types.type_from_tensors = inference.tensorflow_infer_type
