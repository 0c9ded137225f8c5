"""LoRA adapters put on a model, by peft."""

from typing import Any

from tiltlab.errors import UserError, brief
from tiltlab.models.loading import LoraConfig


def with_adapters(module: Any, name: str, config: LoraConfig, seed: int) -> Any:
    """A module of transformers with adapters, as peft wraps it; its layers are changed in place.

    Raises UserError for adapters that this model cannot have. Other arguments as in `policy_from`.
    """
    import torch

    try:
        import peft
    except ImportError as error:
        raise UserError("adapters need peft; `pip install peft`, or leave out `model.lora`") from error
    most = getattr(module.config.get_text_config(), "hidden_size", config.rank)
    if config.rank > most:
        raise UserError(
            f"model.lora.rank {config.rank} is more than the hidden size of {name} ({most}): such "
            "adapters hold more weights than the layers that they adapt"
        )
    torch.manual_seed(seed)  # the adapters' first factor starts random (the second at zero)
    lora = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=_targets(config), task_type="CAUSAL_LM"
    )
    try:
        wrapped = peft.get_peft_model(module, lora)
    except (ValueError, KeyError) as error:
        raise UserError(f"model {name} cannot have the adapters asked for: {brief(error)}") from error
    for key, value in vars(wrapped.peft_config["default"]).items():
        if isinstance(value, set):  # written in another order by each process
            setattr(wrapped.peft_config["default"], key, sorted(value))
    return wrapped


def _targets(lora: LoraConfig) -> str | list[str]:
    return lora.targets if isinstance(lora.targets, str) else list(lora.targets)
