"""What stands between queries, keys, values and the result of attention: several backends that
compute the same (`backends.py`), of which `reference.py` is the one that the others must equal.
"""

from jaxsft.models.attention.reference import TokenInfo, segment_mask

__all__ = ["TokenInfo", "segment_mask"]
