"""The samples of the documentation: fenced blocks behind a comment `<!-- test: NAME -->`.

    samples.py show FILE NAME     prints the block
    samples.py check FILE…        every block of code has a name that a test knows, and no name is left over
"""

import re
import sys

# Names of samples, and what runs them.
KNOWN = {
    r"generate (typescript|python|go|java|rust)": "tests/sdk/run",
    r"readme .+": "tests/sdk/samples/run",
    r"tests/run": "tests/run",
    r"manifest": "src/hooks/manifest_tests.rs",
    r"not run, .+": "nothing, for the reason given",
}

BLOCK = re.compile(r"(?:^<!-- test: (?P<name>[^\n]+?) -->\n)?^```(?P<kind>\S*)[^\n]*\n(?P<code>.*?)^```$", re.M | re.S)


def blocks(file):
    with open(file, encoding="utf-8") as text:
        yield from BLOCK.finditer(text.read())


def show(file, name):
    found = [block["code"] for block in blocks(file) if block["name"] == name]
    if len(found) != 1:
        sys.exit(f"{file} has {len(found)} samples named {name!r}")
    print(found[0], end="")


def check(files):
    wrong = 0
    for file in files:
        for block in blocks(file):
            name, kind = block["name"], block["kind"]
            if kind == "text":
                continue
            if not name or not any(re.fullmatch(pattern, name) for pattern in KNOWN):
                wrong += 1
                first = block["code"].strip().split("\n")[0]
                print(f"{file}: no test is named for the {kind or 'bare'} block that begins: {first}")
    if wrong:
        sys.exit(1)


command, *rest = sys.argv[1:]
if command == "show":
    show(*rest)
else:
    check(rest)
