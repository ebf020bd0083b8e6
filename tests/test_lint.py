"""Lint: names followed through every kind of import, obstacles in sentences, nothing run."""

import io
import json
import textwrap

import pytest
from rich.console import Console

from fedbridge.bridge import lint as module, script
from fedbridge.bridge.terminal import lint_table
from fedbridge.jax_core import ScriptError

FED_AVG = "tff.learning.algorithms.build_weighted_fed_avg(model_fn, sgd)"


@pytest.fixture
def lint(tmp_path):
    def look(source, name="train.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(source))
        return module.lint(path)

    return look


def symbols(found):
    return {name.symbol: name.status for name in found.names}


def test_a_plain_script_is_checkable(lint):
    found = lint(f"""
        import tensorflow_federated as tff
        train, _ = tff.simulation.datasets.emnist.load_data()
        sgd = tff.learning.optimizers.build_sgdm(0.1)
        process = {FED_AVG}
        """)
    assert found.checkable and not found.obstacles and not found.notes
    assert set(symbols(found).values()) == {"checked"}
    assert found.names[0] == module.Name(
        "tff.simulation.datasets.emnist.load_data",
        "3",
        "since 0.1",
        "tff.simulation.datasets.emnist.load_data",
        "checked",
    )


@pytest.mark.parametrize(
    "text",
    [
        "import tensorflow_federated\ntensorflow_federated.learning.algorithms.build_fed_eval(f)",
        "import tensorflow_federated as fed\nfed.learning.algorithms.build_fed_eval(f)",
        "from tensorflow_federated import learning\nlearning.algorithms.build_fed_eval(f)",
        "from tensorflow_federated.learning import algorithms as a\na.build_fed_eval(f)",
        "from tensorflow_federated.learning.algorithms import build_fed_eval as e\ne(f)",
        "import tensorflow_federated as tff\nl = tff.learning.algorithms\nl.build_fed_eval(f)",
    ],
)
def test_every_way_to_import(lint, text):
    assert symbols(lint(text)) == {"tff.learning.algorithms.build_fed_eval": "checked"}


def test_old_names_become_new_ones(lint):
    found = lint("""
        import tensorflow_federated as tff
        tff.framework.set_default_executor(tff.framework.create_local_executor())
        print(tff.federated_computation(lambda: "Hello, World!")())
        process = tff.learning.build_federated_averaging_process(model_fn)
        """)
    assert found.checkable
    (builder,) = [name for name in found.names if "averaging" in name.symbol]
    assert builder.becomes == "tff.learning.algorithms.build_weighted_fed_avg"
    assert (builder.era, builder.line) == ("0.1 to 0.27", "5")
    assert symbols(found)["tff.federated_computation"] == "accepted"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tf.keras.layers.Dropout(0.5)", "random masks can never agree across frameworks"),
        ("LSTM(8, dropout=0.1)", "dropout in LSTM"),
        ("tff.jax.computation(fn)", "Federated Core"),
        ("tff.aggregators.HadamardTransformFactory()", "HadamardTransformFactory is not replayed"),
        ("tff.learning.dp_aggregator(1.0, 10)", "dp_aggregator adds Gaussian noise"),
        ("D.gaussian_fixed(clip=1.0, noise_multiplier=0.5)", "gaussian_fixed adds Gaussian noise"),
        ("tff.simulation.models.from_keras_model(m)", "did you mean tff.learning.models.from_ker"),
        ("tff.federated_collect(x)", "federated_collect is gone from TFF"),
        ("tff.simulation.HDF5ClientData(f)", "no stand-in (fb.from_hdf5 reads the file, and"),
        ("tff.simulation.datasets.mnist.load_data()", "did you mean tff.simulation.datasets.emnis"),
        ("tf.keras.optimizers.Adadelta()", "Adadelta has no counterpart"),
    ],
)
def test_obstacles_name_line_and_reason(lint, line, words):
    found = lint(f"import tensorflow_federated as tff\n{FED_AVG}\n{line}\n")
    assert not found.checkable
    assert any(words in text and text.startswith("line 3: ") for text in found.obstacles)


