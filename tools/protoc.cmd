#!/bin/sh
: <<'BATCH'
@echo off
goto :windows
BATCH
# candle-onnx's build script (prost-build) needs a protobuf compiler, which a fresh machine does not have. This wrapper, named
# by .cargo/config.toml, runs one: a protoc on the PATH if there is one, else the binary inside the crate
# protoc-bin-vendored-<platform>, which crates/onnx-session declares so that cargo has fetched it before any build script runs.
# A build script inherits cargo's CARGO_MANIFEST_DIR, and in cargo's registry all crates lie side by side.
# The file is a shell script and a Windows batch file at once, because one path must serve both.
protoc=$(command -v protoc) && exec "$protoc" "$@"
for protoc in "${CARGO_MANIFEST_DIR:-.}"/../protoc-bin-vendored-*/bin/protoc; do
    # Only one platform's binary is normally there; where several are, take the one that runs.
    [ -x "$protoc" ] && "$protoc" --version >/dev/null 2>&1 && exec "$protoc" "$@"
done
echo "no protobuf compiler: neither 'protoc' on the PATH nor a protoc-bin-vendored crate beside ${CARGO_MANIFEST_DIR:-?}" >&2
echo "install protoc (Debian: protobuf-compiler, Homebrew: protobuf) or set PROTOC to its path" >&2
exit 1

:windows
where protoc.exe >nul 2>nul && (
    protoc.exe %*
    goto :end
)
for /d %%d in ("%CARGO_MANIFEST_DIR%\..\protoc-bin-vendored-win32-*") do if exist "%%d\bin\protoc.exe" (
    "%%d\bin\protoc.exe" %*
    goto :end
)
echo no protobuf compiler: neither protoc.exe on the PATH nor a protoc-bin-vendored-win32 crate beside %CARGO_MANIFEST_DIR% 1>&2
exit /b 1
:end
exit /b %ERRORLEVEL%
