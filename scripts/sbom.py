#!/usr/bin/env python3
"""Writes a software bill of materials (CycloneDX 1.5, JSON) of what the program `triaged` links: from `cargo metadata` and Cargo.lock.

Usage: scripts/sbom.py OUT. Nothing is fetched; the registry's index is not asked. Only normal dependencies of the root package count, as they
are built for this machine: what tests and build scripts need is not in the program.
"""

import hashlib
import json
import subprocess
import sys
import tomllib
import uuid


def metadata():
    target = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = next(line.split()[1] for line in target.splitlines() if line.startswith("host:"))
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def linked(found):
    """The packages of the program, by id, each with those that it needs."""
    nodes = {node["id"]: node for node in found["resolve"]["nodes"]}
    needs, waiting = {}, [found["resolve"]["root"]]
    while waiting:
        package = waiting.pop()
        if package in needs:
            continue
        normal = [dep["pkg"] for dep in nodes[package]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
        needs[package] = sorted(normal)
        waiting.extend(normal)
    return needs


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums, kind="library"):
    made = {
        "type": kind,
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package.get("description"):
        made["description"] = " ".join(package["description"].split())
    if package.get("license"):
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = metadata()
    packages = {package["id"]: package for package in found["packages"]}
    with open("Cargo.lock", "rb") as file:
        lock = file.read()
    checksums = {(p["name"], p["version"]): p["checksum"] for p in tomllib.loads(lock.decode())["package"] if "checksum" in p}
    needs = linked(found)
    root = found["resolve"]["root"]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # The same lock file gives the same bill.
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=hashlib.sha256(lock).digest()[:16], version=4)}",
        "version": 1,
        "metadata": {"component": component(packages[root], checksums, "application")},
        "components": sorted((component(packages[p], checksums) for p in needs if p != root), key=lambda c: c["bom-ref"]),
        "dependencies": sorted(
            ({"ref": reference(packages[p]), "dependsOn": [reference(packages[n]) for n in of]} for p, of in needs.items()),
            key=lambda d: d["ref"],
        ),
    }
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(bom, out, indent=1)
        out.write("\n")
    print(f"{sys.argv[1]}: {len(bom['components'])} components")


if __name__ == "__main__":
    main()
