"""Small programming problems, and a subprocess with limits and without network that runs answers."""

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

_SECONDS, _BYTES, _FILE_BYTES = 5, 512 * 2**20, 2**20
_BLOCK = re.compile(r"```(?:python|py)?[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
# Runs first in the process: a new namespace, where the kernel allows it, and an audit hook everywhere block the network.
_GUARD = """
import ctypes, os, resource, sys
limits = {limits!r}
resource.setrlimit(resource.RLIMIT_CPU, (limits[0], limits[0]))
resource.setrlimit(resource.RLIMIT_AS, (limits[1], limits[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (limits[2], limits[2]))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    ctypes.CDLL(None).unshare(0x10000000 | 0x40000000)  # CLONE_NEWUSER | CLONE_NEWNET
except (OSError, AttributeError):
    pass
def refuse(event, args):
    if event.split(".")[0] in ("socket", "subprocess", "ctypes", "shutil", "urllib", "http", "ftplib", "smtplib"):
        raise PermissionError(event)
    if event in ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.kill", "os.remove",
                 "os.rename", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate"):
        raise PermissionError(event)
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        raise PermissionError(event)
sys.addaudithook(refuse)
source, tests = {source!r}, {tests!r}
space = {{"__name__": "answer"}}
exec(compile(source, "answer", "exec"), space)
exec(compile(tests, "tests", "exec"), space)
sys.__stdout__.flush()
os.write(1, {token!r})
"""


@dataclass(frozen=True)
class Problem:
    """
    A function to write.

    Args:
        instruction (`str`): the task, including the function's name.
        name (`str`): name of the function.
        tests (`str`): Python code that raises if the function is wrong.
    """

    instruction: str
    name: str
    tests: str


def _problem(name: str, signature: str, task: str, *cases: str) -> Problem:
    tests = "\n".join(f"assert {case}" for case in cases)
    return Problem(f"Write a Python function `{name}({signature})` that {task} Answer with the code only.", name, tests)


PROBLEMS = (
    _problem("double", "n", "returns twice n.", "double(4) == 8", "double(-1) == -2"),
    _problem("larger", "a, b", "returns the larger of two numbers.", "larger(2, 5) == 5", "larger(-1, -3) == -1"),
    _problem("is_even", "n", "tells whether n is even.", "is_even(4) is True", "is_even(7) is False", "is_even(0) is True"),
    _problem("total", "numbers", "returns the sum of a list.", "total([1, 2, 3]) == 6", "total([]) == 0"),
    _problem("mean", "numbers", "returns the average of a list that is not empty.", "mean([1, 2, 6]) == 3", "mean([5]) == 5"),
    _problem("backwards", "text", "returns a text reversed.", "backwards('abc') == 'cba'", "backwards('') == ''"),
    _problem("vowels", "text", "counts the vowels a, e, i, o and u in a text, also capital ones.",
             "vowels('Audio') == 4", "vowels('rhythm') == 0", "vowels('a tree') == 3"),
    _problem("unique", "items", "returns the items of a list without repeats, in order.",
             "unique([3, 1, 3, 2, 1]) == [3, 1, 2]", "unique([]) == []"),
    _problem("factorial", "n", "returns n factorial, with 1 for 0.", "factorial(0) == 1", "factorial(5) == 120"),
    _problem("squares", "n", "returns the list of the squares of 1 to n.", "squares(4) == [1, 4, 9, 16]", "squares(0) == []"),
    _problem("is_prime", "n", "tells whether n is a prime number.", "is_prime(13)", "is_prime(2)",
             "not is_prime(1)", "not is_prime(4)", "not is_prime(21)"),
    _problem("longest_word", "text", "returns the first of the longest words.",
             "longest_word('a green tree is tall') == 'green'", "longest_word('one two') == 'one'"),
    _problem("count_words", "text", "counts the words between blanks.",
             "count_words('to be  or not') == 4", "count_words('') == 0"),
    _problem("flatten", "lists", "joins a list of lists into one list.", "flatten([[1], [2, 3], []]) == [1, 2, 3]",
             "flatten([]) == []"),
    _problem("initials", "name", "returns the capital initials of a name.", "initials('ada king lovelace') == 'AKL'",
             "initials('Grace Hopper') == 'GH'"),
    _problem("clamp", "x, low, high", "limits x to low and high.", "clamp(9, 0, 5) == 5", "clamp(-2, 0, 5) == 0",
             "clamp(3, 0, 5) == 3"),
    _problem("common", "a, b", "returns the sorted items that are in both lists, each once.",
             "common([3, 1, 3], [3, 2, 1]) == [1, 3]", "common([1], [2]) == []"),
    _problem("fibonacci", "n", "returns the first n Fibonacci numbers, from 0.", "fibonacci(6) == [0, 1, 1, 2, 3, 5]",
             "fibonacci(1) == [0]"),
    _problem("palindrome", "text", "tells whether a text reads the same backwards, whatever its case.",
             "palindrome('Level')", "not palindrome('Lever')"),
    _problem("digits", "n", "returns the sum of the digits of a whole number that is not negative.",
             "digits(1234) == 10", "digits(0) == 0"),
)  # fmt: skip


def run_problems(problems: Sequence[Problem], answers: Sequence[str]) -> list[bool]:
    """
    Run answers against the tests of their problems.

    Args:
        problems (`Sequence[Problem]`): n problems.
        answers (`Sequence[str]`): a model's answers, as plain or fenced code.

    Returns:
        `list[bool]`: for each answer, whether it passed all tests.
    """
    return [passes(problem, answer) for problem, answer in zip(problems, answers, strict=True)]


def passes(problem: Problem, answer: str) -> bool:
    """
    Run one answer in a separate process: in an empty folder, with 5 seconds, 512 MB and 1 MB of output, without network,
    subprocesses or writing. This stops accidents and common mischief of small models; it is not a sandbox for hostile code.
    """
    source = code_of(answer)
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    token = os.urandom(16).hex().encode()
    script = _GUARD.format(limits=(_SECONDS, _BYTES, _FILE_BYTES), source=source, tests=problem.tests, token=token)
    # What an answer prints goes to a file, which has a limited size, unlike a pipe.
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-"],
                input=script.encode("utf-8", "replace"),
                stdout=output,
                stderr=subprocess.DEVNULL,
                timeout=2 * _SECONDS,
                cwd=folder,
                env={"PATH": "", "OPENBLAS_NUM_THREADS": "1"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        output.seek(0)
        # An answer that exits early never prints the token, and so does not pass.
        return done.returncode == 0 and output.read().endswith(token)


def code_of(answer: str) -> str:
    """Return the code of an answer: the first fenced block, or all of it."""
    found = _BLOCK.search(answer)
    return found[1] if found else answer
