"""The process in which a plan is made: a request on standard input, its answer on the output."""

import os
import sys

from jtrust.planning.processes import serve

if __name__ == "__main__":
    # An environment may print; the answer has the pipe to itself.
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, told)
