"""Scans: automata, and values handed on from place to place, held to loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizer.words.scans import coming, composed, latest, place_in_run, state_map, states_after

IMAGES = st.tuples(*[st.integers(0, 3)] * 4)


@given(images=st.lists(IMAGES, max_size=40))
def test_an_automatons_states_are_those_of_reading_one_by_one(backend, images):
    state, expected = 0, []
    for image in images:
        state = image[state]
        expected.append(state)
    maps = backend.xp.from_numpy(np.array([state_map(image) for image in images], np.int32))
    assert backend.xp.to_numpy(states_after(maps)).tolist() == expected


@given(IMAGES, IMAGES)
def test_a_composed_map_is_the_first_map_and_then_the_second(first, second):
    both = composed(np.array([state_map(first)], np.int32), np.array([state_map(second)], np.int32))
    assert both.tolist() == [state_map([second[image] for image in first])]


@given(places=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=20))
def test_the_latest_value_known_and_the_one_coming_are_those_of_loops(backend, places):
    known = backend.xp.from_numpy(np.array([k for k, _ in places], bool))
    values = backend.xp.from_numpy(np.array([v for _, v in places], np.int32))
    forwards = [next((v for k, v in reversed(places[: i + 1]) if k), -1) for i in range(len(places))]
    backwards = [next((v for k, v in places[i:] if k), -2) for i in range(len(places))]
    assert backend.xp.to_numpy(latest(values, known, -1)).tolist() == forwards
    assert backend.xp.to_numpy(coming(values, known, -2)).tolist() == backwards


@given(inside=st.lists(st.booleans(), max_size=20))
def test_a_place_in_a_run_counts_those_of_the_run_before_it(backend, inside):
    expected, count = [], 0
    for is_inside in inside:
        expected.append(count)
        count = count + 1 if is_inside else 0
    found = backend.xp.to_numpy(place_in_run(backend.xp.from_numpy(np.array(inside, bool)))).tolist()
    assert [place for place, is_inside in zip(found, inside, strict=True) if is_inside] == [
        place for place, is_inside in zip(expected, inside, strict=True) if is_inside
    ]
    assert all(place == 0 for place, is_inside in zip(found, inside, strict=True) if not is_inside)
