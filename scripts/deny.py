"""Reads `cargo metadata` and refuses crates that must not be among the dependencies, and licences we cannot ship with."""

import json
import re
import sys

BANNED = {
    "openssl-sys": "TLS is rustls with ring",
    "native-tls": "TLS is rustls with ring",
    "aws-lc-sys": "TLS is rustls with ring",
    "aws-lc-rs": "TLS is rustls with ring",
    "bincode": "unmaintained; rows are postcard",
}
ALLOWED = {
    "MIT", "MIT-0", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause", "ISC",
    "Zlib", "0BSD", "Unicode-3.0", "Unicode-DFS-2016", "MPL-2.0", "CC0-1.0", "BSL-1.0", "Unlicense", "CDLA-Permissive-2.0",
    "NCSA",
}


def fits(expression: str) -> bool:
    """Whether an SPDX expression can be met: every `AND` part has an `OR` choice that we allow."""
    expression = expression.replace("/", " OR ")
    if "(" in expression:
        inner = re.sub(r"\(([^()]*)\)", lambda part: "MIT" if fits(part.group(1)) else "NONE", expression)
        return fits(inner)
    for part in re.split(r"\s+AND\s+", expression):
        if not any(choice.strip() in ALLOWED for choice in re.split(r"\s+OR\s+", part)):
            return False
    return True


def main() -> int:
    metadata = json.load(sys.stdin)
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    packages = [package for package in metadata["packages"] if package["id"] in used]
    faults = []
    for package in packages:
        name, licence = package["name"], package["license"] or ""
        if name in BANNED:
            faults.append(f"{name} is banned: {BANNED[name]}")
        if not fits(licence) and not package["license_file"]:
            faults.append(f"{name} {package['version']} has the licence {licence!r}, which is not allowed")
        if package["source"] and not package["source"].startswith("registry+"):
            faults.append(f"{name} does not come from the registry")
    for fault in sorted(faults):
        print(f"deny: {fault}", file=sys.stderr)
    print(f"deny: {len(packages)} crates, {len(faults)} faults")
    return 1 if faults else 0


sys.exit(main())
