"""The kernel of triton_decode.py with a bug: one slot more of the last page is not masked."""
import attn_compare as ac
from triton_decode import decode as right

take = ac.backend("decode", queries=1, lse=False, arithmetic=right.arithmetic, supports=right.supports)
decode = take(lambda problem: right(problem, tail=1))
