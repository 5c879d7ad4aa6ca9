#!/usr/bin/env bash
# Runs `parity check` as the action's inputs say, puts the report into the job's summary, and exits as the check does.
#
#   check.sh PARITY      with PARITY_MODEL, PARITY_ONNX, PARITY_ARGUMENTS, PARITY_JSON and PARITY_JUNIT in the environment
set -euo pipefail

parity=$1
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT

# The inputs come as environment variables and are quoted, so that nothing in them is taken for a command.
arguments=(check "$PARITY_MODEL" --json "$PARITY_JSON" --junit "$PARITY_JUNIT" --markdown "$summary")
if [ -n "${PARITY_ONNX:-}" ]; then
    arguments+=(--onnx "$PARITY_ONNX")
fi
# All of its lines; `read` ends with 1 at the end of its input.
read -r -d '' -a further <<<"${PARITY_ARGUMENTS:-}" || true
arguments+=("${further[@]+"${further[@]}"}")

# What an earlier step left is not this one's verdict.
rm -f "$PARITY_JSON" "$PARITY_JUNIT"
code=0
"$parity" "${arguments[@]}" || code=$?

if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then
    cat "$summary" >>"$GITHUB_STEP_SUMMARY"
fi
if [ -n "${GITHUB_OUTPUT:-}" ] && [ -s "$PARITY_JSON" ]; then
    # The first one in the report is that of the whole.
    verdict=$(grep -m 1 -o '"verdict": *"[a-z]*"' "$PARITY_JSON" | cut -d '"' -f 4 || true)
    echo "verdict=$verdict" >>"$GITHUB_OUTPUT"
fi
exit "$code"
