"""Does a document break clients of another one?

    check.py OASDIFF LEVELS OLD NEW    says what breaks, and ends with 1 if something does
    check.py OASDIFF LEVELS --cases    shows on the golden cases that it would be seen, and that additions pass

oasdiff compares; what a gateway sends to webhooks is compared as an answer, because it goes in that direction.
"""

import copy
import json
import pathlib
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).parent


def as_answers(document):
    """The same document, with the bodies of webhooks as answers of operations that ask for them."""
    document = copy.deepcopy(document)
    for name, item in document.pop("webhooks", {}).items():
        hook = item["post"]
        body = {"description": "The event.", "content": hook.get("requestBody", {}).get("content", {})}
        ask = {"operationId": hook["operationId"], "responses": {"200": body}}
        document["paths"][f"/webhooks/{name}"] = {"get": ask}
    return document


def breaking(oasdiff, levels, old, new):
    """What breaks, one line each."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, document in (("old", old), ("new", new)):
            file = pathlib.Path(folder, f"{name}.json")
            file.write_text(json.dumps(as_answers(document)))
            files.append(str(file))
        plain = [line for line in pathlib.Path(levels).read_text().splitlines() if line and not line.startswith("#")]
        rules = pathlib.Path(folder, "levels.txt")
        rules.write_text("\n".join(plain) + "\n")
        command = [oasdiff, "breaking", *files, "--severity-levels", str(rules), "--format", "json", "--flatten-allof"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        sys.exit(f"oasdiff failed: {ran.stderr}")
    found = json.loads(ran.stdout or "[]") or []
    # level 3 is an error; level 2, a warning, is for what a client has to expect
    worst = [it for it in found if it["level"] == 3]
    return [f"{it['id']}: {it.get('operation', '')} {it.get('path', '')}: {it['text']}" for it in worst]


def changed(document, changes):
    """A copy with values put in places named by JSON pointers; null takes a place away."""
    document = copy.deepcopy(document)
    for pointer, value in changes.items():
        *way, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
        place = document
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            place[int(last) : int(last) + 1] = [value]
        elif value is None:
            del place[last]
        else:
            place[last] = value
    return document


def cases(oasdiff, levels):
    base = json.loads((HERE / "base.json").read_text())
    golden = json.loads((HERE / "cases.json").read_text())
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda case: breaking(oasdiff, levels, base, changed(base, case["set"])), golden))
    wrong = 0
    for case, found in zip(golden, results):
        if bool(found) != case["breaks"]:
            wrong += 1
            print(f"WRONG: {case['change']}: {found or 'nothing found'}")
    print(f"breaking changes: {len(golden) - wrong} passed, {wrong} failed")
    return wrong


def main():
    oasdiff, levels, *rest = sys.argv[1:]
    if rest == ["--cases"]:
        sys.exit(1 if cases(oasdiff, levels) else 0)
    old, new = (json.loads(pathlib.Path(file).read_text()) for file in rest)
    found = breaking(oasdiff, levels, old, new)
    for line in found:
        print(line)
    print(f"{len(found)} breaking changes against {rest[0]}, version {old['info']['version']}")
    sys.exit(1 if found else 0)


main()