@pytest.mark.parametrize(
    "line",
    [
        "tff.learning.algorithms.build_weighted_fed_prox(f, 0.5, o)",
        "tff.learning.algorithms.build_mime_lite_with_optimizer_schedule(f, rate, o)",
        "tff.learning.algorithms.build_fed_recon(f, loss_fn=loss)",
        "tff.learning.algorithms.build_fed_kmeans(3, (2,))",
        "tff.learning.optimizers.build_yogi(0.1)",
        "tff.learning.optimizers.schedule_learning_rate(o, rate)",
        "tff.learning.models.functional_model_from_keras(m, loss, spec)",
        "tff.learning.robust_aggregator()",
        "tff.learning.dp_aggregator(0.0, 10)",
        "tff.learning.dp_aggregator(z, 10)",
        "tff.aggregators.clipping_factory(1.0, tff.aggregators.SumFactory())",
        "tff.learning.compression_aggregator(stochastic=False)",
    ],
)
def test_what_is_replayed_is_no_obstacle(lint, line):
    found = lint(f"import tensorflow_federated as tff\n{FED_AVG}\n{line}\n")
    assert found.checkable and not found.notes


def test_stochastic_rounding_is_named(lint):
    line = "tff.learning.compression_aggregator()"
    found = lint(f"import tensorflow_federated as tff\n{FED_AVG}\n{line}\n")
    assert found.checkable
    (note,) = found.notes
    assert note.startswith("line 3: compression_aggregator rounds large tensors stochastically")


def test_unseeded_shuffles_and_keras_optimizers_are_fine(lint):
    found = lint(f"""
        import random, tensorflow as tf, tensorflow_federated as tff

        dataset.shuffle(100).batch(20)
        dataset.shuffle(100, seed=1)
        random.shuffle(client_ids)
        {FED_AVG[:-1]}, client_optimizer_fn=lambda: tf.keras.optimizers.SGD(lr=0.1))
        """)
    assert found.checkable
    assert len(found.notes) == 2
    assert found.notes[0].startswith("line 4: unseeded shuffle: fine")
    assert "lr= read as learning_rate=" in found.notes[1]


def test_what_will_not_come_out_the_same_is_remarked(lint):
    found = lint(f"""
        import tensorflow as tf, tensorflow_federated as tff

        def model_fn():
            model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,)),
                                         tf.keras.layers.BatchNormalization()])
            model.set_weights(trained)
            return tff.learning.models.from_keras_model(model, loss, spec)
        data.map(f).repeat(2).map(g).shuffle(9, seed=1)
        data.shuffle(9, seed=1).repeat(2)
        {FED_AVG}
        """)
    assert [note.partition(":")[0] for note in found.notes] == [
        "line 7",
        "line 6",
        "line 9",
        "line 5",
    ]
    for note, said in zip(
        found.notes, ["no effect", "never move", "epochs mix", "without a seed"], strict=True
    ):
        assert said in note


def test_seeded_weights_are_no_remark(lint):
    layer = "tf.keras.layers.Dense(2, input_shape=(3,))"
    found = lint(f"""
        import tensorflow as tf, tensorflow_federated as tff
        tf.keras.utils.set_random_seed(1)
        {layer}
        {FED_AVG}
        """)
    assert not found.notes


def test_a_metric_of_ones_own_beside_a_recurrent_layer_is_remarked(lint):
    own = "class Half(tf.keras.metrics.Mean): ..."
    script = f"""
        import tensorflow as tf, tensorflow_federated as tff
        tf.keras.utils.set_random_seed(1)
        {own}
        tf.keras.layers.{{layer}}(2)
        {FED_AVG}
        """
    (found,) = lint(script.format(layer="GRU")).notes
    assert found.startswith(
        "line 4: Half, a metric of the script's own, beside GRU: `fedbridge run`"
    )
    assert not lint(script.format(layer="Dense")).notes


PRIVATE = "a private import: TFF 0.87.0 may have it, fedbridge follows public names only"


@pytest.mark.parametrize(
    ("line", "symbol", "becomes"),
    [
        (
            "from tensorflow_federated.python.learning.algorithms import fed_avg",
            "learning.algorithms.fed_avg",
            "",
        ),
        (
            "from tensorflow_federated.python.learning.algorithms.fed_eval import build_fed_eval",
            "learning.algorithms.fed_eval.build_fed_eval",
            "tff.learning.algorithms.build_fed_eval",
        ),
        (
            "from tensorflow_federated.python.learning.core.process import LearningProcess",
            "learning.core.process.LearningProcess",
            "tff.learning.templates.LearningProcess",
        ),
        ("import tensorflow_federated.python.learning.models as m", "learning.models", ""),
        ("import tensorflow_federated.python.learning", "learning", ""),
    ],
)
def test_private_imports_are_named_as_such(lint, line, symbol, becomes):
    found = lint(line)
    symbol = f"tff.python.{symbol}"
    assert found.names == [module.Name(symbol, "1", "private", becomes, "private")]
    (obstacle,) = found.obstacles
    assert obstacle.startswith(f"line 1: {symbol} is {PRIVATE}; use {becomes}")


