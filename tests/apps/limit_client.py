"""Sends a batch through a limit as a client that obeys it, checks every field it is told, prints a summary in JSON.

Usage: limit_client.py URL KEY [--requests N] [--workers N] [--upload-cost N] [--http2 CA.pem NAME]
Workers share one pause: whoever is refused comes back after Retry-After, and until then nobody else asks.
The quotas must have a burst that is the quota itself: what is told of them is held to that arithmetic.
"""

import argparse
import asyncio
import collections
import json
import math
import ssl
import sys

import http_sf
import httpx

DEADLINE_S = 60
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
STRUCTURED = {
    "RateLimit": "list",
    "RateLimit-Policy": "list",
    "Cache-Status": "list",
    "Vary": "list",
    "Cache-Control": "dictionary",
    "Content-Type": "item",
    "Retry-After": "item",
}


def expect(what, is_so, response):
    if not is_so:
        told = json.dumps(dict(response.headers))
        sys.exit(f"expected {what}: {response.status_code} {told} {response.text:.400}")


def fields(response):
    """Every structured field there is, parsed."""
    found = {}
    for name, form in STRUCTURED.items():
        if name in response.headers:
            try:
                found[name] = http_sf.parse(response.headers[name].encode(), tltype=form)
            except http_sf.StructuredFieldError as error:
                expect(f"a structured {name}, but {error}", False, response)
    return found


def is_integer(value, least):
    return type(value) is int and value >= least


class Told:
    """What the response to a request that costs so much says of limits, which holds together."""

    def __init__(self, response, cost):
        def check(what, is_so):
            expect(what, is_so, response)

        all_fields = fields(response)
        check("both fields", {"RateLimit", "RateLimit-Policy"} <= all_fields.keys())
        for name, _ in all_fields["RateLimit"] + all_fields["RateLimit-Policy"]:
            check("a policy that is a String", type(name) is str)
        self.policies = dict(all_fields["RateLimit-Policy"])
        self.limits = dict(all_fields["RateLimit"])
        self.is_hit = any("hit" in parameters for _, parameters in all_fields.get("Cache-Status", []))
        check("each policy once", len(self.policies) == len(all_fields["RateLimit-Policy"]))
        check("the same policies in both", [*self.policies] == [*self.limits])
        refused = response.status_code == 429
        for name, policy in self.policies.items():
            limit = self.limits[name]
            check("a quota", is_integer(policy.get("q"), 1))
            check("what is left of it", is_integer(limit.get("r"), 0) and limit["r"] <= policy["q"])
            if policy.get("qu") == "concurrent-requests":
                check("no window", "w" not in policy and "t" not in limit)
                continue
            check("a window", is_integer(policy.get("w"), 1) and is_integer(limit.get("t"), 0))
            each = policy["w"] / policy["q"]
            missing = policy["q"] - limit["r"]
            # Who is refused is told when there is enough, who is admitted, when there is all.
            most = cost - limit["r"] if refused and limit["r"] < cost else missing
            check("a time that fits what is left",
                  (most - 1) * each <= limit["t"] <= math.ceil(most * each))
        if refused:
            self.refusal(check, response, all_fields, cost)
        else:
            check("no Retry-After", "Retry-After" not in all_fields)

    def refusal(self, check, response, all_fields, cost):
        check("a Retry-After", "Retry-After" in all_fields)
        self.retry_after, _ = all_fields["Retry-After"]
        check("whole seconds", is_integer(self.retry_after, 1))
        check("a problem document", str(all_fields["Content-Type"][0]) == "application/problem+json")
        problem = response.json()
        check("its type", problem["type"] == QUOTA_EXCEEDED)
        check("its status", problem["status"] == 429 and problem["reason"] == "too_many_requests")
        check("when to come back", f"come back in {self.retry_after} s" in problem["detail"])
        used_up = [name for name, limit in self.limits.items() if limit["r"] < cost and "t" in limit]
        violated = problem["violated-policies"]
        check("policies that are used up", violated and set(violated) <= set(used_up))
        longest = max(self.limits[name]["t"] for name in used_up)
        check("not too early, nor much too late",
              longest <= self.retry_after <= math.ceil(longest * 1.1))

    def least_left(self):
        return min(limit["r"] for limit in self.limits.values())


class Batch:
    def __init__(self, client, host, options):
        self.client = client
        self.url = options.url
        self.fields = {"Host": host, "X-API-Key": options.key, "Accept": "application/json"}
        self.extensions = {"sni_hostname": host}
        self.upload_cost = options.upload_cost
        self.is_alone = options.workers == 1
        # Held by whoever was refused, until it has come back.
        self.pause = asyncio.Lock()
        self.left = 1
        self.seen = collections.Counter()
        self.versions = set()
        self.policies = None

    def request(self, number):
        """A page that is cached, one that is not, a body: each goes through the gateway another way."""
        method, path, body = [("GET", "/whoami", None), ("GET", "/api/items", None),
                              ("POST", "/upload", b"x" * 1000)][number % 3]
        return self.client.build_request(method, self.url + path, headers=self.fields, content=body,
                                         extensions=self.extensions)

    async def send(self, number):
        request = self.request(number)
        cost = self.upload_cost if request.method == "POST" else 1
        response = await self.client.send(request)
        told = Told(response, cost)
        self.versions.add(response.http_version)
        self.seen[response.status_code] += 1
        self.seen["hits"] += told.is_hit
        if self.policies is None:
            self.policies = told.policies
        expect("the policies of all responses", told.policies == self.policies, response)
        refused = response.status_code == 429
        if self.is_alone and refused:
            expect("no refusal while enough was left", self.left < cost, response)
        self.left = told.least_left()
        return asyncio.get_running_loop().time() + told.retry_after if refused else None

    async def ask(self, number):
        async with self.pause:
            pass
        again = await self.send(number)
        if again is None:
            return
        async with self.pause:
            while again is not None:
                await asyncio.sleep(again - asyncio.get_running_loop().time())
                self.seen["retries"] += 1
                again = await self.send(number)
                self.seen["refused retries"] += again is not None

    async def work(self, numbers):
        for number in numbers:
            await self.ask(number)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("key")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--upload-cost", type=int, default=1)
    parser.add_argument("--http2", nargs=2, metavar=("CA", "NAME"))
    options = parser.parse_args()
    # No proxy from the environment: the test means this very address.
    settings = {"trust_env": False, "timeout": DEADLINE_S}
    name = "test.example"
    if options.http2:
        ca, name = options.http2
        settings |= {"http2": True, "http1": False, "verify": ssl.create_default_context(cafile=ca)}
    async with httpx.AsyncClient(**settings) as client:
        batch = Batch(client, name, options)
        numbers = iter(range(options.requests))
        work = asyncio.gather(*(batch.work(numbers) for _ in range(options.workers)))
        await asyncio.wait_for(work, DEADLINE_S)
    print(json.dumps({"seen": batch.seen, "versions": sorted(batch.versions),
                      "policies": batch.policies}))


if __name__ == "__main__":
    asyncio.run(main())
