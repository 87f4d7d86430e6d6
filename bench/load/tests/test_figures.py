"""How figures are read and reckoned. Run: python3 -m unittest discover bench/load/tests"""

import os
import socket
import sys
import tempfile
import threading
import time
import tomllib
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import client  # noqa: E402
from harness.bounds import held  # noqa: E402
from harness.cases import CASES  # noqa: E402
from harness.generate import parse_h2load, parse_visitors, parse_wrk, percentile  # noqa: E402
from harness.growth import Growth  # noqa: E402
from harness.process import TICKS_PER_SECOND, ProgramFailed, parse_stat, started  # noqa: E402
from harness.proxies import PROXIES  # noqa: E402
from harness.report import ratio, spread  # noqa: E402
from harness.syscalls import parse_strace  # noqa: E402
from harness.tollgate import Answers, parse_metrics  # noqa: E402

WRK = """\
Running 5s test @ http://127.0.0.1:8080/1k
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.20ms  310.00us   9.80ms   91.00%
    Req/Sec    50.51k     2.10k   54.00k    80.00%
  Latency Distribution
     50%    1.15ms
     75%    1.25ms
     90%    1.40ms
     99%  980.00us
  252550 requests in 5.00s, 277.00MB read
Requests/sec:  50510.00
Transfer/sec:     55.40MB
"""

H2LOAD = """\
Application protocol: h2
finished in 2.00s, 150.00 req/s, 170.00KB/s
requests: 300 total, 300 started, 300 done, 300 succeeded, 0 failed, 0 errored, 0 timeout
"""

STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.600000           6    100000           writev
 40.00    0.400000           2    200000        12 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    1.000000           3    300000        12 total
