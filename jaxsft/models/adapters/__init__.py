"""Adapters by name: small trees of weights at `params["adapters"]`, which mirror a frozen base.

    params["adapters"] = {"layers": {"2": {"attention": {"q": {"a", "b"}}}}, "embed": {"tokens":
    {"a", "b"}}, ...}

Each kind says where it goes (`sites`), what it has there (`declare`), what of it depends on the
base (`start`) and what runs there (`node`): an object that three hooks of the model find in the
collection `adapters` of their module: linear layers, keys and values of attention, and embeddings.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxsft.config.adapters import AdapterConfig
from jaxsft.errors import ConfigError
from jaxsft.models.adapters import ia3, low_rank, prefix_prompt
from jaxsft.models.adapters import targets as sites
from jaxsft.models.adapters.low_rank import OutputMatrix
from jaxsft.models.adapters.targets import Leaf, Site, Tree
from jaxsft.models.dropout import Dropout
from jaxsft.sharding.weight_spec import LAYERS, WeightSpec
from jaxsft.sharding.weights import Weight
from jaxsft.sharding.weights import specs as specs_of

NAME = "adapters"  # of the tree among the parameters, and of the collection in a module
HOOK = "adapter"  # of the object in that collection
BIASES = ("b", "bias", "c")  # c: of a GRU's candidate
FIXED = ("a0", "b0", "square")  # leaves that are made from the base, and never trained


@dataclasses.dataclass(frozen=True)
class AdapterKind:
    """The functions and properties of one kind of adapter.

    Attributes:
      sites: from the specs of the base and the options to a tree of `Site`.
      declare: from a site and the options to its leaves.
      node: from the arrays of a site and the options to what the hooks call.
      start: from the leaves, the weight of the site, the options and a key to the leaves that
        depend on the base; for one layer.
      merges: it can become part of the base.
      prompt_length: how many positions of every text it takes.
      position_offset: how many positions stand before the first token.
      trains: whether it trains weights of the base of this name.
    """

    sites: Callable[[Tree, Any], Tree]
    declare: Callable[[Site, Any], dict[str, Leaf]]
    node: Callable[[Mapping[str, Array], Any], Any]
    start: Callable[[dict[str, Array], Array, Any, Array], dict[str, Array]] | None = None
    merges: bool = True
    prompt_length: Callable[[Any], int] = lambda options: 0
    position_offset: Callable[[Any], int] = lambda options: 0
    trains: Callable[[str], bool] = lambda name: False


def _linear(specs: Tree, options: Any) -> Tree:
    found = sites.choose(sites.linears(specs), options.target)
    low_rank.check(jax.tree.leaves(found, is_leaf=lambda x: isinstance(x, Site)), options)
    return found


def _scaled(specs: Tree, options: Any) -> Tree:
    return sites.choose(
        sites.linears(specs),
        options.target,
        options.target_inputs,
        option="adapter.target and adapter.target_inputs",
    )


KINDS: dict[str, AdapterKind] = {
    "lora": AdapterKind(_linear, low_rank.declare, low_rank.node, low_rank.start),
    "dora": AdapterKind(_linear, low_rank.declare, low_rank.node, low_rank.start),
    "ia3": AdapterKind(_scaled, ia3.declare, lambda leaves, options: ia3.IA3Node(**leaves)),
    "prefix": AdapterKind(
        lambda specs, options: sites.choose(sites.attentions(specs), options.target),
        prefix_prompt.declare_prefix,
        lambda leaves, options: prefix_prompt.PrefixNode(**leaves),
        merges=False,
        position_offset=lambda options: options.tokens,
    ),
    "prompt": AdapterKind(
        lambda specs, options: {"embed": Site("embed/tokens", specs["embed"]["tokens"]["w"])},
        prefix_prompt.declare_prompt,
        lambda leaves, options: prefix_prompt.PromptNode(**leaves),
        prefix_prompt.start_prompt,
        merges=False,
        prompt_length=lambda options: options.tokens,
        position_offset=lambda options: options.tokens,
    ),
    "bitfit": AdapterKind(
        lambda specs, options: {},
        lambda site, options: {},
        lambda leaves, options: None,
        trains=lambda name: name in BIASES,
    ),
}


def of(options: AdapterConfig) -> AdapterKind | None:
    """Returns the kind of adapter that the options name; None without one."""
    return KINDS.get(options.name)


def init(options: AdapterConfig, specs: Tree, key: Array) -> Tree:
    """Returns the boxed weights of the adapter.

    Every site and layer draws from its own key, whatever else is targeted.

    Args:
      specs: of the base.

    Raises:
      ConfigError: a pattern of the options matches nothing.
    """
    kind = KINDS[options.name]

    def of_site(site: Site) -> dict[str, Weight]:
        key_of = jax.random.fold_in(
            key, zlib.crc32(re.sub(rf"{LAYERS}/\d+/", f"{LAYERS}/", site.path).encode())
        )
        declared = kind.declare(site, options)
        return {
            name: _weight(leaf, jax.random.fold_in(key_of, i), site.layers)
            for i, (name, leaf) in enumerate(sorted(declared.items()))
        }

    return jax.tree.map(of_site, kind.sites(specs, options), is_leaf=lambda x: isinstance(x, Site))


def added(options: AdapterConfig, params: Tree, key: Array) -> Tree:
    """Returns the parameters with the adapter of these options, if any, beside them."""
    if of(options) is None:
        return params
    return {**params, NAME: init(options, specs_of(params), key)}


def _weight(leaf: Leaf, key: Array, layers: range | None) -> Weight:
    if layers is None:
        return Weight(leaf.init(key, leaf.shape, jnp.float32), names=leaf.axes, inputs=leaf.inputs)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.array(layers))
    return Weight(
        jax.vmap(lambda k: leaf.init(k, leaf.shape, jnp.float32))(keys),
        names=(LAYERS, *leaf.axes),
        inputs=leaf.inputs,
    )


def start(options: AdapterConfig, params: Tree, key: Array) -> Tree:
    """Returns the parameters with the adapter weights that depend on the base computed from it.

    Call it when the base has its weights, before training.
    """
    kind = KINDS[options.name]
    if kind.start is None or NAME not in params:
        return params
    of_layer = lambda leaves, base, k: kind.start(leaves, _base_weight(base), options, k)
    of_stack = lambda leaves, base, k: jax.vmap(of_layer)(
        leaves, base, jax.random.split(k, jax.tree.leaves(leaves)[0].shape[0])
    )
    started = _beside(
        params[NAME],
        {k: v for k, v in params.items() if k != NAME},
        lambda leaves, base, stacked: (of_stack if stacked else of_layer)(leaves, base, key),
    )
    return {**params, NAME: started}


def scaled(params: Tree, scale: Array) -> Tree:
    """Returns the parameters with a traced scale at each site, in the place of that of the options.

    A stack has one for each layer, so that it is scanned with the weights.
    """

    def walk(tree: Tree, stacked: bool) -> Tree:
        if not is_site(tree):
            return {key: walk(child, stacked or key == LAYERS) for key, child in tree.items()}
        depth = jax.tree.leaves(tree)[0].shape[:1] if stacked else ()
        return {**tree, "scale": jnp.broadcast_to(scale, depth)}

    return {**params, NAME: walk(params[NAME], False)} if params.get(NAME) else params


def _base_weight(module: Tree | Array) -> Array:
    """Returns the weight of a module; a recurrent cell's matrix is its own module."""
    if not isinstance(module, Mapping):
        return module
    return module["w"] if "w" in module else module["tokens"]["w"]


