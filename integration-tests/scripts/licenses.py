#!/usr/bin/env python3
"""Checks licenses and sources of all dependencies against deny.toml, without cargo-deny.

Reads what `cargo metadata` reports. Does not check advisories or yanked versions: both need
cargo-deny and the RustSec database.

Exit: 0 all allowed, 1 some are not.
"""

import json
import re
import subprocess
import sys
import tomllib

CRATES_IO = ("registry+https://github.com/rust-lang/crates.io-index", "sparse+https://index.crates.io/")


def packages(target):
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={target}"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    resolved = {node["id"] for node in metadata["resolve"]["nodes"]}
    return [package for package in metadata["packages"] if package["id"] in resolved]


def allowed(expression, licenses):
    """Evaluates an SPDX expression, with `/` as the old spelling of OR."""
    terms = re.findall(r"[()]|[\w.+-]+(?: WITH [\w.-]+)?", expression.replace("/", " OR "))
    words = {"(": "(", ")": ")", "OR": "or", "AND": "and"}
    return eval(" ".join(words.get(term, str(term in licenses)) for term in terms))


def main():
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    licenses = set(rules["licenses"]["allow"])
    external = {}
    for target in rules["graph"]["targets"]:
        external |= {package["id"]: package for package in packages(target) if package["source"]}
    refused = []
    for package in external.values():
        name = f"{package['name']} {package['version']}"
        if not package["source"].startswith(CRATES_IO):
            refused.append(f"{name}: not from crates.io: {package['source']}")
        if not package["license"]:
            refused.append(f"{name}: states no license")
        elif not allowed(package["license"], licenses):
            refused.append(f"{name}: {package['license']} is not allowed by deny.toml")
    print("\n".join(sorted(refused)) or f"licenses and sources of {len(external)} dependencies: allowed by deny.toml")
    return 1 if refused else 0


sys.exit(main())
