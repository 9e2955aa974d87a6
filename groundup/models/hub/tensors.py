"""The tensors of a library module's files under groundup's names, and back: converted as the
library itself converts them.

Files may have older names than the modules, hold experts one by one that a module stacks, or lack
the prefix of a model without its head.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from groundup.core.errors import CheckpointError
from groundup.formats.transformers_library import require_transformers
from groundup.models.hub.encoder_decoder import HubEncoderDecoder
from groundup.models.hub.module import Hub
from groundup.models.names.table import check_copy, check_dtype, list_some, no_output_layer
from groundup.nn.part_names import HEADS

__all__ = ["FileTensors"]

log = logging.getLogger("groundup")
_REMEDY = "Check that config.json belongs to these weights"
# What old files hold although it follows from config.json.
_CONSTANT = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")


class FileTensors:
    """The way between a module's tensors and its files'.

    Args:
        known: The module, whose tensors need no content.
    """

    def __init__(self, known: Hub | HubEncoderDecoder) -> None:
        self.known = known
        library = require_transformers("core_model_loading")
        mappings = require_transformers("conversion_mapping")
        conversions = mappings.get_model_conversion_mapping(known.tree)
        self._library = library
        self._renamings = [c for c in conversions if isinstance(c, library.WeightRenaming)]
        self._converters = [c for c in conversions if isinstance(c, library.WeightConverter)]
        self._by_pattern = {p: c for c in self._converters for p in c.source_patterns}
        self._ours = {hf: name for name, hf in known.hf.items()}
        # By these the library finds out whether a name needs the prefix.
        self._places = dict.fromkeys([*self._ours, *known.tied], True)
        # The parts are read one after the other, and the names are the same each time.
        self._renamed: dict[str, tuple[str, str | None]] = {}

    def read(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return groundup's tensors from a file's: each is used, or named as left out.

        Of a classifier a tensor of the head that is missing, or of another shape, is missing from
        what is returned: it begins again.

        Raises:
            CheckpointError: If another one is, one has no place, or one that is to be tied to the
                embedding differs from it.
        """
        known = self.known
        placed: dict[str, Tensor] = {}
        copies: dict[str, Tensor] = {}
        left: dict[str, Tensor] = {}
        for hf, tensor in self._as_modules(tensors).items():
            if hf in self._ours:
                placed[self._ours[hf]] = tensor
            elif hf in known.tied:
                copies[hf] = tensor
            else:
                left[hf] = tensor
        for hf, tensor in copies.items():
            name = known.tied[hf]
            check_copy(hf, tensor, known.hf[name], placed.setdefault(name, tensor))
        self._check_left(left)
        found = {n: v.T if n in known.transposed else v for n, v in placed.items()}
        found |= self._computed(placed)
        for name, own in known.state_dict().items():
            if name in found and found[name].shape == own.shape:
                check_dtype(known.hf[name], found[name], integer=not own.is_floating_point())
                continue
            if known.config.outputs and name.startswith(HEADS):
                found.pop(name, None)
                continue
            shape = list(own.T.shape if name in known.transposed else own.shape)
            if name not in placed and known.hf[name] == "lm_head.weight":
                raise no_output_layer(known.hf[name], shape)
            problem = f"tensor {known.hf[name]} {shape} is missing"
            if name in placed:
                there = list(placed[name].shape)
                problem = f"tensor {known.hf[name]} has shape {there}; config.json says {shape}"
            raise CheckpointError("weights", problem, _REMEDY)
        return {name: value.contiguous().clone() for name, value in found.items()}

    def write(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the file's tensors from groundup's.

        Raises:
            CheckpointError: If one has no place.
        """
        tensors = self._library.revert_weight_conversion(
            self.known.tree, self.modules_tensors(weights)
        )
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def modules_tensors(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of the library's modules, by the names that these have in memory.

        Raises:
            CheckpointError: If one has no place.
        """
        tensors = {}
        for name, tensor in weights.items():
            if name not in self.known.hf:
                raise CheckpointError(
                    "model", f"no place for {name}", "Keep it in the project's own layout"
                )
            tensors[self.known.hf[name]] = (
                tensor.T.contiguous() if name in self.known.transposed else tensor
            )
        return tensors

    def _computed(self, placed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what files of an encoder-decoder may lack, because it follows from config.json or
        is 0: sines of positions, and what is added to logits."""
        found = {}
        for name, own in self.known.state_dict().items():
            if name in placed:
                continue
            holder, _, child = self.known.hf[name].rpartition(".")
            module: Any = self.known.tree.get_submodule(holder)
            if child == "final_logits_bias":
                found[name] = torch.zeros(own.shape)
            elif "Sinusoidal" in type(module).__name__:
                # As the library makes them, which on this one would be without content.
                table = type(module)(*own.shape)
                found[name] = table.create_weight()
        return found

    def _as_modules(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors by the modules' names; those that no module has keep a name of their
        own."""
        library = self._library
        found: dict[str, Tensor] = {}
        mappings: dict[str, Any] = {}
        # Experts are stacked in the order of their numbers.
        for key in sorted(tensors, key=library.dot_natural_key):
            name, pattern = self._rename(key)
            if pattern is None or name not in self._places:
                found[name] = tensors[key]
                continue
            if name not in mappings:
                mappings[name] = copy.deepcopy(self._by_pattern[pattern])
            mappings[name].add_tensor(name, key, pattern, tensors[key])
        for name, mapping in mappings.items():
            try:
                made = mapping.convert(name, model=self.known.tree, config=self.known.tree.config)
            # What it does with tensors of other shapes, or too few of them.
            except Exception as error:
                problem = f"{name} cannot be made of the file's tensors: {error}"
                raise CheckpointError("weights", problem.splitlines()[0], _REMEDY) from error
            for key, value in made.items():
                found[key] = value[0] if isinstance(value, list) else value
        return found

    def _rename(self, key: str) -> tuple[str, str | None]:
        """Return a module's name of a file's tensor, and what of a conversion it fits, if it
        does."""
        if key not in self._renamed:
            rename = self._library.rename_source_key
            prefix = self.known.tree.base_model_prefix
            name, pattern = rename(key, self._renamings, self._converters, prefix, self._places)
            # As the library: a name of today's needs the prefix at most.
            if name not in self._places and key in self._places:
                name, pattern = rename(key, [], [], prefix, self._places)
            self._renamed[key] = (name, pattern)
        return self._renamed[key]

    def _check_left(self, left: Mapping[str, Tensor]) -> None:
        """Name what is left out: another head, and what the library leaves out too.

        Raises:
            CheckpointError: If something else is left over.
        """
        tree = self.known.tree
        constant = [name for name in left if any(re.search(p, name) for p in _CONSTANT)]
        ignored = tree._keys_to_ignore_on_load_unexpected or ()
        dropped = [name for name in left if any(re.search(p, name) for p in ignored)]
        if self.known.config.outputs:
            dropped += [name for name in left if not self._within(name)]
        odd = [name for name in left if name not in constant and name not in dropped]
        if odd:
            raise CheckpointError("weights", f"no place for {list_some(odd)}", _REMEDY)
        # Shapes are checked without content first: it is said once.
        named = [name for name in dict.fromkeys(dropped) if not left[name].is_meta]
        if named:
            log.info("left out of the pretrained weights: %s", ", ".join(named))

    def _within(self, name: str) -> bool:
        """Whether a tensor that has no place is of a part that is here, so that more of it should
        be: not of a head."""
        prefix = f"{self.known.tree.base_model_prefix}."
        parts = {
            hf.removeprefix(prefix).split(".")[0] for hf in self._places if hf.startswith(prefix)
        }
        return name.removeprefix(prefix).split(".")[0] in parts - {"pooler"}
