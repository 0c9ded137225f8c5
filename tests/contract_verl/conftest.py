"""verl's transfer queue, on a Ray of this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """As many logical cores as verl's queue asks for, and one storage."""
    import ray
    import transfer_queue as tq
    import verl
    from omegaconf import OmegaConf, open_dict

    config = OmegaConf.load(Path(verl.__file__).parent / "trainer/config/transfer_queue/transfer_queue.yaml")
    with open_dict(config):
        config.enable = True
        config.backend.SimpleStorage.num_data_storage_units = 1
    ray.init("local", num_cpus=16, include_dashboard=False, log_to_driver=False)
    tq.init(config)
    yield tq
    tq.close()
    ray.shutdown()
