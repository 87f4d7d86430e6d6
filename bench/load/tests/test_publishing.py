"""What is told of results is what they give."""

import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import readme, report  # noqa: E402
from harness.cases import CASES  # noqa: E402
from harness.process import ProgramFailed  # noqa: E402
from harness.proxies import PROXIES  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "bench" / "results"
ABOUT = {"date": "2026-11-22 12:00 UTC", "cpu": "a processor", "rounds": 3, "connections": 64,
         "versions": {"nginx": "nginx version: nginx/1.22.1", "wrk": "wrk 4", "tollgate": "tollgate 0.1.0"},
         "proxies": ["bare", "tollgate", "nginx", "varnish"]}


def results(**cpu):
    """Of hits of 1 KiB: what each program took in each round."""
    samples = [{"round": number, "case": "hit-1k", "proxy": proxy, "cpu_us": value}
               for proxy, values in cpu.items() for number, value in enumerate(values)]
    return {"about": ABOUT, "samples": samples}


class Committed(unittest.TestCase):
    """Where one of these fails: bench/load/report."""

    def setUp(self):
        self.results = json.loads((RESULTS / "results.json").read_text())

    def test_the_section_of_the_readme_is_of_the_committed_results(self):
        page = (ROOT / "README.md").read_text()
        self.assertEqual(readme.renewed(page, self.results), page)

    def test_the_table_is_of_the_committed_results(self):
        self.assertEqual(report.markdown(self.results), (RESULTS / "load.md").read_text())


class Table(unittest.TestCase):
    def test_where_the_load_is_paced_latencies_are_compared_and_not_cpu(self):
        figures = {"system_us": 1.0, "per_second": 9.0, "p50_us": 1.0, "rss_mib": 1.0, "busy": 0.5, "tls": "", "redis": None}
        samples = [{"round": 1, "case": "paced-hit-1k", "proxy": proxy, "cpu_us": 5.0, "p99_us": p99, **figures}
                   for proxy, p99 in (("tollgate", 80.0), ("nginx", 100.0))]
        about = {**ABOUT, "kernel": "6.1", "seconds": 5, "cases": ["paced-hit-1k"], "proxies": ["tollgate", "nginx"],
                 "rates": {"paced-hit-1k": 30_000.0}}
        table = report.markdown({"about": about, "samples": samples, "syscalls": [], "failures": []})
        self.assertIn("| p99 × nginx |", table)
        self.assertIn("| 0.80 (0.80–0.80) |", table)
        self.assertIn("Asked for at 30,000 requests/s.", table)


class Section(unittest.TestCase):
    def test_quotients_are_taken_within_rounds(self):
        # The second round was twice as slow for all.
        section = readme.section(results(tollgate=[6.0, 12.0, 6.0], nginx=[10.0, 20.0, 10.0], bare=[12.0, 24.0, 12.0]))
        self.assertIn("| hit, 1 KiB | 6.0 | 0.60 | – | 0.50 |", section)
        self.assertIn("| × nginx | × Varnish | × bare pingora |", section)

    def test_cases_that_were_not_measured_are_not_in_it(self):
        self.assertNotIn("proxied", readme.section(results(tollgate=[6.0], nginx=[10.0])))

    def test_versions_are_those_of_the_other_programs(self):
        section = readme.section(results(tollgate=[6.0]))
        self.assertIn("nginx 1.22.1", section)
        self.assertNotIn("wrk", section)

    def test_what_stands_around_it_stays(self):
        page = f"# Title\n\n{readme.BEGIN}\nold\n{readme.END}\n\nThe end.\n"
        renewed = readme.renewed(page, results(tollgate=[6.0]))
        self.assertTrue(renewed.startswith(f"# Title\n\n{readme.BEGIN}\n"))
        self.assertTrue(renewed.endswith(f"{readme.END}\n\nThe end.\n"))
        self.assertNotIn("old", renewed)
        self.assertEqual(readme.renewed(renewed, results(tollgate=[6.0])), renewed)

    def test_a_page_without_its_marks_is_left_alone(self):
        with self.assertRaisesRegex(ProgramFailed, "lacks the marks"):
            readme.renewed("# Title\n", results(tollgate=[6.0]))

    def test_every_line_is_of_a_case_and_every_column_of_a_program(self):
        self.assertLessEqual({line.case for line in readme.LINES}, set(CASES))
        self.assertLessEqual(set(readme.OTHERS), set(PROXIES))


if __name__ == "__main__":
    unittest.main()
