"""The table of TFF's names by era: complete, consistent, and findable by what scripts write."""

import pytest

from fedbridge.bridge import eras

STATUSES = {eras.CHECKED, eras.ACCEPTED, eras.IGNORED, eras.NOT_YET, eras.GONE}


def test_every_row_is_sound():
    for name, entry in eras.table().items():
        assert entry.name == name and name.startswith("tff.")
        assert entry.status in STATUSES
        assert entry.era
        if entry.last == "HEAD":
            assert entry.becomes == name


def test_what_a_name_becomes_is_a_name_of_today():
    for entry in eras.table().values():
        if entry.becomes:
            today = eras.lookup(entry.becomes)
            alive = today is not None and today.last in ("HEAD", "0.89")
            assert alive or eras.is_package(entry.becomes), entry


@pytest.mark.parametrize(
    ("symbol", "becomes"),
    [
        ("tff.learning.from_keras_model", "tff.learning.models.from_keras_model"),
        ("tff.learning.Model", "tff.learning.models.VariableModel"),
        (
            "tff.learning.build_federated_averaging_process",
            "tff.learning.algorithms.build_weighted_fed_avg",
        ),
        ("tff.learning.build_federated_evaluation", "tff.learning.algorithms.build_fed_eval"),
        ("tff.simulation.FromTensorSlicesClientData", "tff.simulation.datasets.TestClientData"),
        ("tff.tf_computation", "tff.tensorflow.computation"),
        # Private imports, and attributes of classes.
        ("tff.python.learning.model.Model", "tff.learning.models.VariableModel"),
        ("tff.python.simulation.datasets.sql_client_data.SqlClientData",
         "tff.simulation.datasets.SqlClientData"),
        ("tff.learning.ModelWeights.from_model", "tff.learning.models.ModelWeights"),
    ],
)  # fmt: skip
def test_old_names_are_found(symbol, becomes):
    assert eras.lookup(symbol).becomes == becomes


def test_every_spelling_of_execution_contexts_is_accepted():
    for name in (
        "tff.backends.native.set_local_execution_context",
        "tff.backends.native.set_local_python_execution_context",
        "tff.backends.native.set_sync_local_cpp_execution_context",
        "tff.backends.reference.set_reference_context",
        "tff.framework.set_default_executor",
        "tff.framework.set_default_context",
    ):
        assert eras.lookup(name).status == eras.ACCEPTED


def test_invented_names_get_the_nearest_real_one():
    assert eras.lookup("tff.simulation.models.from_keras_model") is None
    assert eras.nearest("tff.simulation.models.from_keras_model") == (
        "tff.learning.models.from_keras_model"
    )
    misspelt = "tff.learning.algorithms.build_weigthed_fed_avg"
    assert eras.nearest(misspelt) == "tff.learning.algorithms.build_weighted_fed_avg"
    assert eras.nearest("tff.zzzz") is None
    assert eras.nearest("tff.learning.privacy.dp_aggregator") == "tff.learning.dp_aggregator"
    assert eras.nearest("tff.learning.optimizers.SGD") == "tff.learning.optimizers.build_sgdm"
    for name in ("mnist.load_data", "fashion_mnist"):
        meant = eras.nearest(f"tff.simulation.datasets.{name}")
        assert meant == "tff.simulation.datasets.emnist.load_data"
    assert eras.nearest("tff.federated_avg") == "tff.federated_mean"
    assert eras.nearest("tff.learning.federated_avg") == eras.nearest("tff.FederatedAveraging")


def test_what_invented_names_mean_is_there_and_no_real_name_is_taken_for_one():
    known = eras.table()
    assert all(known[meant].last == "HEAD" for meant in eras.INVENTED.values())
    words = {name.rpartition(".")[2].replace("_", "").lower() for name in known}
    assert not words & set(eras.INVENTED)


def test_packages_are_told_from_names():
    assert eras.is_package("tff.learning") and eras.is_package("tff")
    assert not eras.is_package("tff.learning.algorithms.build_fed_sgd")
