"""Cases as a pytest parametrisation."""

from .checking import Case, generate


class Drawn:
    """What a parametrised test gets: drawn.check(f) raises AssertionError with the account when f is
    wrong, and skips the test where f does not take the case."""

    def __init__(self, spec, seed, name):
        self.spec, self.seed, self.name = spec, seed, name

    def case(self):
        return Case(self.spec, self.seed)

    def check(self, f, **options):
        report = self.case().check(f, **options)
        report.assert_passed()
        return report


def cases(when="attention", n=20, seed=1, gate="pr", argument="case"):
    """@cases("decode and fp8kv", n=40) runs a test def test_mine(case) on 40 generated cases."""
    import pytest

    drawn = [Drawn(*found) for found in generate(when, n, seed, gate)]
    return pytest.mark.parametrize(argument, drawn, ids=[d.name for d in drawn])
