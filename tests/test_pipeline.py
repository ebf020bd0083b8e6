"""Plans: TensorFlow's recorded orders, and what holds for every plan.

Everything recorded here was recorded with TensorFlow 2.14.1 (Linux x86-64, eager) by iterating over
`tf.data.Dataset.range(n)` behind the named steps; compat_tests/test_pipeline.py repeats it live.
"""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from fedbridge.jax_core._errors import ClientDataError
from fedbridge.jax_core._philox import philox_words, stateless_normal, stateless_uniform
from fedbridge.jax_core._pipeline import Batches, Pipeline, pipeline

# SHA-256 (16 digits) of the little-endian int32 orders of repeat(5).shuffle(100, seed).batch(20) in
# the first three iterations, by (n, seed).
TUTORIAL_ORDERS = {
    (1, 1): ("de47c9b27eb8d300", "de47c9b27eb8d300", "de47c9b27eb8d300"),
    (1, 2): ("de47c9b27eb8d300", "de47c9b27eb8d300", "de47c9b27eb8d300"),
    (1, 3): ("de47c9b27eb8d300", "de47c9b27eb8d300", "de47c9b27eb8d300"),
    (19, 1): ("b6ca7af65cac1997", "59e329eb8f38e46e", "d51611bd32d4774a"),
    (19, 2): ("1ff76431960ad3b0", "bb2acfc7b42708a7", "0fe5ad7ccbddebef"),
    (19, 3): ("d45740b1a854d0b4", "4f8a5633c8fe3ada", "20a23af9823f9478"),
    (20, 1): ("271f37f04f6d7e53", "c8378b0b8bba1a1d", "85ebde53e0c27f6e"),
    (20, 2): ("0573c3e5a0309a25", "b026a04ee2e7659d", "24e9268957280ef6"),
    (20, 3): ("ff240990d5cd348c", "4175c644642c979c", "fd2ca1d5ae15ca04"),
    (21, 1): ("57e957ec224d4874", "b0ef8c771d5110c3", "170bf2bb71cd5463"),
    (21, 2): ("2e26fd8983333d03", "80341b3b97a06eeb", "db0386c6bd8a9e13"),
    (21, 3): ("7a0312d0ae96552a", "ee5df2c8213da2db", "94361ea7a91674a6"),
    (100, 1): ("49ccfc8ed155b07c", "f25813b5a1b084e8", "360abdaf5d52d2a3"),
    (100, 2): ("4373a50149df9b63", "af2b86fc1d22f770", "4ff4756fbac69cb3"),
    (100, 3): ("e6bff43e44d533e0", "09ee026cf3999e8f", "e8d7a2cde0fcc487"),
    (101, 1): ("8dfb3181f72136e8", "d27fadb2a5662384", "07cb5f462582159b"),
    (101, 2): ("87cc09f343768687", "2608c426de86054f", "f20ada18d4db249a"),
    (101, 3): ("e6242d487cceccb3", "524df78879fd3a3b", "581c257dddbf3e11"),
    (460, 1): ("45fa48baaf1a6ee3", "c62d8c59d1f8a6e2", "b7024846158cecf4"),
    (460, 2): ("59bde14083deba9d", "ea242e53eb7a95f8", "8c34050e1173c92f"),
    (460, 3): ("09814c66c776f629", "39c9d10ca0753ab4", "eda0e353a5cebf0f"),
}


def order(plan) -> list[int]:
    """The real rows of a plan, batch after batch."""
    real = np.arange(plan.rows.shape[1]) < plan.sizes[:, None]
    return plan.rows[real].tolist()


def orders(steps: Pipeline, size: int, iterations: int) -> list[list[int]]:
    plans = steps.batch(4).plans(size)
    return [order(next(plans)) for _ in range(iterations)]


@pytest.mark.parametrize(("size", "seed"), TUTORIAL_ORDERS)
def test_the_tutorial_pipeline_has_tensorflows_recorded_order(size, seed):
    plans = pipeline.repeat(5).shuffle(100, seed=seed).batch(20).plans(size)
    digests = tuple(
        hashlib.sha256(np.array(order(next(plans)), "<i4").tobytes()).hexdigest()[:16]
        for _ in range(3)
    )
    assert digests == TUTORIAL_ORDERS[size, seed]