"""


METRICS = """\
# TYPE tollgate_cache_requests_total counter
tollgate_cache_requests_total{route="127.0.0.1/{x}",tier="memory",outcome="hit"} 3
tollgate_cache_requests_total{route="127.0.0.1/{x}",tier="redis",outcome="hit"} 96
tollgate_cache_requests_total{route="127.0.0.1/{x}",tier="origin",outcome="miss"} 1
# TYPE tollgate_cache_memory_keys gauge
tollgate_cache_memory_keys 12
"""


class Reading(unittest.TestCase):
    def test_wrk_units_become_microseconds(self):
        load = parse_wrk(WRK)
        self.assertEqual((load.requests, load.p50_us, load.p99_us), (252_550, 1150.0, 980.0))
        self.assertAlmostEqual(load.per_second, 50_510)

    def test_wrk_pads_what_is_measured_in_seconds(self):
        load = parse_wrk(WRK.replace("980.00us", "1.29s "))
        self.assertEqual(load.p99_us, 1_290_000.0)

    def test_a_run_with_failed_requests_gives_no_figure(self):
        for trouble in ("  Non-2xx or 3xx responses: 3\n", "  Socket errors: connect 0, read 1, write 0, timeout 0\n"):
            with self.assertRaisesRegex(ProgramFailed, trouble.strip()):
                parse_wrk(WRK + trouble)

    def test_h2load_latencies_come_from_its_log(self):
        log = "".join(f"1700000000000000\t200\t{latency}\n" for latency in range(1, 301))
        load = parse_h2load(H2LOAD, log, seconds=2)
        self.assertEqual((load.requests, load.per_second, load.p50_us, load.p99_us), (300, 150.0, 150.0, 297.0))

    def test_h2load_that_fell_back_to_http1_gives_no_figure(self):
        with self.assertRaisesRegex(ProgramFailed, "not negotiated"):
            parse_h2load(H2LOAD.replace(": h2\n", ": http/1.1\n"), "1\t200\t5\n", seconds=2)

    def test_h2load_with_another_status_gives_no_figure(self):
        with self.assertRaisesRegex(ProgramFailed, "502"):
            parse_h2load(H2LOAD, "1\t200\t5\n1\t502\t5\n", seconds=2)

    def test_refusals_are_measured_where_nearly_every_request_is_refused(self):
        few, most = (f"  Non-2xx or 3xx responses: {count}\n" for count in (252_000, 252_549))
        self.assertEqual(parse_wrk(WRK + most, refused=True).requests, 252_550)
        for trouble in ("", few):
            with self.assertRaisesRegex(ProgramFailed, "of 252550 requests were refused"):
                parse_wrk(WRK + trouble, refused=True)

    def test_refusals_over_http2_are_told_by_the_log(self):
        failed = H2LOAD.replace("300 succeeded, 0 failed", "0 succeeded, 300 failed")
        load = parse_h2load(failed, "1\t429\t5\n" * 300, seconds=2, refused=True)
        self.assertEqual((load.requests, load.p50_us), (300, 5.0))
        with self.assertRaisesRegex(ProgramFailed, "only 150 of 300"):
            parse_h2load(failed, "1\t429\t5\n1\t200\t5\n" * 150, seconds=2, refused=True)

    def test_visitors_tell_what_they_saw(self):
        told = '{"requests": 300, "seconds": 2.0, "p50_us": 40, "p99_us": 97, "statuses": {"304": 300}}'
        load = parse_visitors(told, 304)
        self.assertEqual((load.requests, load.per_second, load.p50_us, load.p99_us), (300, 150.0, 40.0, 97.0))
        with self.assertRaisesRegex(ProgramFailed, "expected 200 alone"):
            parse_visitors(told, 200)

    def test_a_run_without_a_single_answer_gives_no_figure(self):
        nothing = "Application protocol: h2\nrequests: 0 total, 64 started, 0 done, 0 succeeded, 0 failed, 0 errored, 0 timeout\n"
        with self.assertRaisesRegex(ProgramFailed, "0 done"):
            parse_h2load(nothing, "", seconds=1, refused=True)

    def test_strace_calls_are_counted_without_the_total(self):
        self.assertEqual(parse_strace(STRACE), {"recvfrom": 200_000, "writev": 100_000})

    def test_answers_are_told_apart_by_where_they_came_from(self):
        self.assertEqual(parse_metrics(METRICS), Answers(redis=96, origin=1, all=100))

    def test_hits_that_did_not_come_from_redis_give_no_figure(self):
        now = Answers(redis=1_950, origin=0, all=2_000)
        self.assertEqual(now.from_redis_since(Answers(redis=0, origin=0, all=0)), 0.975)
        with self.assertRaisesRegex(ProgramFailed, "only 90.0% of the answers came from Redis"):
            now.from_redis_since(Answers(redis=1_050, origin=0, all=1_000))

    def test_a_process_name_may_hold_spaces_and_parentheses(self):
        fields = ["S", "1", "2", "77"] + ["0"] * 7 + ["200", "100", "30", "20"] + ["0"] * 6 + ["5"] + ["0"] * 20
        stat = parse_stat(f"42 (a ) (b) {' '.join(fields)}\n")
        self.assertEqual((stat.pid, stat.session), (42, 77))
        self.assertAlmostEqual(stat.cpu.user, 230 / TICKS_PER_SECOND)
        self.assertAlmostEqual(stat.cpu.system, 120 / TICKS_PER_SECOND)


class Refusing(unittest.TestCase):
    GIVEN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    REFUSED = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"

    def check(self, *answers):
        """What is found of a proxy that gives these answers on one connection, and then closes it."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            proxy = threading.Thread(target=answer, args=(listener, answers))
            proxy.start()
            try:
                client.check_refused(listener.getsockname()[1], "/1k", tls=False)
            finally:
                proxy.join()

    def test_a_proxy_may_answer_a_few_requests_before_it_refuses(self):
        self.check(self.GIVEN, self.GIVEN, self.REFUSED, self.REFUSED)

    def test_a_refusal_that_closes_the_connection_gives_no_figure(self):
        with self.assertRaisesRegex(ProgramFailed, "the connection was closed"):
            self.check(self.GIVEN, self.REFUSED)

    def test_a_refusal_that_does_not_say_when_to_come_back_gives_no_figure(self):
        silent = self.REFUSED.replace(b"Retry-After: 60\r\n", b"")
        with self.assertRaisesRegex(ProgramFailed, "expected 429 with Retry-After"):
            self.check(silent, silent)


def answer(listener, answers):
    stream, _ = listener.accept()
    with stream:
        for given in answers:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += stream.recv(65536)
            stream.sendall(given)


class Reckoning(unittest.TestCase):
    def samples(self, figures):
        return [
            {"round": number, "case": "c", "proxy": proxy, "cpu_us": value}
            for proxy, values in figures.items()
            for number, value in enumerate(values, start=1)
            if value is not None
        ]

    def test_ratios_are_paired_by_round(self):
        # The second round was twice as slow for both: the quotient does not feel it.
        samples = self.samples({"ours": [12.0, 24.0, 12.0], "bare": [10.0, 20.0, 10.0]})
        quotient = ratio(samples, "c", "ours", "bare", "cpu_us")
        self.assertEqual((quotient.middle, quotient.least, quotient.most), (1.2, 1.2, 1.2))

    def test_a_round_that_one_side_lacks_has_no_ratio(self):
        samples = self.samples({"ours": [12.0, 99.0], "bare": [10.0, None]})
        self.assertEqual(ratio(samples, "c", "ours", "bare", "cpu_us").most, 1.2)
        self.assertIsNone(ratio(samples, "c", "ours", "absent", "cpu_us"))

    def test_a_spread_is_the_median_and_its_range(self):
        found = spread(self.samples({"ours": [5.0, 1.0, 3.0]}), "c", "ours", "cpu_us")
        self.assertEqual((found.middle, found.least, found.most), (3.0, 1.0, 5.0))

    def test_percentiles_are_values_that_occurred(self):
        self.assertEqual(percentile([1, 2, 3, 4], 50), 2.0)
        self.assertEqual(percentile([7], 99), 7.0)


