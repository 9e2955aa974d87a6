"""``parallel.shard``: each process holds a part of every parameter, of its gradient and of what the
optimizer keeps of it.

PyTorch's FSDP2 gathers the parameters of a block before it is computed and frees them afterwards,
and adds up gradients so that each process gets its part of them. What trains sees only the parts:
plain tensors, which optimizers, averages and clipping treat like any other.

Source:
    Rajbhandari et al., ZeRO, 2019 (arXiv:1910.02054), stage 3; Zhao et al., PyTorch FSDP, 2023
    (arXiv:2304.11277).
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from groundup.core.errors import RecipeError
from groundup.parallel.layout import Layout
from groundup.recipe.recipe import Recipe

__all__ = ["ShardedModel", "check_shards", "divide_parameters", "find_units"]

_WHERE = "recipe.parallel.shard"
# A layer with less than this share of all parameters is not worth an exchange of its own.
_LEAST_SHARE = 0.01


def check_shards(recipe: Recipe) -> None:
    """Make sure that a recipe can be trained by processes that each hold a part of its parameters.

    Raises:
        RecipeError: Naming the setting that does not allow it.
    """
    size = recipe.parallel.shard
    found = ""
    remedy = "Remove it, or share the batch with replicate"
    if recipe.adapter is not None and recipe.adapter.quantized:
        found = "recipe.adapter.base is quantized, and packed weights are not divided"
    elif recipe.init.unfreeze_every is not None:
        found = "recipe.init.unfreeze_every changes in mid-run which parameters are trained"
    elif recipe.machine.precision == "fp64":
        found = "machine.precision is fp64, which is for checks on one process"
    elif recipe.optim.name == "muon":
        found = "recipe.optim.name is muon, which needs whole matrices"
        remedy = "Use adamw, or share the batch with replicate"
    if found:
        raise RecipeError(_WHERE, f"is {size}, but {found}", remedy)
    if recipe.parallel.offload and recipe.machine.device != "cuda":
        raise RecipeError(
            "recipe.parallel.offload",
            f"moves parameters from a GPU to the CPU, but machine.device is"
            f" {recipe.machine.device}",
            "Remove it",
        )


def divide_parameters(model: nn.Module, layout: Layout, recipe: Recipe) -> ShardedModel:
    """Leave of every parameter of a model this process's part; all processes call it at once.

    Args:
        model: Changed in place.
        layout: Connected.
        recipe: Of the run, settled.

    Raises:
        RecipeError: If the recipe does not allow it.
    """
    check_shards(recipe)
    assert layout.mesh is not None, "the layout is connected"
    axes = ("replicate", "shard") if layout.replicate > 1 else ("shard",)
    mixed = recipe.machine.precision == "bf16"
    return ShardedModel(model, layout.mesh[axes], mixed=mixed, offload=recipe.parallel.offload)


class ShardedModel:
    """A model of whose parameters this process has a part.

    Args:
        model: The whole one, changed in place.
        mesh: The processes of the axis ``shard``, or of ``replicate`` and ``shard``.
        mixed: Whether blocks are gathered and computed in bfloat16; parts stay in float32.
        offload: Whether the parts are kept in the CPU's memory.

    Attributes:
        mesh: As given.
        size: How many processes have a parameter together.
        trained: This process's part of each parameter that is trained, by name. They share the
            memory of the model's; their gradients are set by ``take_gradients``.
        whole_names: Parameters that every process has as a whole: single numbers.
        reached: The names of parameters that got a gradient since it was last emptied.
    """

    def __init__(
        self, model: nn.Module, mesh: DeviceMesh, *, mixed: bool = False, offload: bool = False
    ) -> None:
        self.mesh = mesh
        self.size = mesh["shard"].size() if mesh.ndim > 1 else mesh.size()
        self._model = model
        _make_contiguous(model)
        self._twin = _copy_without_parameters(model)
        self._root = _Root(model)
        names = {parameter: name for name, parameter in model.named_parameters()}
        scalars = {parameter for parameter in names if parameter.ndim == 0}
        self.whole_names = {names[parameter] for parameter in scalars}
        policy: OffloadPolicy = CPUOffloadPolicy() if offload else OffloadPolicy()
        precision = MixedPrecisionPolicy()
        if mixed:
            # The inputs are left to autocast, under which the model is run.
            precision = MixedPrecisionPolicy(
                torch.bfloat16, torch.float32, cast_forward_inputs=False
            )
        shard = partial(fully_shard, mesh=mesh, offload_policy=policy, ignored_params=scalars)
        self._units: list[FSDPModule] = [
            shard(unit, mp_policy=precision) for unit in find_units(model)
        ]
        # What is between the blocks stays in float32: of it are embeddings, whose sum with all that
        # the blocks add runs through the model.
        self._units.append(shard(self._root))
        for unit in self._units:
            # Losses are sums, divided once by what all processes have counted.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)
            # Whoever has no sample that reaches a parameter still takes part in the exchange.
            unit.set_reduce_scatter_unused_params(True, recurse=False)
        # A block that returns a view would be harmed by changing it in place; ours do not.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module", category=UserWarning)
        # By all of their names: a tied one is saved under each.
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self.trained = self._list_trained()
        self.reached: set[str] = set()
        self._watch_gradients()

    # ------------------------------------------------------------------------------ in a step
    def run(self, compute: Callable[[], Any]) -> Any:
        """Compute something with the model, whichever of its methods that calls, and return it."""
        return self._root(compute)

    def let_go(self) -> None:
        """Free the parameters that ``run`` has gathered, where no backward pass does so."""
        for unit in self._units:
            unit.reshard()

    def take_gradients(self) -> None:
        """Move the gradients of this process's parts to ``trained``, as plain tensors."""
        for name, part in self.trained:
            parameter = self._parameters[name]
            gradient = parameter.grad
            if isinstance(gradient, DTensor):
                parameter.grad = None
                part.grad = _local(gradient)

    def set_last(self, last: bool) -> None:
        """Say whether the next backward pass is the last one of a step: only then sums are taken
        over replicas."""
        self._root_unit.set_requires_all_reduce(last)

    @property
    def _root_unit(self) -> FSDPModule:
        return self._units[-1]

    def _list_trained(self) -> list[tuple[str, nn.Parameter]]:
        trained = []
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad:
                continue
            # A parameter of its own on the same memory: one that is no DTensor.
            own = parameter
            if isinstance(parameter, DTensor):
                own = nn.Parameter(_local(parameter))
            trained.append((name, own))
        return trained

    def _watch_gradients(self) -> None:
        """Take note of the parameters that a backward pass reaches.

        Whether a sample of this process reached it cannot be told from a gradient that was added up
        over all: there it is zeros, by which an optimizer would still decay it.
        """
        for unit in self._units:
            unit.unshard()
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad and name not in self.whole_names:
                # FSDP gathers into the same parameter each time.
                note = partial(self._note, name)
                parameter.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]
        self.let_go()

    def _note(self, name: str, parameter: Tensor) -> None:
        self.reached.add(name)

    # ------------------------------------------------------------------------- whole tensors
    @torch.no_grad()
    def gather(self, name: str, tensor: Tensor) -> Tensor:
        """Return a whole tensor from the parts of all; they all call this at the same time.

        Args:
            name: Of a parameter, or of what an optimizer keeps of it: ``NAME/STATE``.
            tensor: This process's.
        """
        parameter = self._divided(name)
        if isinstance(tensor, DTensor):
            tensor = _local(tensor)
        # What is counted of a parameter, as an optimizer's steps, is the same everywhere.
        if parameter is None or tensor.shape != _local(parameter).shape or not tensor.ndim:
            return tensor
        # Parts may be in the CPU's memory; processes exchange from where they compute.
        return _place(tensor.to(self.mesh.device_type), parameter).full_tensor()

    @torch.no_grad()
    def take(self, name: str, whole: Tensor) -> Tensor:
        """Return this process's part of a whole tensor, named as for ``gather``."""
        parameter = self._divided(name)
        # One of another shape is left as it is, for whoever compares them.
        if parameter is None or whole.shape != parameter.shape or isinstance(whole, DTensor):
            return whole
        placed = distribute_tensor(
            whole.to(self.mesh.device_type),
            parameter.device_mesh,
            parameter.placements,
            src_data_rank=None,  # everybody has read the same: nothing is sent
        )
        # A copy: the whole one must not stay in memory because of a part.
        return _local(placed).to(_local(parameter).device, copy=True)

    @torch.no_grad()
    def fit(self, name: str, part: Tensor) -> Tensor:
        """Return this process's part of a parameter as the model's ``load_state_dict`` takes it."""
        parameter = self._parameters.get(name)
        if not isinstance(parameter, DTensor) or part.shape != _local(parameter).shape:
            return part
        return _place(part, parameter)

    def build_whole(self) -> nn.Module:
        """Return a copy of the model with all of its parameters, to predict with: every process has
        one meanwhile, and all take part in gathering it."""
        memo: dict[int, Any] = {}
        with torch.no_grad():
            for name, empty in self._twin.named_parameters():
                whole = self.gather(name, self._parameters[name].detach()).to(self.mesh.device_type)
                memo[id(empty)] = nn.Parameter(whole, requires_grad=empty.requires_grad)
            model = copy.deepcopy(self._twin, memo)
            now = dict(self._model.named_buffers())
            for name, buffer in model.named_buffers():
                if name in now and now[name].shape == buffer.shape:
                    buffer.copy_(now[name])
        return model.train(self._model.training)

    def _divided(self, name: str) -> DTensor | None:
        parameter = self._parameters.get(name)
        if parameter is None:
            parameter = self._parameters.get(name.rpartition("/")[0])
        return parameter if isinstance(parameter, DTensor) else None