@pytest.mark.parametrize(
    ("steps", "size", "recorded"),
    [
        (
            pipeline.shuffle(12, seed=5),
            12,
            [[1, 0, 7, 11, 9, 10, 3, 5, 4, 8, 6, 2], [8, 1, 3, 4, 7, 6, 10, 11, 0, 9, 2, 5]],
        ),
        (
            pipeline.shuffle(12, seed=5, reshuffle_each_iteration=False),
            12,
            [[7, 3, 6, 11, 4, 1, 0, 9, 8, 2, 5, 10], [7, 3, 6, 11, 4, 1, 0, 9, 8, 2, 5, 10]],
        ),
        (
            pipeline.repeat(2).shuffle(4, seed=1),
            6,
            [[0, 4, 5, 1, 2, 1, 3, 0, 3, 2, 5, 4], [2, 1, 3, 4, 0, 2, 1, 5, 4, 3, 0, 5]],
        ),
        (
            pipeline.shuffle(4, seed=5).repeat(2),
            6,
            [[1, 4, 5, 2, 3, 0, 0, 4, 5, 1, 2, 3], [3, 1, 5, 4, 0, 2, 2, 0, 4, 5, 3, 1]],
        ),
        (
            # TensorFlow skips an order between the iterations here, and not in the case above.
            pipeline.shuffle(4, seed=5).take(4).repeat(2),
            6,
            [[1, 4, 5, 2, 0, 4, 5, 1], [2, 0, 4, 5, 0, 2, 5, 3]],
        ),
        (
            pipeline.shuffle(3, seed=1).shuffle(4, seed=2),
            6,
            [[1, 0, 2, 4, 3, 5], [3, 4, 5, 2, 0, 1]],
        ),
        (
            pipeline.shuffle(8, seed=5, global_seed=42),
            8,
            [[7, 5, 3, 4, 0, 2, 6, 1], [1, 4, 6, 3, 0, 5, 2, 7]],
        ),
    ],
)
def test_pipelines_have_tensorflows_recorded_order(steps, size, recorded):
    assert orders(steps, size, iterations=2) == recorded


def test_batches_keeps_tffs_order_of_steps():
    steps = pipeline.shuffle(9, seed=3).repeat(4).take(25).batch(10, drop_remainder=True)
    assert Batches(10, 4, 9, seed=3, max_elements=25, drop_remainder=True) == steps
    assert Batches(5) == pipeline.batch(5)


pipelines = st.builds(
    Batches,
    batch_size=st.integers(1, 9),
    num_epochs=st.integers(1, 4),
    shuffle_buffer=st.integers(1, 40),
    seed=st.none() | st.integers(-(2**40), 2**40),
    max_elements=st.none() | st.integers(0, 60),
    drop_remainder=st.booleans(),
)


@settings(deadline=None)
@given(pipelines, st.integers(0, 40))
def test_a_partial_batch_is_last_and_filled_with_its_own_rows(batches, size):
    plan = batches.plan(size)
    batch_size = batches.steps[-1].size
    assert plan.rows.dtype == plan.sizes.dtype == np.int32
    assert plan.rows.shape == (len(plan.sizes), batch_size)
    assert all(plan.sizes[:-1] == batch_size)
    for rows, real in zip(plan.rows, plan.sizes, strict=True):
        assert 1 <= real <= batch_size
        np.testing.assert_array_equal(rows, np.resize(rows[:real], batch_size))


@settings(deadline=None)
@given(pipelines, st.integers(0, 40))
def test_a_plan_has_as_many_rows_as_the_steps_let_through(batches, size):
    epochs = next((step.times for step in batches.steps if type(step).__name__ == "_Repeat"), 1)
    most = next((step.number for step in batches.steps if type(step).__name__ == "_Take"), 10**9)
    total = min(size * epochs, most)
    if batches.steps[-1].drop_remainder:
        total -= total % batches.steps[-1].size
    plan = batches.plan(size)
    assert plan.sizes.sum() == total
    assert np.bincount(order(plan), minlength=1).max() <= epochs


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(1, 80), st.none() | st.integers(0, 9), st.booleans())
def test_every_epoch_of_a_shuffle_is_a_permutation(size, buffer_size, seed, reshuffle):
    steps = pipeline.shuffle(buffer_size, seed, reshuffle).repeat(3).batch(7)
    rows = np.array(order(steps.plan(size))).reshape(3, size)
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(size), (3, 1)))
    if not reshuffle:
        assert (rows == rows[0]).all()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 9))
def test_a_shuffle_moves_no_row_forward_by_more_than_its_buffer(size, buffer_size, seed):
    rows = order(pipeline.shuffle(buffer_size, seed).batch(5).plan(size))
    assert all(row < turn + buffer_size for turn, row in enumerate(rows))


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_take_and_skip_are_slices(size, start, count):
    steps = pipeline.skip(start).take(count).batch(4)
    assert order(steps.plan(size)) == list(range(size))[start:][:count]


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 100))
def test_repeating_for_ever_and_taking_goes_round(size, count):
    assert order(pipeline.repeat().take(count).batch(4).plan(size)) == [
        row % size for row in range(count)
    ]


def test_seeded_plans_depend_on_pipeline_and_size_alone_and_are_read_only():
    batches = Batches(20, shuffle_buffer=10, seed=1)
    plan = batches.plan(30, np.random.default_rng(1))
    assert plan is Batches(20, shuffle_buffer=10, seed=1).plan(30)
    for array in plan:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_unseeded_plans_depend_on_the_generator():
    batches = Batches(20, num_epochs=2, shuffle_buffer=100)
    first, second = (batches.plan(100, np.random.default_rng(seed)) for seed in (1, 1))
    np.testing.assert_array_equal(first.rows, second.rows)
    rng = np.random.default_rng(1)
    assert order(batches.plan(100, rng)) != order(batches.plan(100, rng))
    assert order(batches.plan(100)) != order(batches.plan(100))