class Growing(unittest.TestCase):
    MIB = 2**20

    def test_pages_that_come_and_go_are_no_growth(self):
        readings = [40 * self.MIB, 41 * self.MIB] * 90
        self.assertTrue(Growth.of(readings).is_none)

    def test_a_leak_is_growth(self):
        # 8 KiB a second for nine minutes.
        growth = Growth.of([40 * self.MIB + 8192 * second for second in range(540)])
        self.assertEqual(growth.grown, 8192 * 360)
        self.assertFalse(growth.is_none)

    def test_memory_that_is_given_back_is_no_growth(self):
        self.assertTrue(Growth.of([60 * self.MIB] * 30 + [40 * self.MIB] * 60).is_none)


class Bounds(unittest.TestCase):
    def held(self, *kib):
        samples = [{"round": number, "case": "idle-10000", "proxy": proxy, "kib_each": value}
                   for number, value in enumerate(kib) for proxy in ("tollgate", "bare")]
        return held({"about": {"cases": ["hit-1k", "idle-10000"]}, "samples": samples})

    def test_idle_connections_above_four_kib_are_too_much(self):
        (bound,) = self.held(3.9, 4.1, 4.2)
        self.assertFalse(bound.is_met)
        self.assertEqual(str(bound), "10,000 idle keep-alive connections: Tollgate 4.10 KiB each, wanted at most 4: missed")

    def test_the_median_decides(self):
        self.assertTrue(self.held(2.9, 4.0, 9.0)[0].is_met)

    def test_what_was_not_measured_has_no_bound(self):
        self.assertEqual(self.held(), [])


class Serving(unittest.TestCase):
    def test_varnish_takes_part_in_plain_hits_alone(self):
        served = [name for name, case in CASES.items() if PROXIES["varnish"].serves(case)]
        self.assertEqual(served, ["hit-1k", "hit-64k", "hit-head", "hit-unchanged", "redis-hit-1k", "redis-hit-64k"])
        self.assertTrue(all(PROXIES["nginx"].serves(case) for case in CASES.values()))

    def test_the_floor_decides_nothing_and_so_takes_part_in_hits_under_a_limit_that_nobody_reaches(self):
        self.assertTrue(PROXIES["floor"].serves(CASES["limited-hit-1k"]))
        self.assertFalse(PROXIES["floor"].serves(CASES["refused"]))

    def test_a_paused_program_does_nothing_until_it_goes_on(self):
        with tempfile.TemporaryDirectory() as directory:
            command = ["sleep", "60"]
            with started("sleeper", command, min(os.sched_getaffinity(0)), Path(directory) / "log") as tree:
                with tree.paused():
                    self.wait_until(lambda: states(tree) == {"T"})
                self.wait_until(lambda: states(tree) == {"S"})

    def wait_until(self, holds):
        deadline = time.monotonic() + 10
        while not holds():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)


def states(tree):
    """Of its processes, as proc(5) calls them."""
    return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in tree.pids()}


class Fairness(unittest.TestCase):
    ROOT = Path(__file__).resolve().parents[3]
    PEERS = ROOT / "bench" / "load" / "peers"

    def test_tollgate_and_the_bare_proxy_are_built_alike(self):
        ours, theirs = (tomllib.loads((at / "Cargo.toml").read_text()) for at in (self.ROOT, self.PEERS))
        self.assertEqual(ours["profile"]["release"], theirs["profile"]["release"])

    def test_tollgate_and_the_bare_proxy_share_the_versions_of_their_dependencies(self):
        def versions(lock):
            packages = tomllib.loads(lock.read_text())["package"]
            return {(package["name"], package["version"]) for package in packages}

        ours, theirs = (versions(at / "Cargo.lock") for at in (self.ROOT, self.PEERS))
        self.assertEqual(theirs - ours, {("tollgate-bench-peers", "0.1.0")})


if __name__ == "__main__":
    unittest.main()
