"""Plans against the real tf.data, iteration after iteration; random numbers against tf.random."""

import numpy as np
import pytest

from fedbridge.jax_core._philox import stateless_normal, stateless_uniform
from fedbridge.jax_core._pipeline import Pipeline, pipeline

tf = pytest.importorskip("tensorflow")

SIZES = (0, 1, 19, 20, 21, 100, 101, 460)
SEEDS = (1, 5, 2**40 + 3)

CHAINS = {
    "batch": "batch(20)",
    "drop_remainder": "shuffle(30, seed=2).batch(20, drop_remainder=True)",
    "shuffle_repeat": "shuffle(100, seed=1).repeat(3).batch(20)",
    "shuffle_repeat_repeat": "shuffle(40, seed=1).repeat(2).repeat(3).batch(20)",
    "shuffle_repeat_once": "shuffle(40, seed=1).repeat(1).batch(20)",
    "shuffle_skip_nothing_repeat": "shuffle(40, seed=1).skip(0).take(-1).repeat(2).batch(20)",
    "shuffle_for_ever_take": "shuffle(7, seed=1).repeat().take(250).batch(20)",
    "repeat_for_ever_take_shuffle": "repeat().take(250).shuffle(64, seed=4).batch(20)",
    "shuffle_take_repeat": "shuffle(50, seed=1).take(33).repeat(3).batch(20)",
    "shuffle_skip_repeat": "shuffle(50, seed=1).skip(13).repeat(3).batch(20)",
    "take_skip_shuffle": "take(90).skip(5).shuffle(10, seed=3).batch(8)",
    "take_nothing_repeat": "shuffle(5, seed=1).take(0).repeat(3).batch(8)",
    "skip_beyond_the_end": "shuffle(5, seed=1).skip(1000).repeat(2).shuffle(5, seed=2).batch(8)",
    "repeat_never": "shuffle(5, seed=1).take(9).repeat(0).batch(8)",
    "two_shuffles": "shuffle(10, seed=1).shuffle(1000, seed=2).batch(20)",
    "two_shuffles_repeat": "shuffle(10, seed=1).shuffle(20, seed=2).repeat(3).batch(20)",
    "shuffle_repeat_shuffle": "shuffle(10, seed=1).repeat(3).shuffle(70, seed=2).batch(20)",
    "shuffle_repeat_shuffle_take": (
        "shuffle(9, seed=1).repeat(4).shuffle(70, seed=2).take(55).batch(9)"
    ),
    "shuffle_take_repeat_shuffle_take": (
        "shuffle(9, seed=1).take(8).repeat(4).shuffle(7, seed=2).take(25).repeat(2).batch(9)"
    ),
    "the_same_order": "shuffle(30, seed=6, reshuffle_each_iteration=False).repeat(3).batch(20)",
    "the_same_order_take": (
        "shuffle(30, seed=6, reshuffle_each_iteration=False).take(25).repeat(3).batch(20)"
    ),
    "no_buffer": "shuffle(1, seed=6).repeat(2).batch(20)",
    "large_buffer": "repeat(2).shuffle(10_000, seed=8).batch(32)",
    "negative_seed": "shuffle(30, seed=-7).batch(20)",
    "seed_0": "shuffle(30, seed=0).batch(20)",
}


def tf_batches(dataset) -> list[list[int]]:
    return [batch.tolist() for batch in dataset.as_numpy_iterator()]


def plan_batches(plan) -> list[list[int]]:
    return [rows[:size].tolist() for rows, size in zip(plan.rows, plan.sizes, strict=True)]


def assert_same_order(ours: Pipeline, theirs, size: int, iterations: int = 5):
    plans = ours.plans(size)
    for _ in range(iterations):
        assert plan_batches(next(plans)) == tf_batches(theirs)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", SEEDS)
def test_plans_of_the_tutorial_pipeline_have_tensorflows_order(size, seed):
    theirs = tf.data.Dataset.range(size).repeat(5).shuffle(100, seed=seed).batch(20)
    ours = pipeline.repeat(5).shuffle(100, seed=seed).batch(20)
    assert plan_batches(ours.plan(size)) == tf_batches(
        tf.data.Dataset.range(size).repeat(5).shuffle(100, seed=seed).batch(20)
    )
    assert_same_order(ours, theirs, size)


@pytest.mark.parametrize("size", (0, 1, 21, 101))
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())
def test_plans_of_other_pipelines_have_tensorflows_order(chain, size):
    theirs = eval(f"d.{chain}", {"d": tf.data.Dataset.range(size)})
    assert_same_order(eval(f"p.{chain}", {"p": pipeline}), theirs, size)


@pytest.mark.parametrize("global_seed, seed", [(42, 5), (0, 0), (2**31 + 9, 1)])
def test_a_global_seed_enters_the_order_as_in_tensorflow(global_seed, seed):
    ours = pipeline.shuffle(30, seed=seed, global_seed=global_seed).repeat(2).batch(20)
    try:
        tf.random.set_seed(global_seed)
        theirs = tf.data.Dataset.range(101).shuffle(30, seed=seed).repeat(2).batch(20)
    finally:
        tf.random.set_seed(None)
    assert_same_order(ours, theirs, 101)


@pytest.mark.parametrize("size", (21, 101))
def test_a_traced_reduce_has_the_order_of_a_first_plan_in_every_call(size):
    """How TFF consumes a client's data: inside a graph, which makes the data set in every call."""
    ours = pipeline.shuffle(30, seed=3).repeat(3).shuffle(50, seed=1).batch(20)

    @tf.function
    def order():
        dataset = tf.data.Dataset.range(size).shuffle(30, seed=3).repeat(3).shuffle(50, seed=1)
        return dataset.reduce(tf.zeros([0], tf.int64), lambda seen, x: tf.concat([seen, [x]], 0))

    expected = [row for batch in plan_batches(ours.plan(size)) for row in batch]
    assert order().numpy().tolist() == expected
    assert order().numpy().tolist() == expected


@pytest.mark.parametrize("seed", [(7, 3), (0, 0), (-1, 2**40), (2**63 - 1, -5)])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 3), (64, 33), (0, 4)])
def test_stateless_uniform_is_tensorflows_bit_for_bit(shape, seed):
    theirs = tf.random.stateless_uniform(shape, seed, -0.3, 0.7).numpy()
    np.testing.assert_array_equal(stateless_uniform(shape, seed, -0.3, 0.7), theirs)


@pytest.mark.parametrize("seed", [(7, 3), (0, 0), (-1, 2**40)])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 3), (64, 33)])
def test_stateless_normal_is_tensorflows_but_for_the_last_bits(shape, seed):
    theirs = tf.random.stateless_normal(shape, seed, mean=0.5, stddev=0.05).numpy()
    # One bit of a normal of up to 5.7 is 4.8e-7; times stddev, beside the rounding of the sum.
    np.testing.assert_allclose(
        stateless_normal(shape, seed, mean=0.5, stddev=0.05), theirs, rtol=0, atol=1e-7
    )


def test_seeded_keras_initializers_are_stateless_draws():
    theirs = tf.keras.initializers.GlorotUniform(seed=11)((30, 20)).numpy()
    limit = np.sqrt(6 / 50)
    np.testing.assert_array_equal(stateless_uniform((30, 20), (11, 0), -limit, limit), theirs)
    theirs = tf.keras.initializers.RandomNormal(seed=11)((30, 20)).numpy()
    np.testing.assert_allclose(
        stateless_normal((30, 20), (11, 0), stddev=0.05), theirs, rtol=0, atol=1e-7
    )