def test_what_every_module_has_is_no_name_of_tff(lint):
    found = lint(
        f"import tensorflow_federated as tff\n{FED_AVG}\n"
        "print(tff.__name__, tff.__doc__, tff.__file__, tff.learning.__path__, tff.__version__)\n"
    )
    assert found.checkable, found.obstacles
    assert "tff.__version__" in symbols(found)
    assert "tff.__name__" not in symbols(found)


def test_a_private_module_is_followed_to_the_public_name(lint):
    found = lint(
        "from tensorflow_federated.python.learning.algorithms import fed_avg as f\n"
        "f.build_weighted_fed_avg(model_fn)\n"
    )
    assert found.names[1].becomes == "tff.learning.algorithms.build_weighted_fed_avg"


def test_a_guess_is_no_replacement(lint):
    found = lint("import tensorflow_federated as tff\ntff.learning.build_fedavg(f)\n")
    name = "tff.learning.build_fedavg"
    assert found.names == [module.Name(name, "2", "never", "", "unknown")]
    assert found.obstacles == [
        f"line 2: TFF has no {name}; did you mean tff.learning.algorithms.build_weighted_fed_avg?"
    ]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("tf.keras.layers.ConvLSTM2D(3, 4)", "layers.ConvLSTM2D"),
        ("keras.layers.UnitNormalization()", "layers.UnitNormalization"),
        ("layers.MultiHeadAttention(3, 4)", "layers.MultiHeadAttention"),
        ("Attention()", "layers.Attention"),
        ("L.BinaryFocalCrossentropy()", "losses.BinaryFocalCrossentropy"),
        ("metrics = [tf.keras.metrics.F1Score]", "metrics.F1Score"),
        ("tf.metrics.MeanRelativeError([1])", "metrics.MeanRelativeError"),
    ],
)
def test_what_keras_has_and_fedbridge_has_not(lint, line, name):
    found = lint(f"""
        import tensorflow as tf, tensorflow_federated as tff
        from tensorflow import keras
        from tensorflow.keras import layers
        from tensorflow.keras.layers import Attention
        L = tf.keras.losses
        {FED_AVG}
        {line}
        """)
    (obstacle,) = found.obstacles
    assert obstacle.startswith(f"line 8: tf.keras.{name} is not converted yet; fedbridge knows")


def test_keras_classes_that_are_no_obstacle(lint):
    found = lint(f"""
        import tensorflow as tf, tensorflow_federated as tff
        def build(layer: tf.keras.layers.LSTM): ...
        tf.keras.Sequential([
            tf.keras.layers.InputLayer((28, 28)), tf.keras.layers.MaxPool2D(),
            tf.keras.layers.Conv2D(3, 3), tf.keras.layers.Dense(3), tf.keras.layers.ReLU(),
            tf.keras.layers.experimental.preprocessing.Rescaling(2.0),
        ])
        tf.keras.losses.SparseCategoricalCrossentropy(tf.keras.losses.Reduction.SUM)
        tf.keras.metrics.SparseCategoricalAccuracy(), tf.keras.metrics.Mean()
        tf.keras.layers.StringLookup()
        {FED_AVG}
        """)
    assert found.obstacles == []


@pytest.mark.parametrize("line", ["14", "cell 12, line 3"])
def test_the_table_fits_and_breaks_no_name(line):
    long = "tff.simulation.compose_dataset_computation_with_iterative_process"
    old = "tff.learning.build_federated_averaging_process"
    new = "tff.learning.algorithms.build_weighted_fed_avg"
    names = [
        module.Name(long, line, "since 0.20.1", long, "accepted"),
        module.Name(old, line, "0.1 to 0.16.1", new, "checked"),
    ]
    console = Console(file=io.StringIO(), width=80)
    console.print(lint_table(names))
    text = console.file.getvalue()
    assert old in text and f"→ {new}" in text and long.rpartition(".")[2] in text
    assert max(map(len, text.splitlines())) <= 80

    console = Console(file=io.StringIO(), width=50)
    console.print(lint_table(names, 50))
    narrow = "".join(row[:24].strip() for row in console.file.getvalue().splitlines())
    assert old[:10] in narrow


def test_a_type_hint_is_no_obstacle(lint):
    found = lint(f"""
        import tensorflow_federated as tff
        def model_fn() -> tff.learning.models.VariableModel: ...
        {FED_AVG}
        """)
    assert found.checkable and len(found.names) == 2


def test_without_a_process_there_is_nothing_to_check(lint):
    assert "not import" in lint("print(1)").obstacles[0]
    data_alone = "import tensorflow_federated as tff\ntff.simulation.datasets.emnist.load_data()"
    assert "there is nothing to compare" in lint(data_alone).obstacles[0]
    hello = "import tensorflow_federated as tff\ntff.federated_computation(lambda: 'Hello')()"
    assert "there is nothing to compare" in lint(hello).obstacles[0]


