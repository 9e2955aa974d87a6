"""What a process has of the tensors of a model that is laid out, and of what an optimizer keeps of
them: the whole ones are put together from it, and it is taken from whole ones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from groundup.parallel.parts import Part, parts_of

if TYPE_CHECKING:
    # PyTorch's FSDP takes most of a second to import, and most runs do without.
    from groundup.parallel.shard import ShardedModel

__all__ = ["Holdings"]


class Holdings:
    """What this process has of each tensor.

    Args:
        parts: Of the tensors of which it has a part along ``tensor``, by their names.
        tensor: How many processes are along that axis.
        model: As it was laid out; None before it was.
        sharded: The same model with a part of every parameter; None: it is not divided so.

    Attributes:
        sharded: As given.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        tensor: int = 1,
        model: nn.Module | None = None,
        sharded: ShardedModel | None = None,
    ) -> None:
        self.sharded = sharded
        self._parts = parts
        self._repeats = WeakIdKeyDictionary()
        if model is not None:
            for name, parameter in self.trained(model):
                repeats = 1 if name in parts else tensor
                if sharded is not None and name in sharded.whole_names:
                    repeats *= sharded.size
                self._repeats[parameter] = repeats

    @classmethod
    def of(cls, model: nn.Module, tensor: int, sharded: ShardedModel | None = None) -> Holdings:
        """Return what this process has of a model that was laid out."""
        return cls(parts_of(model), tensor, model, sharded)

    def trained(self, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
        """Return what this process has of the parameters that are trained, by name."""
        if self.sharded is not None:
            return self.sharded.trained
        return [(name, each) for name, each in model.named_parameters() if each.requires_grad]

    @contextlib.contextmanager
    def whole_model(
        self, model: nn.Module, naming: Callable[[str], AbstractContextManager[None]]
    ) -> Iterator[nn.Module]:
        """Yield a model with all of its parameters, to predict with.

        Args:
            model: As it was laid out.
            naming: Names the process that does not answer while it is gathered.
        """
        if self.sharded is None:
            yield model
            return
        with naming("the model is gathered"):
            gathered = self.sharded.build_whole()
        yield gathered

    def repeats(self, parameter: nn.Parameter) -> int:
        """Return how many of the processes that have the model once together have the very numbers
        of a parameter that this one has."""
        count: int = self._repeats[parameter]
        return count

    def whole(
        self, tensors: Mapping[str, Tensor], keeps: Callable[[str], bool] | None = None
    ) -> dict[str, Tensor]:
        """Return whole tensors from what each process has; all call this at the same time.

        Args:
            tensors: By name, those of an optimizer with ``/`` and what they are behind it.
            keeps: Whether this process is to have a tensor, in the CPU's memory. Of others it gets
                the shape, and has one at a time. None: it has all, where it computes.
        """
        found = {}
        for name, tensor in tensors.items():
            whole = self._whole(name, tensor)
            if keeps is not None:
                # From a GPU at once: beside its parts there may be no room for whole tensors.
                whole = whole.detach().to("cpu" if keeps(name) else "meta")
            found[name] = whole
        return found

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return of whole tensors what this process has along ``tensor``."""
        found = {}
        for name, tensor in tensors.items():
            part = self._part(name)
            # What is counted of a parameter, as an optimizer's steps, has no dimension to divide.
            if part is not None and tensor.dim() > part.dim:
                tensor = part.take(tensor)
            found[name] = tensor if self.sharded is None else self.sharded.take(name, tensor)
        return found

    def fit(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what this process has of a model's tensors, as ``load_state_dict`` takes it."""
        if self.sharded is None:
            return dict(tensors)
        return {name: self.sharded.fit(name, tensor) for name, tensor in tensors.items()}

    def _whole(self, name: str, tensor: Tensor) -> Tensor:
        if self.sharded is not None:
            tensor = self.sharded.gather(name, tensor)
        part = self._part(name)
        if part is None or tensor.dim() <= part.dim:
            return tensor
        return part.gather(tensor)

    def _part(self, name: str) -> Part | None:
        found = self._parts.get(name)
        return self._parts.get(name.rpartition("/")[0]) if found is None else found
