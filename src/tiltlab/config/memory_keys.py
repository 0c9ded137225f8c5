"""The keys of a recipe that say how it is held in memory, decoded or shared out, and not what it comes to.

A run that ran out of memory, or lost a GPU, is to go on with other values of these, so they are left out where a run
folder's recipe is held against the one given. They change figures by rounding at most, and on CPU most of them by
nothing.
"""

from tiltlab.storage.files import Json

EXACT = ("device", "host")
"""Values of train.optimizer.state that make the same steps; moments of 8 bits make others."""


def without_memory_keys(recipe: Json) -> Json:
    """A recipe, of a study or of an evaluation, without what may differ between two tries.

    recipe: as plain values, with every key that may be left out.
    """
    kept = {key: recipe[key] for key in recipe.keys() - {"gpus"}}
    if isinstance(model := kept.get("model"), dict):
        kept["model"] = {key: model[key] for key in model.keys() - {"batch_tokens", "checkpointing", "decoding"}}
    if isinstance(train := kept.get("train"), dict):
        kept["train"] = {key: train[key] for key in train.keys() - {"micro_batch_tokens"}}
        if isinstance(optimizer := train.get("optimizer"), dict) and optimizer.get("state", EXACT[0]) in EXACT:
            kept["train"]["optimizer"] = {key: optimizer[key] for key in optimizer.keys() - {"state"}}
    return kept
