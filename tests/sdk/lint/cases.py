"""The house rules of openapi/spectral.yaml find what they are there for: a document with every mistake at once."""

import copy
import json
import pathlib
import re
import subprocess
import sys
import tempfile

TOP = pathlib.Path(__file__).parents[3]
RULES = TOP / "openapi/spectral.yaml"

document = json.loads((TOP / "openapi/openapi.json").read_text())
wrong = copy.deepcopy(document)
text = wrong["paths"]["/instances/{instance_id}/messages/text"]["post"]
queue = wrong["paths"]["/queue"]["get"]
hook = wrong["webhooks"]["message"]["post"]

text["summary"] = "Sends."
del queue["description"]
text["operationId"] = "sendText"
text["tags"].append("Queue")
del queue["security"]
del text["responses"]["401"]
del text["requestBody"]["content"]["application/json"]["example"]
del text["responses"]["200"]["content"]["application/json"]["example"]
del text["responses"]["409"]["x-problem-codes"]
del text["responses"]["404"]["content"]["application/problem+json"]["examples"]
wrong["components"]["schemas"]["MessageEvent"]["required"].remove("seq")
hook["requestBody"]["content"]["application/json"]["example"]["seq"] = "not a number"

with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    json.dump(wrong, file)
    file.flush()
    command = ["spectral", "lint", "--ruleset", str(RULES), "--format", "json", "--quiet", file.name]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
found = {result["code"] for result in json.loads(ran.stdout)}

ours = set(re.findall(r"^  (kero-[a-z-]+):", RULES.read_text(), re.M))
missing = ours | {"oas3-valid-media-example"}
missing -= found
if missing:
    sys.exit(f"these rules did not find their mistake: {sorted(missing)}")
print(f"house rules: {len(ours)} passed, 0 failed")
