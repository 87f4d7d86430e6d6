"""How instructions are read, reckoned and compared."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[number]) for number in (1, 2)]

from callgrind import figures  # noqa: E402
from callgrind.figures import Count, Figures  # noqa: E402
from callgrind.gateway import parse_dump  # noqa: E402
from callgrind.kinds import KINDS  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
KEPT = Figures("rustc 1.95.0", {"hit": 10_000, "proxied": 50_000})


def counted(compiler="rustc 1.95.0", **changed):
    return Figures(compiler, {**KEPT.per_request, **changed})


class Reckoning(unittest.TestCase):
    def test_the_count_of_a_dump_is_its_total(self):
        self.assertEqual(parse_dump("events: Ir\nsummary: 7\n\nfn=(1)\n0 7\ntotals: 4963732\n"), 4_963_732)

    def test_what_counting_itself_costs_falls_out(self):
        self.assertEqual(figures.per_request(Count(10, 1_100), Count(30, 3_100)), 100.0)


class Comparing(unittest.TestCase):
    def test_a_tenth_more_is_let_through_and_told_by_nobody(self):
        self.assertEqual(figures.complaints(KEPT, counted(hit=11_000)), [])
        self.assertEqual(figures.gains(KEPT, counted(hit=9_000)), [])

    def test_more_than_a_tenth_more_fails_and_says_which_and_how_much(self):
        self.assertEqual(figures.complaints(KEPT, counted(hit=11_001)), [
            "hit: 11,001 instructions per request, 10,000 before (+10.0%); at most 10% more are allowed",
        ])

    def test_more_than_a_tenth_less_is_told(self):
        (sentence,) = figures.gains(KEPT, counted(proxied=40_000))
        self.assertIn("proxied: 40,000 instructions per request, 50,000 before (-20.0%)", sentence)

    def test_another_compiler_is_named_where_it_may_be_the_reason(self):
        self.assertEqual(figures.complaints(KEPT, counted("rustc 1.96.0")), [])
        *_, reason = figures.complaints(KEPT, counted("rustc 1.96.0", hit=12_000))
        self.assertEqual(reason, "what is kept is of rustc 1.95.0, this is rustc 1.96.0")

    def test_a_request_without_a_figure_fails(self):
        self.assertIn("no figure is kept", figures.complaints(KEPT, counted(fixed=5))[0])
        self.assertIn("no figures are kept for", figures.complaints(None, KEPT)[0])
        self.assertEqual(figures.gains(None, KEPT), [])


class Keeping(unittest.TestCase):
    def test_what_is_kept_is_found_again_beside_other_architectures(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "instructions.json"
            path.write_text('{"other": {"compiler": "rustc 1.0.0", "per_request": {}}}')
            self.assertIsNone(figures.kept(path))
            figures.keep(path, KEPT)
            self.assertEqual(figures.kept(path), KEPT)
            self.assertIn("rustc 1.0.0", path.read_text())

    def test_every_kind_of_request_has_a_figure(self):
        for every in figures.every(ROOT / "bench" / "results" / "instructions.json").values():
            self.assertEqual(list(every.per_request), [kind.name for kind in KINDS])


if __name__ == "__main__":
    unittest.main()