@pytest.mark.parametrize("name", ["tf_computation", "tensorflow.computation"])
def test_computations_of_ones_own_can_be_checked(lint, name):
    found = lint(f"""
        import tensorflow_federated as tff
        @tff.{name}(tff.TensorType(np.float32, [2]), np.int32)
        def pick(table, key):
            return table[key]
        tff.federated_select(keys, most, table, pick)
        """)
    assert found.checkable, found.obstacles


def test_a_notebook_is_read_cell_by_cell(lint):
    cells = [
        {"cell_type": "markdown", "source": "# not code ("},
        {"cell_type": "code", "source": ["!pip install x\n", "import tensorflow_federated as tff"]},
        {"cell_type": "code", "source": ["%%time\n", FED_AVG + "\n", "tff.jax.computation(x)"]},
        {"cell_type": "code", "source": "%%bash\necho ("},
    ]
    found = lint(json.dumps({"cells": cells}), "book.ipynb")
    assert found.names[0].line == "cell 2, line 2"
    assert any(text.startswith("cell 2, line 3: ") for text in found.obstacles)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.py", "print 'old'\n", r"a\.py, line 1: \"print 'old'\" is not Python 3.*is Python 2"),
        ("a.py", 'exec "x"\n', "line 1: .* it is Python 2: rewrite it"),
        ("a.py", "try:\n  x\nexcept Error, e:\n  x\n", "line 3: .* it is Python 2"),
        ("a.py", "raise ValueError, 'no'\n", "line 1: .* it is Python 2"),
        ("a.py", "x = 10L\n", "line 1: .* it is Python 2"),
        (
            "a.py",
            "x = 1\n!pip install tff\n",
            r"line 2: '!pip .* it is a notebook's.*of an \.ipynb",
        ),
        ("a.py", "%load_ext tensorboard\n", "line 1: .* it is a notebook's"),
        ("a.py", "files = !ls\n", "line 1: .* it is a notebook's"),
        ("a.py", "import os\n\tx = 1\n", "line 2: 'x = 1' is not Python 3.*; mend it"),
        ("a.py", "def f():\n  yield\nyield 1\n", "line 3: 'yield 1' is not Python 3"),
        ("a.py", "x\0 = 1\n", r"a\.py.*is not Python"),
        ("b.ipynb", "not json", "is not a Jupyter notebook"),
        ("b.ipynb", '{"cells": 1}', "is not a Jupyter notebook"),
        (
            "b.ipynb",
            '{"cells": [{"cell_type": "code", "source": "x ="}]}',
            "cell 1, line 1: 'x =' is not",
        ),
    ],
)
def test_what_cannot_be_read_says_why(lint, name, text, words):
    with pytest.raises(ScriptError, match=words):
        lint(text, name)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfimport tensorflow_federated as tff\ntff.a\n",
        b"# -*- coding: latin-1 -*-\nimport tensorflow_federated as tff; name = '\xe9'\ntff.a\n",
        b"import tensorflow_federated as tff\r\ntff.a\r\n",
    ],
)
def test_a_script_is_read_as_python_reads_it(tmp_path, text):
    (tmp_path / "a.py").write_bytes(text)
    assert [name.symbol for name in module.lint(tmp_path / "a.py").names] == ["tff.a"]


def test_a_text_of_another_coding_is_an_error(tmp_path):
    (tmp_path / "a.py").write_bytes(b"name = '\xe9'\n")
    with pytest.raises(ScriptError, match=r"a\.py cannot be read as text"):
        module.lint(tmp_path / "a.py")


def test_a_missing_script_is_an_error(tmp_path):
    with pytest.raises(ScriptError, match="no such script"):
        module.lint(tmp_path / "nowhere.py")


def test_a_script_runs_as_main_beside_its_own_modules(tmp_path, monkeypatch):
    import sys

    for what in ("path", "argv"):
        monkeypatch.setattr(sys, what, list(getattr(sys, what)))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    (tmp_path / "neighbour_of_test.py").write_text("value = 3")
    (tmp_path / "train.py").write_text(
        "import sys, neighbour_of_test\n"
        "assert __name__ == '__main__' and sys.argv[1:] == ['--x']\n"
        "raise KeyError(neighbour_of_test.value)\n"
    )
    with pytest.raises(KeyError, match="3") as caught:
        script.run(tmp_path / "train.py", ["--x"])
    found = script.place(tmp_path / "train.py", caught.value)
    assert found.text == "line 3" and found.code.startswith("raise KeyError")