def _beside(
    adapter: Tree, base: Tree, f: Callable[[Tree, Tree, bool], Any], stacked: bool = False
) -> Tree:
    """Applies `f(leaves, module, stacked)` to every site; returns the results in the same tree."""
    if is_site(adapter):
        return f(adapter, base, stacked)
    out = {}
    for key, child in adapter.items():
        if key == LAYERS:
            out[key] = {
                str(first): _beside(own, stack, f, True)
                for first, stack, own in sites.cut(base[key], child)
                if own
            }
        else:
            out[key] = _beside(child, base[key], f, stacked)
    return out


def is_site(tree: Any) -> bool:
    """Returns whether a tree holds the leaves of one site."""
    return (
        isinstance(tree, Mapping)
        and bool(tree)
        and not any(isinstance(child, Mapping) for child in tree.values())
    )


# --- running
# --------------------------------------------------------------------------------------------------
def ready(options: AdapterConfig, tree: Tree, dropout: Dropout | None = None) -> Tree:
    """Builds the collection `adapters` of a module: the object of each site at `.../adapter`.

    Args:
      tree: a part of the adapter, stacked or not.
      dropout: the rate and the keys of the adapter's own dropout.
    """
    # sites of dropout, apart from those of the model
    kind, count = KINDS[options.name], iter(range(2**20, 2**21))

    def walk(tree: Tree) -> Tree:
        if not is_site(tree):
            return {key: walk(child) for key, child in sorted(tree.items())}
        found, site = kind.node(tree, options), next(count)
        return {
            HOOK: (
                found.replace(dropout=dropout.at(site))
                if dropout is not None and hasattr(found, "dropout")
                else found
            )
        }

    return walk(tree) if tree else {}


# --- what is trained, and what it comes to
# --------------------------------------------------------------------------------------------------
def trains(options: AdapterConfig, path: str, spec: WeightSpec) -> bool:
    """Returns whether a parameter is trained by default: the adapter and the head of the task.

    An output matrix of the base is not.
    """
    name = path.rsplit("/", 1)[-1]
    if path.startswith(f"{NAME}/"):
        return name not in FIXED
    return KINDS[options.name].trains(name) or (
        path.startswith("head/") and "vocab" not in spec.axes
    )


def merge(options: AdapterConfig, params: Tree) -> Tree:
    """Returns the base with the adapter merged into it, in float32 or higher.

    It computes the same without the adapter.

    Raises:
      ConfigError: the adapter is no change of weights.
    """
    if options.name not in KINDS:
        return params
    if not KINDS[options.name].merges:
        raise ConfigError(
            f"adapter={options.name}: adds tokens, not a change of weights, so it cannot be merged"
            " into the base; keep it beside it"
        )
    base = {key: child for key, child in params.items() if key != NAME}
    return _merged(options, params.get(NAME, {}), base, False)


def _merged(options: AdapterConfig, adapter: Tree, base: Tree, stacked: bool) -> Tree:
    if not adapter:
        return base
    if is_site(adapter):
        one = lambda leaves, w, b: KINDS[options.name].node(leaves, options).merged(w, b)
        one = jax.vmap(one) if stacked else one
        if not isinstance(base, Mapping):
            return one(adapter, base, None)[0]
        w, b = one(adapter, base["w"], base.get("b"))
        return {**base, "w": w} | ({} if b is None else {"b": b})
    out = dict(base)
    for key, child in adapter.items():
        if key == LAYERS:
            out[key] = {
                str(first): _merged(options, own, stack, True)
                for first, stack, own in sites.cut(base[key], child)
            }
        else:
            out[key] = _merged(options, child, base[key], stacked)
    return out


__all__ = [
    "FIXED",
    "HOOK",
    "KINDS",
    "NAME",
    "OutputMatrix",
    "init",
    "merge",
    "of",
    "ready",
    "scaled",
    "start",
    "trains",
]
