"""Packs a folder as a wheel (PEP 427): pack_wheel.py FOLDER VERSION OUTPUT_FOLDER."""

import base64
import hashlib
import pathlib
import platform
import sys
import zipfile

NAME = "attn_compare"


def main(stage, version, out):
    tag = f"py3-none-linux_{platform.machine()}"
    info = f"{NAME}-{version}.dist-info"
    files = {str(p.relative_to(stage)): p.read_bytes()
             for p in sorted(pathlib.Path(stage).rglob("*")) if p.is_file()}
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: attn-compare\nVersion: {version}\n"
        "Summary: Is an attention kernel right, and where does it go wrong?\n"
        "Requires-Python: >=3.9\nRequires-Dist: numpy\n").encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: pack_wheel\nRoot-Is-Purelib: false\nTag: {tag}\n").encode()
    files[f"{info}/entry_points.txt"] = (
        f"[console_scripts]\nattn-compare = {NAME}.program:main\n").encode()
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},"
        f"{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    target = pathlib.Path(out) / f"{NAME}-{version}-{tag}.whl"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            executable = "/_bin/" in name or "/_lib/" in name
            entry.external_attr = (0o100755 if executable else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
    print(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
