"""What a process has of the tensors of a model that is laid out, and of what an optimizer keeps of
them: the whole ones are put together from it, and it is taken from whole ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from groundup.parallel.gradients import is_plain
from groundup.parallel.parts import Part, parts_of

__all__ = ["Holdings"]


class Holdings:
    """What this process has of each tensor.

    Args:
        parts: Of the tensors of which it has a part along ``tensor``, by their names.
        tensor: How many processes are along that axis.
        model: As it was laid out; None before it was.
    """

    def __init__(
        self, parts: Mapping[str, Part], tensor: int = 1, model: nn.Module | None = None
    ) -> None:
        self._parts = parts
        self._repeats = WeakIdKeyDictionary()
        if model is not None:
            for name, parameter in model.named_parameters():
                self._repeats[parameter] = 1 if name in parts else tensor

    @classmethod
    def of(cls, model: nn.Module, tensor: int) -> Holdings:
        """Return what this process has of a model that was laid out."""
        return cls(parts_of(model), tensor, model)

    def repeats(self, parameter: nn.Parameter) -> int:
        """Return how many of the processes that have the model once together have the very numbers
        of a parameter that this one has."""
        count: int = self._repeats[parameter]
        return count

    def whole(
        self, tensors: Mapping[str, Tensor], keeps: Callable[[str], bool] = lambda name: True
    ) -> dict[str, Tensor]:
        """Return whole tensors from what each process has; all call this at the same time.

        Args:
            tensors: By name, those of an optimizer with ``/`` and what they are behind it.
            keeps: Whether this process is to have a tensor. Of others it gets the shape, and has
                one at a time in its memory.
        """
        found = {}
        for name, tensor in tensors.items():
            whole = self._whole(name, tensor)
            found[name] = whole if keeps(name) else whole.detach().to("meta")
        return found

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return of whole tensors what this process has along ``tensor``."""
        found = {}
        for name, tensor in tensors.items():
            part = self._part(name)
            # What is counted of a parameter, as an optimizer's steps, has no dimension to divide.
            if part is not None and tensor.dim() > part.dim:
                tensor = part.take(tensor)
            found[name] = tensor
        return found

    def _whole(self, name: str, tensor: Tensor) -> Tensor:
        if not is_plain(tensor):
            # To import these tensors takes a second, and most runs have none.
            from torch.distributed.tensor import DTensor

            assert isinstance(tensor, DTensor)
            tensor = tensor.full_tensor()
        part = self._part(name)
        if part is None or tensor.dim() <= part.dim:
            return tensor
        return part.gather(tensor)

    def _part(self, name: str) -> Part | None:
        found = self._parts.get(name)
        return self._parts.get(name.rpartition("/")[0]) if found is None else found
