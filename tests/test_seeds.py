from tiltlab.seeds import derive


def test_seeds_are_the_same_everywhere_and_differ_by_place() -> None:
    assert derive(0, "rollout", 3) == 1320416013433573303
    places = [(seed, name, step) for seed in range(3) for name in ("rollout", "test") for step in range(50)]
    assert len({derive(seed, name, step) for seed, name, step in places}) == len(places)