class _Root(nn.Module):
    """What FSDP takes for the outermost module. Whatever computes with the model is run by it:
    tasks call the model by other methods than ``forward``, too, and use its weights in losses."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], Any]) -> Any:
        return compute()


def find_units(model: nn.Module) -> list[nn.Module]:
    """Return the layers whose parameters are gathered together: the members of a model's lists of
    layers that have a good part of its parameters, none inside another.

    All else is gathered for the whole of a pass: embeddings, heads, and what is called by another
    method than ``forward`` or shared between layers.
    """
    owners: Counter[int] = Counter()
    for module in model.modules():
        owners.update({id(each) for each in module._parameters.values() if each is not None})
    least = _LEAST_SHARE * sum(parameter.numel() for parameter in model.parameters())
    found: list[nn.Module] = []
    _add_units(model, least, owners, found)
    return found


def _add_units(
    module: nn.Module, least: float, owners: Counter[int], found: list[nn.Module]
) -> None:
    listed = isinstance(module, nn.ModuleList | nn.Sequential)
    for child in module.children():
        containers = isinstance(child, nn.ModuleList | nn.ModuleDict)
        if listed and not containers and _is_unit(child, least, owners):
            if all(child is not other for other in found):
                found.append(child)
        else:
            _add_units(child, least, owners, found)


def _is_unit(module: nn.Module, least: float, owners: Counter[int]) -> bool:
    own: Counter[int] = Counter()
    for part in module.modules():
        own.update({id(each) for each in part._parameters.values() if each is not None})
    size = sum(parameter.numel() for parameter in module.parameters())
    # A parameter that is used elsewhere, too, must be gathered as long as either needs it.
    return size >= least and size > 0 and all(owners[each] == count for each, count in own.items())


def _copy_without_parameters(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose parameters have no memory; ties between them are kept."""
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, memo)


def _make_contiguous(model: nn.Module) -> None:
    # FSDP lays parameters end to end. Convolutions have them with channels last, for speed.
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()


def _place(part: Tensor, like: DTensor) -> DTensor:
    """Return this process's part of a tensor as what the tensor is to all of them."""
    return DTensor.from_local(
        part,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def _local(tensor: Tensor) -> Tensor:
    """Return what this process has of a tensor, on the same memory."""
    assert isinstance(tensor, DTensor)
    with torch.no_grad():
        local: Tensor = tensor.to_local()
    return local
