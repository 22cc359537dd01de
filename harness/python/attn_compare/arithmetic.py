"""What a backend declares about its arithmetic; the error bound follows from it."""

import dataclasses

from . import _abi, _types

_ACCUMULATORS = {
    "float32": 1, "float32_tensor_core": 2, "float16": 3, "fp8_14bit": 4,
    "fp8_14bit_promoted_128": 5, "float64": 6,
}
_EMPTY_ROWS = {"exact": 0, "untouched": 1, "finite": 2}


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """Undeclared means strict: float32 everywhere. docs/numerics.md has the meaning of each field in
    the bound. "dtype" stands for the config's own type.

    out, lse:       types of what the function returns
    probabilities:  type of P as it is multiplied with V
    accumulator:    of the scores and of P*V: float32, float32_tensor_core, float16, float64,
                    fp8_14bit, fp8_14bit_promoted_128
    lse_base:       "e" or "2"
    empty_rows:     what a row holds that sees no key: exact (zeros; lse minus infinity, or the
                    sink), untouched, finite
    block, splits, lanes: keys of one online-softmax step, parts of a row, partial sums of a dot
                    product; 0 is one of each
    exp_rel:        relative error of one exponential; 0 is 2^-23
    """

    out: str = "float32"
    lse: str = "float32"
    probabilities: str = "float32"
    accumulator: str = "float32"
    lse_base: str = "e"
    empty_rows: str = "exact"
    lse_from_rounded_probabilities: bool = False
    block: int = 0
    splits: int = 0
    lanes: int = 0
    exp_rel: float = 0.0
    deterministic: bool = False
    batch_invariant: bool = False

    def fill(self, capability, dtype):
        """Writes the declaration into a Capability, for a config of `dtype`."""

        def element(name, field):
            name = dtype if name == "dtype" else name
            try:
                return _types.dlpack(name)
            except _abi.Error as error:
                raise _abi.Error(f"Arithmetic({field}=...): {error}") from None

        def choice(table, value, field):
            if value not in table:
                raise _abi.Error(
                    f"Arithmetic({field}=\"{value}\"): known are {', '.join(map(str, table))}")
            return table[value]

        capability.out = element(self.out, "out")
        capability.lse = element(self.lse, "lse")
        capability.probabilities = element(self.probabilities, "probabilities")
        capability.accumulator = choice(_ACCUMULATORS, self.accumulator, "accumulator")
        capability.lse_base = choice({"e": 0, "2": 1}, str(self.lse_base), "lse_base")
        capability.empty_rows = choice(_EMPTY_ROWS, self.empty_rows, "empty_rows")
        capability.lse_from_rounded_probabilities = int(self.lse_from_rounded_probabilities)
        capability.block = self.block
        capability.splits = self.splits
        capability.lanes = self.lanes
        capability.exp_rel = self.exp_rel
        capability.claims = int(self.deterministic) + 2 * int(self.batch_invariant)
