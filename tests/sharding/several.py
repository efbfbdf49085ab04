"""A program of one process of several: runs one command line after another, each in a folder of its
own, and tells how it ended. What all of them need is started, imported and compiled once.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys

from jaxsft import cli
from jaxsft.sharding import hosts
from tests.sharding import restoring


def main(jobs: str, index: int, joined: list[str]) -> None:
    """Runs the jobs of a file: a list of {"name", "folders", "arguments", "own"}, of which folders
    and own options are one a process. Prints a line of JSON for each, behind a mark that the
    libraries below do not write.
    """
    with open(jobs, encoding="utf-8") as file:
        listed = json.load(file)
    for job in listed:
        os.chdir(job["folders"][index])
        err, out = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
            if job["arguments"] is None:
                code = restoring.main(joined)
            else:
                code = cli.main([*job["arguments"], *job["own"][index], *joined])
        told = {"name": job["name"], "code": code, "err": err.getvalue(), "out": out.getvalue()}
        print(f"ended: {json.dumps(told)}", flush=True)
    hosts.leave()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
