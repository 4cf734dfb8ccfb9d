#!/usr/bin/env python3
"""Prints the bill of materials of the program as CycloneDX 1.4: every crate that is compiled into it, with version, license and
checksum, from Cargo.lock. Arguments: the version of the program, the date."""

import json
import pathlib
import re
import subprocess
import sys
import uuid

version, date = sys.argv[1:3]
root = pathlib.Path(__file__).parents[2]

tree = ["cargo", "tree", "--locked", "--package", "rds-lb-agent", "--edges", "normal", "--prefix", "none", "--format", "{p}\t{l}"]
lines = subprocess.run(tree, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
crates = {}
for line in lines:
    crate, license = line.removesuffix(" (*)").split("\t")
    name, number = crate.split()[:2]
    # Crates of the workspace have a path, and are the program itself.
    if "(/" not in crate:
        crates[name, number.removeprefix("v")] = license.removesuffix(" (*)")

packages = re.findall(r'name = "(.*)"\nversion = "(.*)"\n(?:source = .*\n)?checksum = "(.*)"', (root / "Cargo.lock").read_text())
checksums = {(name, number): checksum for name, number, checksum in packages}


def component(name, number, license):
    return {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{number}",
        "name": name,
        "version": number,
        "purl": f"pkg:cargo/{name}@{number}",
        "hashes": [{"alg": "SHA-256", "content": checksums[name, number]}],
        "licenses": [{"expression": " ".join(license.replace("/", " OR ").split())}],
    }


program = {"type": "application", "bom-ref": "rds-lb-agent", "name": "rds-lb-agent", "version": version}
components = [component(*crate, license) for crate, license in sorted(crates.items())]
# The same program has the same number.
serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([program, components]))
bill = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.4",
    "serialNumber": f"urn:uuid:{serial}",
    "version": 1,
    "metadata": {"timestamp": f"{date}T00:00:00Z", "component": program},
    "components": components,
    "dependencies": [{"ref": "rds-lb-agent", "dependsOn": [one["bom-ref"] for one in components]}],
}
print(json.dumps(bill, indent=1))