def test_an_unseeded_shuffle_without_reshuffling_repeats_one_order():
    first, second = orders(pipeline.shuffle(50, reshuffle_each_iteration=False), 50, iterations=2)
    assert first == second != sorted(first)


@pytest.mark.parametrize("batches", [Batches(20), Batches(20, shuffle_buffer=5, seed=1)])
def test_a_client_without_rows_has_no_steps(batches):
    plan = batches.plan(0)
    assert plan.rows.shape == (0, 20)
    assert plan.sizes.shape == (0,)


@pytest.mark.parametrize("size", [0, 1, 100])
@pytest.mark.parametrize(
    "steps", [pipeline.repeat(), pipeline.take(5).repeat(-1).skip(3), pipeline.repeat().repeat(2)]
)
def test_a_pipeline_without_an_end_is_refused(steps, size):
    with pytest.raises(ClientDataError, match=r"never ends; give it a count .* \.take\(n\)"):
        steps.batch(4).plan(size)


def test_steps_with_the_same_numbers_are_not_the_same_steps():
    taken, skipped = pipeline.take(5).batch(2), pipeline.skip(5).batch(2)
    assert taken != skipped
    assert taken.plan(8).rows.tolist() == [[0, 1], [2, 3], [4, 4]]
    assert skipped.plan(8).rows.tolist() == [[5, 6], [7, 7]]


def test_batch_must_be_there_and_come_last():
    assert pipeline.batch(2).plan(5).sizes.tolist() == [2, 2, 1]
    with pytest.raises(ClientDataError, match=r"does not form batches; end it with \.batch"):
        pipeline.repeat(2).plan(5)
    with pytest.raises(ClientDataError, match=r"Pipeline\.repeat: called after batch"):
        pipeline.batch(4).repeat(2)
    with pytest.raises(ClientDataError, match=r"Pipeline\.take: called after batch"):
        pipeline.batch(4).take(-1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: pipeline.repeat(-2), r"Pipeline\.repeat: count=-2 is not .* at least -1"),
        (lambda: pipeline.shuffle(0), r"Pipeline\.shuffle: buffer_size=0 is not .* at least 1"),
        (lambda: pipeline.shuffle(9, global_seed=1), "global_seed=1 without a seed.*of its own"),
        (lambda: pipeline.take(-2), r"Pipeline\.take: count=-2 is not"),
        (lambda: pipeline.skip(-1), r"Pipeline\.skip: count=-1 is not .* at least 0"),
        (lambda: pipeline.batch(0), r"Pipeline\.batch: size=0 is not .* at least 1"),
        (lambda: pipeline.batch(2).plan(-1), r"Pipeline\.plan: size=-1 is not .* at least 0"),
        (lambda: Batches(0), r"Batches: batch_size=0 is not"),
        (lambda: Batches(2, num_epochs=0), r"Batches: num_epochs=0 is not .* at least 1"),
        (lambda: Batches(2, shuffle_buffer=0), r"Batches: shuffle_buffer=0 is not"),
        (lambda: Batches(2, max_elements=-1), r"Batches: max_elements=-1 is not"),
    ],
)
def test_arguments_are_refused_by_name(build, message):
    with pytest.raises(ClientDataError, match=message):
        build()


@settings(deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 30), st.integers(0, 30))
def test_a_stretch_of_the_stream_is_the_same_however_it_is_read(seed, seed2, start, count):
    words = philox_words(seed, seed2, 0, start + count)
    np.testing.assert_array_equal(philox_words(seed, seed2, start, count), words[start:])


def test_philox_gives_the_words_of_the_papers_test_vectors():
    # Random123's kat_vectors, philox4x32 10: counter, key, result. TensorFlow's stream reaches
    # these counters with seed2 as the upper half and the block's number as the lower.
    ones = 2**64 - 1
    np.testing.assert_array_equal(
        philox_words(0, 0, 0, 4), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    )
    np.testing.assert_array_equal(
        philox_words(ones, ones, 4 * ones, 4), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    )


def test_stateless_draws_equal_tensorflows_recorded_values():
    # tf.random.stateless_uniform([5], (7, 3)) and tf.random.stateless_normal([5], (7, 3))
    uniform = [
        0.9818005561828613,
        0.3957263231277466,
        0.722382664680481,
        0.7712572813034058,
        0.6807050704956055,
    ]
    normal = [
        0.1167784258723259,
        -0.15197691321372986,
        -0.7992913722991943,
        0.10739555954933167,
        0.8351944088935852,
    ]
    np.testing.assert_array_equal(stateless_uniform((5,), (7, 3)), np.float32(uniform))
    # One bit of a float32 below 1, for libraries whose logarithm differs in it.
    np.testing.assert_allclose(
        stateless_normal((5,), (7, 3)), np.float32(normal), atol=6e-8, rtol=0
    )
